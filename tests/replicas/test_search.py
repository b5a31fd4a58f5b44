"""Search, on three replicas."""

from tests.api.test_search import *
