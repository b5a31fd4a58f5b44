"""Which limits apply to a request."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from msgspec import Struct

from gateway.settings import LimitRuleSettings, LimitSettings
from gateway.settings.limits import LIMITS

__all__ = ["AppliedLimit", "LimitRules"]

_ANY = "*"


class AppliedLimit(Struct, frozen=True):
    """``kind`` is the setting's name; ``key`` names the counter that is shared."""

    kind: str
    limit: int
    key: str


class LimitRules:
    """Rules that look at different things apply together: one of a project, one of its model.

    Of rules that look at the same things one applies, the one with the most names, and of several
    the first; so ``project: big`` takes the place of ``project: "*"`` for that one.
    """

    def __init__(self, settings: LimitSettings) -> None:
        rules = list(settings.rules)
        defaults = {kind: getattr(settings, kind) for kind in LIMITS}
        if any(defaults.values()):
            rules.append(LimitRuleSettings(project=_ANY, **defaults))
        self._rules: Sequence[LimitRuleSettings] = rules

    @property
    def any(self) -> bool:
        return bool(self._rules)

    def applied(self, project: str, key: str | None, model: str) -> list[AppliedLimit]:
        """To a request of this project, with this key, for this model."""
        given = (project, key, model)
        found = []
        for kind in LIMITS:
            chosen: dict[tuple[bool, ...], tuple[int, LimitRuleSettings]] = {}
            for rule in self._rules:
                wanted = (rule.project, rule.key, rule.model)
                if getattr(rule, kind) is None or not _matches(wanted, given):
                    continue
                shape = tuple(name is not None for name in wanted)
                names = sum(name not in (None, _ANY) for name in wanted)
                if shape not in chosen or names > chosen[shape][0]:
                    chosen[shape] = (names, rule)
            for shape, (_, rule) in chosen.items():
                parts = [
                    quote(name or "", safe="") if looked else _ANY
                    for looked, name in zip(shape, given, strict=True)
                ]
                found.append(AppliedLimit(kind, getattr(rule, kind), "|".join([kind, *parts])))
        return found


def _matches(wanted: tuple[str | None, ...], given: tuple[str | None, ...]) -> bool:
    """``*`` is any that there is: a request without a key has none."""
    return all(
        name is None or (has is not None and name in (_ANY, has))
        for name, has in zip(wanted, given, strict=True)
    )
