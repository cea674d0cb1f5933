"""`nox -s fuzz` begins with complete messages of every kind. It needs atheris; this does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from umbel._agent import messages
from umbel._wire import frames

ROOT = Path(__file__).resolve().parents[4]


def test_every_target_takes_what_it_begins_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import fuzz

    for target in fuzz.TARGETS.values():
        seeds = target.seeds()
        assert seeds
        for seed in seeds:
            target.run(seed)


def test_it_begins_with_a_message_of_every_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import fuzz

    complete = [json.loads(text) for text in fuzz._texts()[: len(messages.KINDS)]]
    assert [one["t"] for one in complete] == [*messages.KINDS]
    for one in complete:
        assert messages.parse(one)["t"] == one["t"]
    assert frames.decode_control(fuzz._payloads()[0])[1] == b"body"
