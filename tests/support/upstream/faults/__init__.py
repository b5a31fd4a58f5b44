"""What can go wrong with an upstream, one function per fault; each gives a behaviour.

    upstream.behave("/v1/chat/completions", faults.hangs_before_head())
    upstream.behave("/v1/chat/completions", faults.overloaded(), times=2)

"after k events" counts the events of the honest answer; a request that is not a stream counts as
one event, so that the fault then falls into the middle of its body.
"""

from tests.support.upstream.faults.connections import (
    closes_after,
    closes_before_head,
    closes_connection,
    closes_mid_body,
    closes_when_idle,
    resets_after,
    resets_before_head,
    resets_mid_body,
    sends,
)
from tests.support.upstream.faults.framing import (
    crlf_events,
    gigantic,
    in_one_write,
    in_small_writes,
)
from tests.support.upstream.faults.replies import (
    answers_with,
    anthropic_error,
    detail,
    error_event_after,
    error_event_first,
    html,
    overloaded,
    rate_limited,
    recorded,
    redirects_to_login,
    truncated_json,
    unauthorized,
    unavailable,
    validation_error,
    vllm_error,
)
from tests.support.upstream.faults.silence import (
    after,
    endless,
    hangs_after,
    hangs_after_head,
    hangs_before_head,
    slow,
)

__all__ = [
    "after",
    "answers_with",
    "anthropic_error",
    "closes_after",
    "closes_before_head",
    "closes_connection",
    "closes_mid_body",
    "closes_when_idle",
    "crlf_events",
    "detail",
    "endless",
    "error_event_after",
    "error_event_first",
    "gigantic",
    "hangs_after",
    "hangs_after_head",
    "hangs_before_head",
    "html",
    "in_one_write",
    "in_small_writes",
    "overloaded",
    "rate_limited",
    "recorded",
    "redirects_to_login",
    "resets_after",
    "resets_before_head",
    "resets_mid_body",
    "sends",
    "slow",
    "truncated_json",
    "unauthorized",
    "unavailable",
    "validation_error",
    "vllm_error",
]
