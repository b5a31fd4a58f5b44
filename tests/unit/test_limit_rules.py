"""Which rules apply, and what is said of what is left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from gateway.configuration import load_settings
from gateway.limits.headers import duration
from gateway.limits.rules import LimitRules
from gateway.settings import LimitSettings, SettingsError


def applied(
    settings: dict[str, Any], project: str = "red", key: str | None = None, model: str = "granite"
) -> dict[str, int]:
    """The limits by the names of their counters."""
    rules = LimitRules(msgspec.convert(settings, LimitSettings))
    return {one.key: one.limit for one in rules.applied(project, key, model)}


def test_without_rules_nothing_applies():
    """And nothing needs to be counted."""
    assert not LimitRules(LimitSettings()).any
    assert applied({}) == {}


def test_the_simple_settings_are_for_each_project():
    """Each project has a counter of its own."""
    settings = {"requests_per_minute": 60, "tokens_per_month": 1000}
    assert applied(settings) == {
        "requests_per_minute|red|*|*": 60,
        "tokens_per_month|red|*|*": 1000,
    }
    assert applied(settings, "blue").keys().isdisjoint(applied(settings))


def test_a_name_takes_the_place_of_a_star():
    """Of rules that look at the same things, the one with more names applies, whatever order."""
    rules = [
        {"project": "*", "requests_per_minute": 60},
        {"project": "red", "requests_per_minute": 600},
    ]
    assert applied({"rules": rules}) == {"requests_per_minute|red|*|*": 600}
    assert applied({"rules": rules[::-1]}) == {"requests_per_minute|red|*|*": 600}
    assert applied({"rules": rules}, "blue") == {"requests_per_minute|blue|*|*": 60}


def test_a_rule_replaces_only_what_it_limits():
    """Tokens stay limited by the general rule where the named one says nothing of them."""
    settings = {
        "tokens_per_minute": 1000,
        "requests_per_minute": 60,
        "rules": [{"project": "red", "requests_per_minute": 600}],
    }
    assert applied(settings) == {
        "requests_per_minute|red|*|*": 600,
        "tokens_per_minute|red|*|*": 1000,
    }


def test_rules_that_look_at_different_things_apply_together():
    """A key's limit doesn't lift its project's."""
    rules = [
        {"project": "*", "requests_per_minute": 60},
        {"key": "*", "requests_per_minute": 20},
        {"model": "granite", "requests_per_minute": 300},
        {"project": "*", "model": "granite", "requests_per_minute": 30},
    ]
    assert applied({"rules": rules}, key="key_1") == {
        "requests_per_minute|red|*|*": 60,
        "requests_per_minute|*|key_1|*": 20,
        "requests_per_minute|*|*|granite": 300,
        "requests_per_minute|red|*|granite": 30,
    }


def test_a_rule_for_keys_leaves_those_without_alone():
    """A caller that has no key isn't one of them."""
    rules = [{"key": "*", "requests_per_minute": 20}]
    assert applied({"rules": rules}, key=None) == {}


def test_a_rule_for_one_model_leaves_the_others_alone():
    """So does one for one project or key."""
    rules = [
        {"model": "llama", "requests_per_minute": 1},
        {"project": "blue", "requests_per_minute": 1},
        {"key": "key_2", "requests_per_minute": 1},
    ]
    assert applied({"rules": rules}, key="key_1") == {}


def test_names_can_not_be_confused():
    """A project can't take a name by which it would share another one's counter."""
    rules = [{"project": "*", "key": "*", "requests_per_minute": 1}]
    odd = applied({"rules": rules}, "a|b", "c")
    assert odd.keys().isdisjoint(applied({"rules": rules}, "a", "b|c"))
    assert "\x00" not in next(iter(applied({"rules": rules}, "a\x00", "c")))


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0s"),
        (0.0004, "0ms"),
        (0.012, "12ms"),
        (1, "1s"),
        (8.64, "8.64s"),
        (59.9, "59.9s"),
        (60, "1m0s"),
        (360, "6m0s"),
        (3600, "1h0m0s"),
        (90061, "25h1m1s"),
    ],
)
def test_durations_are_in_openais_words(seconds: float, said: str):
    """As its headers have them."""
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("limits", "complaint"),
    [
        ({"store": "memcached"}, "limits.store: expected"),
        ({"on_store_failure": "maybe"}, "limits.on_store_failure"),
        ({"requests_per_minute": 0}, "limits.requests_per_minute"),
        ({"rules": [{"project": "red"}]}, "limits.rules.0: limits nothing"),
        ({"rules": [{"porject": "red"}]}, "porject"),
        ({"rules": [{"key": "", "requests_per_minute": 1}]}, "limits.rules.*key"),
        (
            {"rules": [{"model": "a", name: 1} for name in ("requests_per_minute",) * 2]},
            "limits.rules.1: the same project, key and model",
        ),
        (
            {"quotas": [{"max_files": 1}, {"max_files": 2}]},
            r"limits.quotas.1.project: '\*' is given",
        ),
        ({"quotas": [{"max_files": -1}]}, "limits.quotas.*max_files"),
    ],
)
def test_a_wrong_limit_is_named(tmp_path: Path, limits: dict[str, Any], complaint: str):
    """When the file is read, not when a request comes."""
    file = tmp_path / "understudy.yaml"
    file.write_text(yaml.safe_dump({"limits": limits}))
    with pytest.raises(SettingsError, match=complaint):
        load_settings(file, {})
