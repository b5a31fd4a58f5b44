"""Batches that end, on three replicas."""

from tests.promises.test_batches_end import *
