"""Vector stores, on three replicas."""

from tests.api.test_vector_stores import *
