"""Which log files are to go."""

from __future__ import annotations

from umbel._agent.log_retention import LogFile, excess

NEVER = float("inf")


def file(
    path: str, size_bytes: int = 10, *, changed_s: float = 0.0, expires_s: float = NEVER, is_open: bool = False
) -> LogFile:
    return LogFile(path, size_bytes, changed_s, expires_s, is_open)


def test_nothing_goes_that_is_young_and_fits() -> None:
    assert excess([file("a"), file("b")], now_s=100, bytes_max=20) == []


def test_what_is_too_old_goes_even_if_it_fits() -> None:
    files = [file("new", expires_s=101), file("old", expires_s=100), file("older", expires_s=50)]
    assert sorted(excess(files, now_s=100, bytes_max=1_000)) == ["old", "older"]


def test_the_oldest_go_until_the_rest_fits() -> None:
    files = [file("c", changed_s=3), file("a", changed_s=1), file("b", changed_s=2)]
    assert excess(files, now_s=100, bytes_max=20) == ["a"]
    assert excess(files, now_s=100, bytes_max=19) == ["a", "b"]
    assert excess(files, now_s=100, bytes_max=0) == ["a", "b", "c"]


def test_what_is_written_stays_whatever_its_age_and_counts() -> None:
    files = [file("open", 30, changed_s=1, expires_s=2, is_open=True), file("ended", changed_s=5)]
    assert excess(files, now_s=100, bytes_max=30) == ["ended"]
    assert excess(files, now_s=100, bytes_max=0) == ["ended"]


def test_what_is_too_old_makes_room_first() -> None:
    files = [file("young", 20, changed_s=1), file("expired", 20, changed_s=2, expires_s=50)]
    assert excess(files, now_s=100, bytes_max=20) == ["expired"]
