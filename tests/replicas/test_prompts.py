"""Prompts, on three replicas."""

from tests.api.test_prompts import *
