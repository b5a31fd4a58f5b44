"""Responses, on three replicas."""

from tests.api.test_responses import *
