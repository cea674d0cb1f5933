"""What an owner reports of its tasks: every attempt once, with what they share told once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from umbel import exceptions
from umbel._client import call_sites, links, listing, recording
from umbel._control import events as control_events
from umbel._history import batches, codes

OWNER, FIRST, SECOND = b"o" * 16, b"a" * 16, b"b" * 16
PLAIN: Any = SimpleNamespace(
    index=1, name="f", announcement={"function": "module.f", "resources": {"CPU": 10_000}, "events": True, "env": {}}
)
METHOD: Any = SimpleNamespace(
    index=2, name="C.m", announcement={"method": "m", "class_name": "C", "actor": "0c" * 24, "events": True}
)
HIDDEN: Any = SimpleNamespace(index=3, name="h", announcement={"events": False})


class Running:
    """An execution, as far as it matters here."""

    link: Any
    seq: int


def task(seq: int, template: Any = PLAIN, attempt: int = 0, parent: Any = None) -> Any:
    return SimpleNamespace(seq=seq, template=template, attempt=attempt, parent=parent, submitted_s=float(seq))


@pytest.fixture
def recorder() -> recording.TaskRecorder:
    return recording.TaskRecorder(OWNER, "01000000")


def taken(recorder: recording.TaskRecorder) -> batches.Batch:
    ((count, data),) = recorder.take()
    batch = batches.decode(data)
    assert batch.row_count == count
    assert recorder.is_empty
    return batch


def test_what_tasks_share_is_told_once(recorder: recording.TaskRecorder) -> None:
    for seq in range(100):
        recorder.ended(task(seq), FIRST if seq % 2 else SECOND, codes.FINISHED, 0.5, seq + 1.0)
    batch = taken(recorder)
    assert batch.templates == [batches.Template("f", "module.f", codes.NORMAL, "", '{"CPU": 1.0}', "")]
    assert batch.workers == [SECOND.hex(), FIRST.hex()]
    assert len(batch.groups) == 2
    assert list(batch.rows())[:2] == [(0, 0, 0.0, 0.5, 1.0), (1, 1, 1.0, 0.5, 2.0)]


def test_quick_way_of_replies_is_the_group_of_the_last(recorder: recording.TaskRecorder) -> None:
    """What `Tasks.on_reply` does for a task like the one before."""
    last = recorder.ended(task(1), FIRST, codes.FINISHED, 0.5, 2.0)
    assert (last.template, last.parent) == (PLAIN, None)
    last.add((last.group, 2, 2.0, 0.25, 3.0))
    # One that was tried before is never "like the one before".
    assert recorder.ended(task(3, attempt=1), FIRST, codes.FINISHED, 0.5, 4.0) is links.NOTHING_RECORDED
    batch = taken(recorder)
    assert [row[:2] for row in batch.rows()] == [(0, 1), (0, 2), (1, 3)]
    assert [group.attempt for group in batch.groups] == [0, 1]
    assert last.template is None  # groups have other numbers in the next batch


def test_failure_belongs_to_its_row(recorder: recording.TaskRecorder) -> None:
    error = exceptions.dump_error(exceptions.WorkerCrashedError("it was killed"))
    last = recorder.ended(task(1), FIRST, codes.FINISHED, 0.5, 2.0)
    last.add((last.group, 2, 2.0, 0.25, 3.0))
    recorder.failed(task(3), b"", error, None, 4.0)
    batch = taken(recorder)
    assert batch.failures == [batches.Failure(2, "WORKER_DIED", "it was killed")]
    assert list(batch.rows())[2] == (1, 3, 3.0, codes.UNKNOWN_S, 4.0)
    assert batch.groups[1] == batches.Group(1, 0, 0, 0, codes.FAILED)


def test_what_asked_not_to_be_recorded_is_not(recorder: recording.TaskRecorder) -> None:
    recorder.ended(task(1, HIDDEN), FIRST, codes.FINISHED, 0.5, 2.0)
    recorder.failed(task(2, HIDDEN), FIRST, exceptions.dump_error(ValueError("x")), 0.5, 2.0)
    assert recorder.ended(task(3, HIDDEN), FIRST, codes.FINISHED, 0.5, 2.0) is links.NOTHING_RECORDED
    assert recorder.is_empty


def test_place_of_submission_is_told_where_it_is_recorded() -> None:
    recorder = call_sites.SiteRecorder(OWNER, "01000000")

    def submitted(seq: int, site: str) -> Any:
        made = task(seq)
        made.records = [SimpleNamespace(call_site=site)] if site else []
        return made

    for seq, site in enumerate(("a.py:1", "a.py:2", "a.py:1", "")):
        # Nobody takes the quick way, on which no place is looked at.
        last = recorder.ended(submitted(seq, site), FIRST, codes.FINISHED, 0.5, 2.0)
        assert last is links.NOTHING_RECORDED
    recorder.failed(submitted(4, "a.py:2"), FIRST, exceptions.dump_error(ValueError("x")), 0.5, 2.0)
    for _ in range(2):  # the next batch begins anew
        batch = taken(recorder)
        sites = [batch.templates[batch.groups[group].template - 1].call_site for group, *_ in batch.rows()]
        assert sites == ["a.py:1", "a.py:2", "a.py:1", "", "a.py:2"][: len(sites)]
        recorder.ended(submitted(0, "a.py:1"), FIRST, codes.FINISHED, 0.5, 2.0)
    assert len(batch.templates) == 1


def test_parents_and_actors_are_told(recorder: recording.TaskRecorder) -> None:
    parent = Running()
    parent.link, parent.seq = SimpleNamespace(peer=SECOND), 9
    recorder.ended(task(1, METHOD, parent=parent), FIRST, codes.FINISHED, 0.5, 2.0)
    batch = taken(recorder)
    assert batch.parents == [(SECOND + (9).to_bytes(8, "big")).hex()]
    assert batch.templates == [batches.Template("C.m", "C.m", codes.CALL, "0c" * 24)]


def test_constructor_is_a_task_of_its_creator(recorder: recording.TaskRecorder) -> None:
    actor = SECOND + (5).to_bytes(8, "big")
    recorder.constructed(actor, "C", FIRST, 2, (1.0, 2.0, 3.5), b"")
    batch = taken(recorder)
    assert (batch.owner, batch.workers) == (SECOND.hex(), [FIRST.hex()])
    assert batch.templates == [batches.Template("C.__init__", "C.__init__", codes.CREATION, actor.hex())]
    assert list(batch.rows()) == [(0, 5, 1.0, 1.5, 3.5)]
    assert batch.groups == [batches.Group(1, 1, 0, 2, codes.FINISHED)]


def test_constructor_that_failed_before_it_ran(recorder: recording.TaskRecorder) -> None:
    error = exceptions.dump_error(exceptions.UmbelTaskError("C.__init__", "Traceback: it broke"))
    recorder.constructed(SECOND + bytes(8), "C", FIRST, 0, (0.0, 0.0, 3.5), error)
    batch = taken(recorder)
    assert batch.failures == [batches.Failure(0, "ACTOR_CREATION_FAILED", "C.__init__() failed:\nTraceback: it broke")]
    assert next(iter(batch.rows()))[3] == codes.UNKNOWN_S


def test_compact_keeps_the_order(recorder: recording.TaskRecorder) -> None:
    for seq in range(1_000):
        recorder.ended(task(seq), FIRST, codes.FINISHED, 0.5, seq + 1.0)
        if recorder.is_loose:
            recorder.compact()
    assert not recorder.is_full
    assert [row[1] for row in taken(recorder).rows()] == list(range(1_000))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (exceptions.UmbelTaskError("f", "Traceback"), "TASK_EXECUTION_EXCEPTION"),
        (exceptions.TaskCancelledError("c"), "TASK_CANCELLED"),
        (exceptions.ActorDiedError("a"), "ACTOR_DIED"),
        (exceptions.RuntimeEnvSetupError("e"), "RUNTIME_ENV_SETUP_FAILED"),
        (exceptions.TaskUnschedulableError("u"), "TASK_UNSCHEDULABLE_ERROR"),
        (exceptions.TaskPlacementGroupRemoved("g"), "TASK_PLACEMENT_GROUP_REMOVED"),
        (exceptions.ActorPlacementGroupRemoved("g"), "ACTOR_PLACEMENT_GROUP_REMOVED"),
        (exceptions.OwnerDiedError("o"), "OWNER_DIED"),
        (exceptions.ObjectReconstructionFailedError("r"), "OBJECT_UNRECONSTRUCTABLE"),
        (ValueError("v"), "TASK_EXECUTION_EXCEPTION"),
    ],
)
def test_errors_have_types_of_rays(error: BaseException, kind: str) -> None:
    assert recording.error_of(exceptions.dump_error(error))[0] == kind


def test_each_cause_of_an_actors_death_has_a_type_of_rays() -> None:
    causes = {cause.value for cause in control_events.Cause if cause is not control_events.Cause.NONE}
    assert causes == set(listing._CAUSES)


def test_error_types_are_of_errors_that_exist() -> None:
    assert [name for name in recording._ERROR_TYPES if not hasattr(exceptions, name)] == []


class Bomb(Exception):
    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit('an error was built only to read its text')",)


def test_text_of_an_error_is_read_without_building_it() -> None:
    assert recording.error_of(exceptions.dump_error(Bomb("boom")))[1] == "boom"


def test_a_task_that_did_not_run_is_listed_with_its_name_and_the_kind_of_the_first_error() -> None:
    first = exceptions.dump_error(exceptions.TaskCancelledError("f was cancelled"))
    assert recording.error_of(exceptions.dump_failed_input(first, "g", task_id="ab")) == (
        "TASK_CANCELLED",
        "g() did not run, because an argument of it could not be computed:\nf was cancelled",
    )


def test_long_text_of_an_error_is_cut_at_its_beginning() -> None:
    _, message = recording.error_of(exceptions.dump_error(ValueError("x" * 10_000 + "the end")))
    assert len(message) == recording.MESSAGE_CHARS_MAX + 4
    assert message.endswith("the end")


def test_what_cannot_be_read_costs_only_the_text() -> None:
    assert recording.error_of(b"nonsense") == ("TASK_EXECUTION_EXCEPTION", "")
