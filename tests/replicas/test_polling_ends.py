"""Polling, on three replicas."""

from tests.promises.test_polling_ends import *
