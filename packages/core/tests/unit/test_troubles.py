"""What is logged of errors that no caller is told of, and how much of it."""

from __future__ import annotations

import pickle

import pytest

from umbel import exceptions
from umbel._client import refs, troubles


@pytest.fixture(autouse=True)
def _no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refs._callbacks, "run", lambda callback: callback())


def blob(error: BaseException) -> bytes:
    return exceptions.dump_error(exceptions.UmbelTaskError.from_exception(error, "f"))


def test_only_so_many_lines_are_written_in_a_period_and_the_rest_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    now_s = 100.0
    log = troubles.TroubleLog(lambda: now_s)
    for number in range(troubles.LINES_MAX + 3):
        log.unread(blob(ValueError(f"number {number}")))
    assert len(caplog.messages) == troubles.LINES_MAX
    assert "f() failed" in caplog.text and "number 9" in caplog.text and "number 10" not in caplog.text
    now_s += troubles.PERIOD_S
    log.retried("g", 2, blob(ValueError("later")))
    assert [caplog.records[-1].levelname, caplog.records[-1].name] == ["WARNING", "umbel"]
    assert "later" in caplog.messages[-1] and "3 more such errors" in caplog.messages[-1]


@pytest.mark.parametrize(
    "error", [exceptions.TaskCancelledError("c"), exceptions.ActorDiedError("d"), exceptions.LocalNodeDiedError("n")]
)
def test_what_the_program_did_itself_or_hears_of_elsewhere_is_not_logged(
    error: exceptions.UmbelError, caplog: pytest.LogCaptureFixture
) -> None:
    log = troubles.TroubleLog()
    log.unread(exceptions.dump_error(error))
    log.unread(exceptions.dump_error(exceptions.WorkerCrashedError("crash")))
    assert [record.message.rpartition(": ")[2] for record in caplog.records] == ["crash"]


def test_a_task_that_did_not_run_is_logged_for_what_its_argument_ended_with(caplog: pytest.LogCaptureFixture) -> None:
    log = troubles.TroubleLog()
    for first in (exceptions.dump_error(exceptions.TaskCancelledError("c")), blob(exceptions.TaskCancelledError("u"))):
        log.unread(exceptions.dump_failed_input(first, "consume", task_id="ab"))
    assert len(caplog.messages) == 1  # f's own code raised the other: nobody has cancelled f
    assert "consume() did not run" in caplog.text and "f() failed" in caplog.text


def test_a_log_that_is_switched_off_costs_nothing(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pickle, "loads", None)  # no error is read
    caplog.set_level("CRITICAL", logger="umbel")
    troubles.TroubleLog().unread(b"unreadable")
    assert caplog.records == []
