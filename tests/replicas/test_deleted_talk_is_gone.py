"""Deleted talk, on three replicas."""

from tests.promises.test_deleted_talk_is_gone import *
