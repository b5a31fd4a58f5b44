"""Stored completions, on three replicas."""

from tests.api.test_stored_completions import *
