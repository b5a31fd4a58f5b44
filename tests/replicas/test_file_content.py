"""Reading files, on three replicas."""

from tests.api.test_file_content import *
