"""Files, on three replicas."""

from tests.api.test_files import *
