"""Tools of responses, on three replicas."""

from tests.api.test_response_tools import *
