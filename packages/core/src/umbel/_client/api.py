"""The public functions: they check their arguments and hand on to the running engine."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from typing import Any, TypeVar, overload

from umbel._client import actor, current, refs
from umbel._model import node_labels
from umbel._model import resources as resource_model

T = TypeVar("T")
Waitable = TypeVar("Waitable", bound="refs.ObjectRef[Any] | refs.ObjectRefGenerator[Any]")


@overload
def get(object_refs: refs.ObjectRef[T], *, timeout: float | None = None, _use_object_store: bool = False) -> T: ...
@overload
def get(
    object_refs: Sequence[refs.ObjectRef[T]], *, timeout: float | None = None, _use_object_store: bool = False
) -> list[T]: ...
@overload
def get(
    object_refs: refs.ObjectRefGenerator[T], *, timeout: float | None = None, _use_object_store: bool = False
) -> refs.ObjectRefGenerator[T]: ...
def get(object_refs: Any, *, timeout: float | None = None, _use_object_store: bool = False) -> Any:
    """The value of a reference, or the list of values of a list of references, in their order.

    timeout: seconds; 0 polls, None or -1 waits for ever. Raises GetTimeoutError (a TimeoutError) when it passes; the error
    of a task as both UmbelTaskError and the user's own class, as soon as any of the references has one; ValueError for what
    is neither a reference nor a list of them. NumPy and Arrow data come as read-only views of shared memory, without a copy.
    """
    engine = current.engine()
    if type(object_refs) is refs.ObjectRef:
        if timeout is not None:
            timeout = _checked_wait(timeout)
        return engine.get([object_refs], timeout)[0]
    if isinstance(object_refs, refs.ObjectRefGenerator):
        return object_refs
    check_timeout(timeout)
    if isinstance(object_refs, refs.ObjectRef):
        return engine.get([object_refs], _checked_wait(timeout))[0]
    if isinstance(object_refs, refs.GraphRef):
        return object_refs.get(timeout)
    if not isinstance(object_refs, list):
        raise ValueError(
            f"get() takes an ObjectRef or a list of them, got {_describe(object_refs)}; "
            + (
                "write list(...) around it"
                if isinstance(object_refs, (tuple, set))
                else "only tasks and put() make references"
            )
        )
    if set(map(type, object_refs)) - {refs.ObjectRef}:
        if all(isinstance(ref, refs.GraphRef) for ref in object_refs):
            return _get_of_graph(object_refs, timeout)
        for position, ref in enumerate(object_refs):
            if not isinstance(ref, refs.ObjectRef):
                raise ValueError(f"get() takes a list of ObjectRefs, got {_describe(ref)} at position {position}")
    return engine.get(object_refs, timeout if timeout is None else _checked_wait(timeout))


def _get_of_graph(wanted: list[refs.GraphRef], timeout: float | None) -> list[Any]:
    if timeout is None or timeout < 0:
        return [ref.get(timeout) for ref in wanted]
    deadline_s = time.monotonic() + timeout
    return [ref.get(max(0.0, deadline_s - time.monotonic())) for ref in wanted]


def put(value: T, *, _tensor_transport: str | None = None) -> refs.ObjectRef[T]:
    """Store a snapshot of `value`; returns its reference. Raises TypeError for what cannot be pickled, or for an
    ObjectRef itself, which is stored already; ObjectStoreFullError when there is no room.

    _tensor_transport: leave the tensors in it in this process, for others to take by this transport: no snapshot.
    """
    if isinstance(value, refs.ObjectRef):
        raise TypeError(
            f"put() takes a value, got {value!r}, which refers to a stored one already; pass it on as it is, or "
            f"put it in a list"
        )
    if _tensor_transport is not None:
        from umbel._client.tensors import holding

        return holding.put(value, _tensor_transport)
    ref: refs.ObjectRef[T] = current.engine().put(value)
    return ref


@overload
def wait(
    ray_waitables: list[Waitable], *, num_returns: int = 1, timeout: float | None = None, fetch_local: bool = True
) -> tuple[list[Waitable], list[Waitable]]: ...
@overload
def wait(  # type: ignore[overload-cannot-match]  # it does: without it a list of both kinds is one of objects to mypy
    ray_waitables: list[refs.ObjectRef[Any] | refs.ObjectRefGenerator[Any]],
    *,
    num_returns: int = 1,
    timeout: float | None = None,
    fetch_local: bool = True,
) -> tuple[list[Any], list[Any]]: ...
def wait(
    ray_waitables: Any, *, num_returns: int = 1, timeout: float | None = None, fetch_local: bool = True
) -> tuple[list[Any], list[Any]]:
    """Split references (or generators) into (ready, rest), both in their given order.

    Returns when `num_returns` are ready, never with more, or when `timeout` seconds have passed. One that failed is
    ready; a generator is when its next item is. Raises TypeError for anything but a list of references, ValueError for
    repeated ones, num_returns outside of 1 to their number, or a negative timeout.
    """
    engine = current.engine()
    if fetch_local is not True and fetch_local is not False:
        raise _not_a_flag("fetch_local", fetch_local, True)
    if not isinstance(ray_waitables, list):
        advice = "write list(...) around it" if isinstance(ray_waitables, (tuple, set)) else "write [ref] for one"
        raise TypeError(f"wait() takes a list of ObjectRefs, got {_describe(ray_waitables)}; {advice}")
    kinds = set(map(type, ray_waitables))
    if not kinds <= _WAITABLE:
        for position, item in enumerate(ray_waitables):
            if not isinstance(item, (refs.ObjectRef, refs.ObjectRefGenerator)):
                raise TypeError(f"wait() takes a list of ObjectRefs, got {_describe(item)} at position {position}")
    if timeout is not None:
        check_timeout(timeout)
        if timeout < 0:
            raise ValueError(f"timeout must be >= 0 seconds, got {timeout!r}; omit it to wait for ever")
    if not ray_waitables:
        return [], []
    if type(num_returns) is not int or not 1 <= num_returns <= len(ray_waitables):
        raise ValueError(
            f"num_returns must be a whole number from 1 to the number of references, {len(ray_waitables)}, got "
            f"{num_returns!r}"
        )
    if _rests[0] != _mark_of(ray_waitables):  # else they were unique a moment ago
        if kinds == _ONLY_REFS:
            is_unique = len({ref._id for ref in ray_waitables}) == len(ray_waitables)
        else:
            is_unique = len(set(ray_waitables)) == len(ray_waitables)
        if not is_unique:
            raise ValueError("wait() takes each reference once, got some repeated; remove the duplicates")
    ready, rest = engine.wait(ray_waitables, num_returns, timeout, fetch_local)
    _rests[0] = _mark_of(rest) if rest else ()
    return ready, rest


_rests: list[tuple[Any, ...]] = [()]
"""The list that `wait` returned last, by its mark. Programs wait in loops for what is left, and looking for repeated
references is more than half of the cost of a long list; whoever puts one into the midst of it is not told."""


def _mark_of(waitables: list[Any]) -> tuple[Any, ...]:
    return id(waitables), len(waitables), id(waitables[0]), id(waitables[-1])


_ONLY_REFS = {refs.ObjectRef}
_WAITABLE = {refs.ObjectRef, refs.ObjectRefGenerator}


def cancel(
    ref: refs.ObjectRef[Any] | refs.ObjectRefGenerator[Any], *, force: bool = False, recursive: bool = True
) -> None:
    """Cancel the task behind a reference or generator: one that waits never starts, a running one is interrupted.

    force: kill its worker instead; not for actors' methods. recursive: cancel the tasks it has submitted as well. A
    finished task is left alone. An actor's coroutine is cancelled; its plain methods see `is_canceled()`. Reading the
    result of any of these raises TaskCancelledError, unless the code raised an error of its own.
    """
    if not isinstance(ref, (refs.ObjectRef, refs.ObjectRefGenerator)):
        raise TypeError(
            f"cancel() takes an ObjectRef or a generator of them, got {_describe(ref)}; actors end with kill()"
        )
    if not isinstance(force, bool):
        raise _not_a_flag("force", force, False)
    if not isinstance(recursive, bool):
        raise _not_a_flag("recursive", recursive, True)
    current.engine().cancel(ref, force=force, recursive=recursive)


def kill(actor_handle: actor.ActorHandle, *, no_restart: bool = True) -> None:
    """End an actor at once, without its atexit handlers; with no_restart=False its max_restarts still apply."""
    if not isinstance(actor_handle, actor.ActorHandle):
        raise ValueError(f"kill() takes an actor handle, got {_describe(actor_handle)}; tasks end with cancel()")
    if not isinstance(no_restart, bool):
        raise _not_a_flag("no_restart", no_restart, True)
    current.engine().kill(actor_handle, no_restart=no_restart)


def get_actor(name: str, namespace: str | None = None) -> actor.ActorHandle:
    """A weak handle to a named actor: it does not keep the actor alive. Raises ValueError when there is none."""
    if not isinstance(name, str) or not name:
        raise ValueError(f"get_actor() takes the name of an actor, a non-empty string, got {name!r}")
    if namespace is not None and (not isinstance(namespace, str) or not namespace):
        raise ValueError(f"namespace must be a non-empty string, got {namespace!r}; omit it for the current one")
    handle: actor.ActorHandle = current.engine().get_actor(name, namespace)
    return handle


def nodes() -> list[dict[str, Any]]:
    """One dictionary for each node, dead ones included: NodeID, Alive, Resources, Labels, ...

    This and the next three start no session: without one they raise UmbelSystemError, which then is a RuntimeError too. The
    keys are Ray's. NodeManagerPort is the one port of a node of a cluster; the others are 0. DeathReason: 1 of a node that
    said goodbye, 2 of one that did not."""
    return [_as_ray_has_it(node) for node in current.running().query("nodes")]


def _as_ray_has_it(node: dict[str, Any]) -> dict[str, Any]:
    is_alive = node.get("alive", True)
    host, _, port = node.get("address", "").rpartition(":")
    host = host.strip("[]") or resource_model.NODE_ADDRESS
    return {
        "NodeID": node["node_id"],
        "Alive": is_alive,
        "NodeManagerAddress": host,
        "NodeManagerHostname": node.get("host_name") or _host_name(),
        "NodeName": node.get("node_name") or host,
        **dict.fromkeys(_PORTS, 0),
        "NodeManagerPort": int(port or 0),
        "MetricsExportPort": node.get("metrics_port", 0),
        "ObjectStoreSocketName": node.get("store_dir", ""),
        "RayletSocketName": node.get("socket", ""),
        "DeathReason": 0 if is_alive else 1 if node["is_expected"] else 2,
        "DeathReasonMessage": node.get("reason", ""),
        "Resources": _floats(node.get("resources", {})) if is_alive else {},
        "alive": is_alive,
        "Labels": {node_labels.NODE_ID: node["node_id"], **node.get("labels", {})},
    }  # fmt: skip


_PORTS = (
    "ObjectManagerPort", "MetricsAgentPort", "DashboardAgentListenPort",
    "RuntimeEnvAgentPort",
)  # fmt: skip


def _host_name() -> str:
    import socket

    return socket.gethostname()


def _floats(units: dict[str, int]) -> dict[str, float]:
    return {name: amount / resource_model.RESOURCE_UNIT for name, amount in units.items()}


def cluster_resources() -> dict[str, float]:
    """What all nodes have, by resource."""
    return _floats(current.running().query("cluster_resources"))


def available_resources() -> dict[str, float]:
    """What is free now; a resource of which nothing is left is not listed."""
    return {name: amount for name, amount in _floats(current.running().query("available_resources")).items() if amount}


def timeline(filename: str | os.PathLike[str] | None = None) -> list[dict[str, Any]] | None:
    """What ran when, as events of Chrome's trace format; written to `filename` if given, else returned.

    Events of "ph" "X" are spans: of tasks and calls ("cat" is "task", "actor_task" or "actor_creation"; their "args" have
    the name and id), of drivers, and, of no length, where tasks were submitted ("submit"); an arrow leads from there to
    the task with the same "bind_id". "M" are names of processes and threads. Perfetto (ui.perfetto.dev) and
    chrome://tracing show such files. Raises UmbelSystemError when nothing is recorded (UMBEL_TASK_EVENTS=0)."""
    import json

    if filename is not None and not isinstance(filename, (str, os.PathLike)):
        raise TypeError(
            f"filename must be a path as str or os.PathLike, or None, got {_describe(filename)}; omit it to have the "
            "events returned"
        )
    events: list[dict[str, Any]] = current.running().query("timeline")
    if filename is None:
        return events
    with open(filename, "w") as file:
        json.dump(events, file)
    return None


