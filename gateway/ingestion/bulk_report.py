"""What a bulk ingestion has come to, for people."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.ingestion.bulk_records import Failure, Outcome, Plan

__all__ = ["failed_documents", "report"]


def failed_documents(plan: Plan, outcomes: Sequence[Outcome]) -> int:
    return len(plan.failures) + sum(one.failed for one in outcomes)


def report(plan: Plan, outcomes: Sequence[Outcome]) -> str:
    """Markdown: how many documents are in the store, and which are not and why."""
    failures = [*plan.failures, *(failure for one in outcomes for failure in one.failures)]
    failed = failed_documents(plan, outcomes)
    lines = [
        f"# Ingestion into {plan.store_id}",
        "",
        f"- {sum(one.done for one in outcomes)} brought in",
        f"- {plan.unchanged} unchanged",
        f"- {plan.described} attributes changed",
        f"- {failed} failed",
    ]
    if failures:
        lines += ["", "| Document | Why it failed |", "| --- | --- |"]
        lines += [_row(one) for one in sorted(failures, key=lambda one: one.key)]
    if failed > len(failures):
        lines += ["", f"{failed - len(failures)} more are in the logs of the insert tasks."]
    return "\n".join(lines) + "\n"


def _row(failure: Failure) -> str:
    cells = (failure.key, failure.why)
    return f"| {' | '.join(' '.join(one.replace('|', chr(92) + '|').split()) for one in cells)} |"
