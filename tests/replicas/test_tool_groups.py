"""Tool groups, on three replicas."""

from tests.api.test_tool_groups import *
