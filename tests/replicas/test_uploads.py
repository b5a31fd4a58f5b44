"""Uploads in parts, on three replicas."""

from tests.api.test_uploads import *
