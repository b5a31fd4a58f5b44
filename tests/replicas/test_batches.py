"""Batches, on three replicas."""

from tests.api.test_batches import *
