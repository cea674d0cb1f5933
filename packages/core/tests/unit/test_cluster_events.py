"""What is remembered of what has happened to a cluster, and for how long."""

from __future__ import annotations

from umbel._control import cluster_events, kept
from umbel._control.cluster_events import ACTORS, INFO, JOBS, KEPT_MAX, TEXT_CHARS_MAX, WARNING


def add(events: cluster_events.ClusterEvents, source: str, text: str) -> None:
    events.add(WARNING, source, text, 1.5, {"job_id": "01"})


def test_events_are_numbered_and_listed_in_their_order() -> None:
    events = cluster_events.ClusterEvents()
    add(events, ACTORS, "one")
    add(events, JOBS, "two")
    assert [(one.number, one.source, one.text) for one in events.listed()] == [(1, ACTORS, "one"), (2, JOBS, "two")]
    assert events.listed()[0] == (1, 1.5, "WARNING", "ACTORS", "one", {"job_id": "01"})
    assert events.changed is None  # nobody keeps them


def test_an_actor_that_fails_all_the_time_drives_out_no_other_news() -> None:
    events = cluster_events.ClusterEvents()
    add(events, JOBS, "a job")
    for number in range(KEPT_MAX + 5):
        add(events, ACTORS, str(number))
    listed = events.listed()
    assert len(listed) == KEPT_MAX + 1
    assert [one.text for one in listed[:2]] == ["a job", "5"]


def test_a_text_has_its_bounds() -> None:
    events = cluster_events.ClusterEvents()
    add(events, JOBS, "x" * (TEXT_CHARS_MAX + 1))
    assert len(events.listed()[0].text) == TEXT_CHARS_MAX


def stored_after(stored: dict[str, bytes], tables: kept.Kept) -> dict[str, bytes]:
    """What a storage has once it was told the writes."""
    found = dict(stored)
    for key, value in tables.writes().items():
        if value is None:
            found.pop(key)
        else:
            found[key] = value
    return found


def test_the_next_head_remembers_what_was_kept_and_goes_on_counting() -> None:
    tables = kept.Kept([], 0.0)
    for number in range(KEPT_MAX + 3):
        add(tables.events, ACTORS, str(number))
    stored = stored_after({}, tables)
    assert len(stored) == KEPT_MAX
    assert tables.writes() == {}
    again = kept.Kept(stored.items(), 100.0)
    assert again.writes() == {}
    assert again.events.listed() == tables.events.listed()
    again.events.add(INFO, JOBS, "the next", 2.0, {})
    assert again.events.listed()[-1].number == KEPT_MAX + 4
    add(again.events, ACTORS, "and one that drives out the oldest")
    writes = again.writes()
    assert sorted(value is None for value in writes.values()) == [False, False, True]
