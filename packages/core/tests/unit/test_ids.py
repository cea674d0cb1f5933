"""Ids: fixed size, equal by kind and bytes, readable back from every form."""

from __future__ import annotations

import pickle

import pytest

from umbel._model import ids

SIZES = {
    ids.ObjectID: 28,
    ids.TaskID: 24,
    ids.ActorID: 24,
    ids.WorkerID: 16,
    ids.NodeID: 28,
    ids.JobID: 4,
    ids.PlacementGroupID: 18,
    ids.ClusterID: 28,
    ids.UniqueID: 28,
    ids.FunctionID: 28,
    ids.ActorClassID: 28,
}
KINDS = sorted(SIZES, key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", KINDS)
def test_size_of_each_kind_is_fixed(kind: type[ids.BaseID]) -> None:
    assert kind.size() == SIZES[kind] == len(kind.from_random().binary())


@pytest.mark.parametrize("kind", KINDS)
def test_every_form_reads_back_as_the_same_id(kind: type[ids.BaseID]) -> None:
    one = kind.from_random()
    assert [kind(one.binary()), kind.from_binary(one.binary()), kind.from_hex(one.hex())] == [one] * 3
    assert pickle.loads(pickle.dumps(one)) == one
    assert repr(one) == f"{kind.__name__}({one.hex()})"


@pytest.mark.parametrize("kind", KINDS)
def test_nil_is_equal_to_itself_only(kind: type[ids.BaseID]) -> None:
    assert kind.nil() == kind.nil()
    assert kind.nil().is_nil()
    assert not kind(b"\0" * kind.size()).is_nil()


def test_ids_of_different_kinds_differ_even_with_the_same_bytes() -> None:
    same = b"x" * 28
    assert ids.UniqueID(same) != ids.NodeID(same)
    assert len({ids.UniqueID(same), ids.NodeID(same), ids.UniqueID(same)}) == 2
    assert ids.UniqueID(same) != same


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [b"", b"short", b"x" * 100, "x" * 28, None, 7, bytearray(28)])
def test_wrong_bytes_are_refused_with_what_was_got_and_what_is_allowed(kind: type[ids.BaseID], bad: object) -> None:
    with pytest.raises(ValueError) as info:
        kind(bad)  # type: ignore[arg-type]  # that is the point
    got = f"{len(bad)} bytes" if isinstance(bad, bytes) else repr(bad)
    assert str(info.value).startswith(f"{kind.__name__} must be {kind.size()} bytes, got {got}")


@pytest.mark.parametrize("bad", ["", "zz", "ab", "ab" * 17, 5, None])
def test_wrong_hex_is_refused(bad: object) -> None:
    with pytest.raises(ValueError, match="NodeID"):
        ids.NodeID.from_hex(bad)  # type: ignore[arg-type]  # that is the point


def test_object_id_tells_its_task_its_owner_and_its_index() -> None:
    owner = ids.WorkerID.from_random()
    task = ids.TaskID.of(owner, 7)
    one = ids.ObjectID.of(task, 3)
    assert (one.task_id(), one.index(), one.owner(), task.owner(), task.counter()) == (task, 3, owner, owner, 7)
    assert one.binary() == owner.binary() + (7).to_bytes(8, "big") + (3).to_bytes(4, "big")


def test_actor_id_tells_its_owner() -> None:
    owner = ids.WorkerID.from_random()
    assert (ids.ActorID.of(owner, 1).owner(), ids.ActorID.of(owner, 1).counter()) == (owner, 1)


def test_job_id_is_a_number() -> None:
    assert ids.JobID.from_int(258).hex() == "02010000"
    assert ids.JobID.from_int(258).to_int() == ids.JobID.from_int(258).int() == 258
