"""A faithful vLLM in process, for faults that must be made on purpose.

    async with FakeVllm(models=["fake-chat"]) as upstream:
        upstream.behave("/v1/chat/completions", faults.resets_after(events=2), times=1)
        ...
        request = await upstream.wait_for_request()
        assert request.headers["traceparent"]

Whatever is not set by `behave` answers as vLLM 0.32 does (see `tests/support/samples`).
"""

from tests.support.upstream import faults
from tests.support.upstream.answers import Events, Whole
from tests.support.upstream.exchange import Exchange
from tests.support.upstream.server import FakeVllm
from tests.support.upstream.wire import Received

__all__ = ["Events", "Exchange", "FakeVllm", "Received", "Whole", "faults"]
