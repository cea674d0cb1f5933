"""Log files on disk: written, rotated, kept, and read again."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from umbel._agent import log_files
from umbel._client import log_reader
from umbel._client.log_files import Stat

W1, W2 = "a" * 32, "b" * 32
F = ("f", "01", "")
G = ("g", "02", "")


class Session:
    """A session directory with log files, and what was warned of."""

    def __init__(self, base: Path, name: str = "1-2-3-x", **settings: Any) -> None:
        self.directory = base / name
        self.directory.mkdir()
        self.warnings: list[str] = []
        given = {"root": str(base / "kept"), "keep_s": 0.0, "file_bytes_max": 1 << 20, "bytes_max": 1 << 30} | settings
        self.files = log_files.LogFiles(str(self.directory), report=self.warnings.append, **given)

    def say(
        self, *lines: str, whose: tuple[str, str, str] = F, worker: str = W1, at_s: float = 1.0, err: bool = False
    ) -> None:
        name, task, actor = whose
        self.files.write(worker, 7, is_error=err, actor=actor, groups=[(name, task, list(lines))], at_s=at_s)

    def streams(self) -> list[log_reader.Stream]:
        files = log_reader.LocalFiles(str(self.directory / "logs"))
        return log_reader.streams(files, files.look())

    def seen(self) -> Mapping[str, Stat]:
        return log_reader.LocalFiles(str(self.directory / "logs")).look()

    def names(self) -> list[str]:
        return sorted(name for name in os.listdir(self.directory / "logs") if not name.endswith(".idx"))


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    made = Session(tmp_path)
    yield made
    made.files.close()


def everything(_entry: log_reader.Entry) -> bool:
    return True


def of(name: str) -> log_reader.Wanted:
    return lambda entry: entry.name == name


def test_lines_are_written_as_they_were_printed_in_a_file_for_each_worker_and_stream(session: Session) -> None:
    session.say("one", "two")
    session.say("three", whose=G)
    session.say("oops", err=True)
    session.say("other", worker=W2)
    assert session.names() == [f"worker-{W1}-7.err", f"worker-{W1}-7.out", f"worker-{W2}-7.out"]
    assert (session.directory / "logs" / f"worker-{W1}-7.out").read_text() == "one\ntwo\nthree\n"
    assert [stream.title for stream in session.streams()] == [
        "worker aaaaaaaa (pid 7), standard output",
        "worker aaaaaaaa (pid 7), standard error",
        "worker bbbbbbbb (pid 7), standard output",
    ]


def test_lines_are_found_by_whose_they_are(session: Session) -> None:
    session.say("f1", "f2")
    session.say("g1", whose=G)
    session.say("f3", whose=("f", "03", "ac70ac70ac70"))
    (stream,) = session.streams()
    assert stream.all(everything, session.seen()) == ["f1", "f2", "g1", "f3"]
    assert stream.all(of("f"), session.seen()) == ["f1", "f2", "f3"]
    found = {
        about: stream.all(log_reader.wanted_by(about, stream), session.seen())
        for about in ("f", "g", "01", "03", "AC70AC70", "7", "aaaaaaaa", "a", "nobody")
    }
    assert found == {
        "f": ["f1", "f2", "f3"], "g": ["g1"], "01": ["f1", "f2"], "03": ["f3"], "AC70AC70": ["f3"],
        "7": ["f1", "f2", "g1", "f3"], "aaaaaaaa": ["f1", "f2", "g1", "f3"], "a": [], "nobody": [],
    }  # fmt: skip
    assert (stream.names(), stream.describe(session.seen())["actors"]) == (["f", "g"], ["ac70ac70ac70"])


def test_what_comes_at_once_is_told_apart(session: Session) -> None:
    groups = [("f", "01", ["ü1"]), ("g", "02", ["g1", "g2"]), ("f", "01", ["f2"])]
    session.files.write(W1, 7, is_error=False, actor="", groups=groups, at_s=1.0)
    (stream,) = session.streams()
    assert [stream.all(of(name), session.seen()) for name in "fg"] == [["ü1", "f2"], ["g1", "g2"]]


def test_full_file_goes_behind_and_takes_its_index_along(tmp_path: Path) -> None:
    session = Session(tmp_path, file_bytes_max=400)
    for number in range(12):
        session.say(f"line {number}".ljust(60, "."), whose=F if number % 2 else G)
    assert session.names() == [f"worker-{W1}-7.out", f"worker-{W1}-7.out.1"]
    (stream,) = session.streams()
    numbers = [int(line.split()[1].rstrip(".")) for line in stream.all(everything, session.seen())]
    assert numbers == list(range(numbers[0], 12)) and len(numbers) >= 2
    assert all(int(line.split()[1].rstrip(".")) % 2 for line in stream.all(of("f"), session.seen()))
    assert len(stream.all(of("f"), session.seen())) == sum(number % 2 for number in numbers)
    session.files.close()


def test_reader_that_follows_misses_nothing_when_the_file_is_full(tmp_path: Path) -> None:
    session = Session(tmp_path, file_bytes_max=600)
    session.say("line 0")
    (stream,) = session.streams()
    seen = stream.all(everything, session.seen())
    for number in range(1, 60):
        session.say(f"line {number}", whose=F if number % 2 else G)
        seen += stream.more(everything, session.seen())
    assert seen == [f"line {number}" for number in range(60)]
    session.files.close()


def test_worker_that_has_ended_frees_its_files_and_too_many_are_closed_and_opened_again(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_files, "OPEN_MAX", 2)
    before = len(os.listdir("/proc/self/fd"))
    workers = [f"{number:032x}" for number in range(5)]
    for word in ("first", "second"):
        for worker in workers:
            session.say(word, worker=worker)
    assert len(os.listdir("/proc/self/fd")) == before + 4
    assert [stream.all(everything, session.seen()) for stream in session.streams()] == [["first", "second"]] * 5
    for worker in workers:
        session.files.ended(worker, 7)
    assert len(os.listdir("/proc/self/fd")) == before


def test_files_of_ended_workers_go_when_all_are_too_large(tmp_path: Path) -> None:
    session = Session(tmp_path, bytes_max=1_000)
    session.say("x" * 900)
    session.files.ended(W1, 7)
    session.say("y" * 900, worker=W2, at_s=2.0)
    assert len(session.names()) == 2  # it was looked through a second ago
    session.say("z", worker=W2, at_s=2.0 + log_files.PRUNE_PERIOD_S)
    assert session.names() == [f"worker-{W2}-7.out"]
    assert [name for name in os.listdir(session.directory / "logs") if W1 in name] == []
    session.files.close()


def test_kept_logs_outlive_their_session_until_they_are_too_old(tmp_path: Path) -> None:
    first = Session(tmp_path, "1-2-3-a", keep_s=100.0)
    first.say("kept")
    first.files.close()
    kept = tmp_path / "kept" / "1-2-3-a"
    assert (first.directory / "logs").resolve() == kept
    os.unlink(first.directory / "logs")
    os.rmdir(first.directory)
    files = log_reader.LocalFiles(str(kept))
    (stream,) = log_reader.streams(files, files.look())
    assert stream.all(everything, files.look()) == ["kept"]
    changed_s = os.stat(stream.path).st_mtime
    second = Session(tmp_path, "1-2-3-b", keep_s=5.0)
    second.say("x", at_s=changed_s + 99)
    assert os.path.exists(stream.path)
    second.say("x", at_s=changed_s + 99 + log_files.PRUNE_PERIOD_S)
    assert os.listdir(tmp_path / "kept") == ["1-2-3-b"]
    second.files.close()


def test_another_session_that_runs_is_left_alone(tmp_path: Path) -> None:
    first, second = Session(tmp_path, "1-2-3-a", keep_s=1.0), Session(tmp_path, "1-2-3-b", keep_s=1.0, bytes_max=0)
    first.say("quiet since")
    second.say("x", at_s=1e12)
    assert len(first.names()) == 2  # with the file that says for how long
    first.files.close()
    second.files.close()


def test_directory_that_was_removed_is_made_again(session: Session) -> None:
    session.say("x")
    session.files.ended(W1, 7)
    for name in os.listdir(session.directory / "logs"):
        os.unlink(session.directory / "logs" / name)
    os.rmdir(session.directory / "logs")
    session.say("again")
    assert [stream.all(everything, session.seen()) for stream in session.streams()] == [["again"]]
    assert session.warnings == []


def test_disk_that_fails_is_told_of_once_and_costs_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("not a directory")
    session = Session(tmp_path, keep_s=1.0)
    for _ in range(3):
        session.say("x")
    (warning,) = session.warnings
    assert "not written to log files any more" in warning and str(tmp_path / "kept") in warning
