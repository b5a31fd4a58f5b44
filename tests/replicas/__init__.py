"""The suites of what keeps state once more, with each request going to the next of three replicas.

Each module here takes in all of its namesake in ``tests/api`` or ``tests/promises``. A test that
looks into the one process that answers, or changes it, is marked ``one_process`` there and left
out here; so is one that brings a second replica of its own.
"""
