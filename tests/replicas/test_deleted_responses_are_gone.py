"""Deleted responses and conversations, on three replicas."""

from tests.promises.test_deleted_responses_are_gone import *
