"""Shields, on three replicas."""

from tests.api.test_shields import *
