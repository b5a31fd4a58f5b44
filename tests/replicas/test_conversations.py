"""Conversations, on three replicas."""

from tests.api.test_conversations import *
