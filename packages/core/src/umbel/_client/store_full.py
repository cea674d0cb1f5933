"""What to say when the object store is full: who has what, which objects are the biggest, who made them and where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from umbel import exceptions
from umbel._client import inquiry
from umbel._model import reasons

if TYPE_CHECKING:
    from umbel._client.native import NativeEngine

Reason = reasons.Reason
OBJECTS_TOLD_MAX = 5
_ADVICE = (
    "drop references and arrays you no longer need, work on fewer or smaller values at a time, or start with a larger "
    "object_store_memory"
)


def error_of(engine: NativeEngine, size_bytes: int, refusal: Mapping[str, Any]) -> exceptions.UmbelError:
    """The error for whoever asked for `size_bytes`. refusal: the agent's answer. Asks the owners of the biggest objects."""
    lines = [
        f"the object store has no room for {size_bytes} more bytes: {refusal.get('text', '')}",
        f"the biggest holders: {_holders(refusal.get('holders', ()))}",
    ]
    viewers = refusal.get("viewers", ())
    if viewers:
        lines.append(
            "pinned by arrays and other values that programs look at: "
            + ", ".join(f"{_process(one)} {one['count']} values, {one['bytes']} bytes" for one in viewers)
        )
    biggest = _biggest(engine, refusal.get("owners", ()))
    if biggest:
        lines.append(f"the biggest objects: {'; '.join(biggest)}")
        if not engine.config.record_call_sites:
            lines.append("set UMBEL_RECORD_CALL_SITES=1 to see which lines made them")
    spill_error = refusal.get("spill_error", "")
    if spill_error:
        lines.append(f"objects could not be moved to disk: {spill_error}; they stay in memory")
    elif not refusal.get("is_spilling", True):
        lines.append("moving objects to disk is switched off (UMBEL_AUTOMATIC_OBJECT_SPILLING_ENABLED=0)")
    lines.append(_ADVICE)
    kind = exceptions.OutOfDiskError if refusal.get("is_disk_full") else exceptions.ObjectStoreFullError
    return kind(". ".join(lines))


def reason(asker: inquiry.Asker, node: str = "") -> Reason:
    """Who has the store, for somebody who waits for room in it. node: as `Asker.query` takes it."""
    try:
        store, owners = asker.query("store", node=node), asker.query("owners", node=node)
    except exceptions.UmbelError as error:
        return Reason(reasons.UNKNOWN, "the node's daemon", f"does not say who holds it: {error}")
    kinds = {one["id"]: {"kind": "driver" if one["is_driver"] else "worker", "pid": one["pid"]} for one in owners}
    holders = [{"kind": "dead", **one, **kinds.get(one["id"], {})} for one in store["holders"]]
    free, capacity = store["free_bytes"], store["capacity_bytes"]
    wanting = f", {store['wanting_bytes']} taken by other nodes or programs" if store["wanting_bytes"] else ""
    text = f"has {free} of {capacity} bytes free{wanting}; {_holders(holders[:OBJECTS_TOLD_MAX])}"
    facts = {"free_bytes": free, "capacity_bytes": capacity, "holders": holders}
    return Reason(reasons.ROOM, "the store", text, _ADVICE, facts)


def _process(one: Mapping[str, Any]) -> str:
    if one.get("kind") == "dead":
        return f"dead process {one['id'][:8]}"
    return f"{one.get('kind', 'process')} {one['id'][:8]} (pid {one.get('pid')})"


def _holders(holders: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(f"{_process(one)} holds {one['bytes']} bytes" for one in holders) or "none"


def _biggest(engine: NativeEngine, owners: Sequence[str]) -> list[str]:
    """In words, of those objects that are in memory or on disk."""
    asker = inquiry.EngineAsker(engine)
    found: list[tuple[int, str]] = []
    for owner in owners:
        try:
            objects = asker.ask(owner, "objects", "")["objects"]
        except exceptions.UmbelError:
            continue  # it has ended, or does not answer: what the others say is of use all the same
        for one in objects:
            if one["owned"] and one["kind"] == "shared":
                made = f", made at {one['site']}" if one["site"] else ""
                found.append((one["size"], f"{one['id']} of {one['size']} bytes{made}, owned by process {owner[:8]}"))
    found.sort(reverse=True)
    return [text for _, text in found[:OBJECTS_TOLD_MAX]]