def explain(ref: Any = None) -> Any:
    """Why something is not there yet: in words for a reference, or, without one, a list of what waits at the agent.

    `umbel.util.state.explain` has the same for programs."""
    engine = current.engine()
    if ref is None:
        return engine.query("pending")
    return str(engine.explain(ref))


def get_gpu_ids() -> list[int] | list[str]:
    """The GPUs assigned to the running task or actor."""
    ids = current.engine().session_context.accelerator_ids.get(resource_model.GPU, [])
    return [int(i) for i in ids] if all(i.isdigit() for i in ids) else list(ids)


def check_timeout(timeout: Any, name: str = "timeout") -> None:
    """Raises TypeError for what is neither a number nor None."""
    if timeout is None:
        return
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or math.isnan(timeout):
        raise TypeError(
            f"{name} must be a number of seconds or None, got {_describe(timeout)}; write None to wait for ever"
        )


def _checked_wait(timeout: float | None) -> float | None:
    """How long `get` waits. -1 is for ever, as in Ray."""
    check_timeout(timeout)
    if timeout is not None and timeout < 0:
        if timeout != -1:
            raise ValueError(f"timeout must be >= 0 seconds, got {timeout!r}; omit it to wait for ever")
        return None
    return timeout


def _not_a_flag(name: str, value: object, default: bool) -> TypeError:
    return TypeError(f"{name} must be True or False, got {_describe(value)}; omit it for the default of {default}")


def _describe(value: Any) -> str:
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"
