"""Responses that search, on three replicas."""

from tests.api.test_response_file_search import *
