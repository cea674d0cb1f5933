"""What one node finds out about itself for others: the answers of a surveyor (`umbel._agent.surveyors`), which asks the node as
any command does.

A question is a JSON object with its "kind" and "timeout_s" and what that kind needs; an answer is JSON. What a question has no
use for is not loaded.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import Any

from umbel._client import node_view, tool

PROCESS_ANSWER_S = 2.0  # of one process, and a quarter of the time at most: one that is stopped must not cost all of it

Asked = Mapping[str, Any]


def answer(asker: tool.Tool, about: str) -> str:
    """Raises ValueError for what is no question, and UmbelError."""
    asked = json.loads(about)
    told = _ON.get(asked.get("kind"))
    if told is None:
        raise ValueError(f"a node cannot be surveyed for {asked.get('kind')!r}; it can for {', '.join(_ON)}")
    asker.answer_s = min(PROCESS_ANSWER_S, asked["timeout_s"] / 4)
    return json.dumps(told(asker, asked), separators=(",", ":"))


def _node(asker: tool.Tool, asked: Asked) -> node_view.Node:
    return node_view.Node(asker, asked["timeout_s"])


def _request(asked: Asked) -> node_view.Request:
    return node_view.Request.read(asked["request"])


def _elsewhere(asked: Asked) -> Any:
    from umbel._client import task_listing

    return task_listing.Elsewhere(*asked["elsewhere"])


def _own(asker: tool.Tool) -> dict[str, Any]:
    facts: dict[str, Any] = asker.query("nodes")[0]
    return facts


def _running(asker: tool.Tool, asked: Asked) -> Any:
    from umbel._client import task_listing

    processes = asker.query("owners")
    _, running = task_listing.running(_node(asker, asked), processes)
    return {"running": running, "pids": {one["id"]: one["pid"] for one in processes}}


def _tasks(asker: tool.Tool, asked: Asked) -> Any:
    from umbel._client import task_listing

    node_id = _own(asker)["node_id"]
    return task_listing.of_node(_node(asker, asked), node_id, _request(asked), _elsewhere(asked))._asdict()


def _task_tally(asker: tool.Tool, asked: Asked) -> Any:
    from umbel._client import task_listing

    node_id = _own(asker)["node_id"]
    return task_listing.tally_of_node(_node(asker, asked), node_id, _request(asked), _elsewhere(asked))


def _begun(asker: tool.Tool, asked: Asked) -> Any:
    from umbel._client import task_listing

    return task_listing.begun_of_node(_node(asker, asked), _own(asker)["node_id"], _elsewhere(asked))


def _ended(asker: tool.Tool, asked: Asked) -> Any:
    from umbel._client import task_listing

    history = node_view.opened(asker.query("history")["path"])
    return list(task_listing.ended(history, _request(asked), _elsewhere(asked)))


def _listed(kind: str) -> Callable[[tool.Tool, Asked], Any]:
    def told(asker: tool.Tool, asked: Asked) -> Any:
        from umbel._client import listing

        of_node = getattr(listing, f"{kind}_of_node")
        return of_node(_node(asker, asked), _own(asker), _request(asked))._asdict()

    return told


def _object_tally(asker: tool.Tool, asked: Asked) -> Any:
    from umbel._client import listing

    node = _node(asker, asked)
    return {"tally": listing.object_tally_of_node(node, _own(asker), _request(asked)), "missing": node.missing}


def _dead_actors(asker: tool.Tool, asked: Asked) -> Any:
    from umbel._client import listing

    node = _node(asker, asked)
    return {"dead": listing.dead_actors(node), "missing": node.missing, "notes": node.notes}


def _memory(asker: tool.Tool, _asked: Asked) -> Any:
    from umbel._client import memory_report

    return memory_report.of_node(asker)


def _task_names(asker: tool.Tool, asked: Asked) -> Any:
    from umbel._client import task_listing

    return task_listing.task_names(asker, asked["tasks"])


def _logs(asker: tool.Tool, _asked: Asked) -> Any:
    from umbel._client import log_files

    directory = _log_directory(asker)
    return {"place": directory, "files": log_files.look(directory)}


def _log_piece(asker: tool.Tool, asked: Asked) -> Any:
    import base64

    from umbel._client import log_files

    return base64.b64encode(log_files.read(_log_directory(asker), asked["name"], asked["at"])).decode()


def _log_directory(asker: tool.Tool) -> str:
    return os.path.join(asker.address, "logs")


_ON: dict[Any, Callable[[tool.Tool, Asked], Any]] = {
    "running": _running,
    "tasks": _tasks,
    "task_tally": _task_tally,
    "begun": _begun,
    "ended": _ended,
    "workers": _listed("workers"),
    "objects": _listed("objects"),
    "runtime_envs": _listed("runtime_envs"),
    "object_tally": _object_tally,
    "dead_actors": _dead_actors,
    "memory": _memory,
    "task_names": _task_names,
    "logs": _logs,
    "log_piece": _log_piece,
}
