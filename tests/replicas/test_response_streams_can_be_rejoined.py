"""Streams that are rejoined, on three replicas."""

from tests.promises.test_response_streams_can_be_rejoined import *
