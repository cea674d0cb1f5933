"""`list_logs` and `get_log`: what workers have printed, on all nodes of a cluster. Their files are `umbel._agent.log_files`'."""

from __future__ import annotations

import codecs
import contextlib
import fnmatch
import re
import time
from collections.abc import Generator, Iterator
from typing import Any

from umbel import exceptions
from umbel._client import cluster_logs, cluster_view, inquiry, log_reader
from umbel.util.state import api, common, exception

FOLLOW_S = 0.5  # unless the caller says otherwise
SUFFIXES = ("out", "err")
_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")


def list_logs(
    address: str | None = None,
    node_id: str | None = None,
    node_ip: str | None = None,
    glob_filter: str | None = None,
    timeout: float = common.DEFAULT_RPC_TIMEOUT,
) -> dict[str, list[str]]:
    """The names of log files, by what they are of: "worker_out" and "worker_err".

    node_id: of one node, or the beginning of it; node_ip: of those at this address; without either, of all nodes, where Ray
    raises. glob_filter: which names, as "*worker*"; a file that was full and begun anew is named once. address: as for
    `list_tasks`. Raises UmbelStateApiException when a node does not answer.
    """
    found: dict[str, list[str]] = {}
    with _files(address, node_id, node_ip, timeout) as (_, files):
        for one in files:
            for name in sorted(fnmatch.filter(log_reader.names(one.look()), glob_filter or "*")):
                found.setdefault(f"worker_{name.rpartition('.')[2]}", []).append(name)
    return found


def get_log(
    address: str | None = None,
    node_id: str | None = None,
    node_ip: str | None = None,
    filename: str | None = None,
    actor_id: str | None = None,
    task_id: str | None = None,
    pid: int | None = None,
    follow: bool = False,
    tail: int = -1,
    timeout: float = common.DEFAULT_RPC_TIMEOUT,
    suffix: str = "out",
    encoding: str | None = "utf-8",
    errors: str | None = "strict",
    submission_id: str | None = None,
    attempt_number: int = 0,
    _interval: float | None = None,
    filter_ansi_code: bool = False,
) -> Generator[Any, None, None]:
    """Yields what was printed in pieces of whole lines: str, or bytes with encoding=None.

    One of these says by whom: filename, as `list_logs` names it; actor_id, of which all lines are meant, over its restarts;
    task_id, of whose attempts one is meant, the first unless attempt_number says otherwise; pid, of a worker. suffix: "out" or
    "err". tail: only so many lines at the end; -1 for all. follow: go on with what is printed, looking every `_interval` seconds
    (0.5), until the generator is closed or the session ends. node_id, node_ip: where to look; everywhere without, also for a
    file or a pid, for which Ray needs one. Raises UmbelStateApiException if there is none, or several nodes have had a worker of
    that pid.
    """
    if submission_id is not None:
        raise ValueError(f"submission_id must be None, got {submission_id!r}: no jobs are submitted here")
    said = {"filename": filename, "actor_id": actor_id, "task_id": task_id, "pid": pid}
    given = {name: value for name, value in said.items() if value is not None}
    if len(given) != 1:
        raise ValueError(f"one of {', '.join(said)} must say whose log is meant, got {given or 'none'}")
    if suffix not in SUFFIXES:
        raise ValueError(f"suffix must be one of {', '.join(SUFFIXES)}, got {suffix!r}")
    if isinstance(tail, bool) or not isinstance(tail, int) or tail < -1:
        raise ValueError(f"tail must be a number of lines, or -1 for all of them, got {tail!r}")
    if encoding is not None:
        codecs.lookup(encoding)
    log = _Log(given, suffix, attempt_number if task_id is not None else None, address)
    pieces = log.pieces(node_id, node_ip, timeout, tail=tail, follow_s=(_interval or FOLLOW_S) if follow else None)
    return _encoded(pieces, encoding, errors or "strict", filters=filter_ansi_code)


def _encoded(
    pieces: Iterator[list[str]], encoding: str | None, errors: str, *, filters: bool
) -> Generator[Any, None, None]:
    with contextlib.closing(pieces):  # type: ignore[type-var]  # they are generators
        for lines in pieces:
            text = "".join(f"{line}\n" for line in lines)
            data = (_ANSI.sub("", text) if filters else text).encode("utf-8", "surrogateescape")
            yield data if encoding is None else data.decode(encoding, errors)


@contextlib.contextmanager
def _files(
    address: str | None, node_id: str | None, node_ip: str | None, timeout_s: float
) -> Iterator[tuple[inquiry.Asker, list[log_reader.Files]]]:
    """Of the nodes that are meant. Raises UmbelStateApiException when there is none, or one does not answer."""
    api.check_timeout(timeout_s)
    with api.StateApiClient(address).asker(timeout_s) as asker:
        cluster = cluster_view.Cluster(asker, timeout_s)
        living = [one["node_id"] for one in cluster.facts if one["alive"]]
        chosen = [one for one in living if one.startswith((node_id or "").lower())]
        chosen = [one for one in chosen if node_ip in (None, cluster.host_of(one))]
        if not chosen:
            wanted = f"node_id={node_id!r}" if node_ip is None else f"node_id={node_id!r} and node_ip={node_ip!r}"
            raise exception.UmbelStateApiException(f"no living node has {wanted}; see list_nodes()")
        directory = f"{cluster.facts[0]['session_dir']}/logs" if cluster.node.is_here else ""
        files = cluster_logs.of_nodes(asker, cluster, chosen, directory)
        if cluster.node.missing:
            raise exception.DataSourceUnavailable(f"not all logs can be read: {'; '.join(cluster.node.missing)}")
        yield asker, files


class _Log:
    """What somebody has printed. given: by what he is known, one of `get_log`'s arguments."""

    def __init__(self, given: dict[str, Any], suffix: str, attempt: int | None, address: str | None) -> None:
        ((self._kind, self._about),) = given.items()
        self._suffix = suffix
        self._attempt = attempt
        self._address = address
        self._streams: dict[tuple[int, str], log_reader.Stream] = {}
        self._candidates: dict[tuple[int, str], log_reader.Stream] = {}  # of which nothing is known to be meant

    def pieces(
        self, node_id: str | None, node_ip: str | None, timeout_s: float, *, tail: int, follow_s: float | None
    ) -> Generator[list[str], None, None]:
        """follow_s: how often to look again; None for once."""
        with _files(self._address, node_id, node_ip, timeout_s) as (_, files):
            found = [(stream, lines) for one in files for stream, lines in self._new(one)]
            if not found and follow_s is None:
                what = f"{self._kind}={self._about!r} has a log that ends with .{self._suffix}"
                raise exception.UmbelStateApiException(f"nothing with {what}; see list_logs()")
            places = {stream.path.rpartition("/")[0] for stream, _ in found}
            if self._kind == "pid" and len(places) > 1:
                raise exception.UmbelStateApiException(
                    f"several nodes have had a worker with pid {self._about}: say which by node_id; logs are at {sorted(places)}"
                )
            found = self._of_attempt(found)
            lines = [line for _, some in found for line in some]
            if tail >= 0:
                lines = lines[max(0, len(lines) - tail) :]
            if lines:
                yield lines
            while follow_s is not None:
                time.sleep(follow_s)
                try:
                    lines = [line for one in files for line in self._more(one)]
                except exceptions.UmbelError:  # the session, or a node, has ended
                    return
                if lines:
                    yield lines

    def _new(self, files: log_reader.Files) -> list[tuple[log_reader.Stream, list[str]]]:
        """Streams that are meant and were not there before, with their lines so far, what was printed first coming first."""
        seen, found = files.look(), []
        for name in log_reader.names(seen):
            place = id(files), name
            if place not in self._streams and self._may_be(name):
                stream = self._candidates.setdefault(place, log_reader.Stream(files, name))
                if self._kind in ("filename", "pid") or stream.has(self._is_wanted, seen):
                    self._streams[place] = self._candidates.pop(place)
                    found.append((stream, stream.all(self._is_wanted, seen)))
        return sorted(found, key=lambda one: one[0].entries[0].time_s if one[0].entries else 0.0)

    def _more(self, files: log_reader.Files) -> Iterator[str]:
        seen = files.look()
        for (of, _), stream in [*self._streams.items()]:
            if of == id(files):
                yield from stream.more(self._is_wanted, seen)
        for _, lines in self._new(files):
            yield from lines

    def _may_be(self, name: str) -> bool:
        if self._kind == "filename":
            return name == str(self._about)
        return name.endswith(f"-{self._about}.{self._suffix}" if self._kind == "pid" else f".{self._suffix}")

    def _is_wanted(self, entry: log_reader.Entry) -> bool:
        if self._kind == "task_id":
            return entry.task == str(self._about)
        return self._kind != "actor_id" or entry.actor == str(self._about)

    def _of_attempt(
        self, found: list[tuple[log_reader.Stream, list[str]]]
    ) -> list[tuple[log_reader.Stream, list[str]]]:
        """Of a task that ran in several workers, those of the attempt that is meant, as far as the history tells."""
        if self._attempt is None or (len(found) < 2 and not self._attempt):
            return found
        told = api.StateApiClient(self._address).list(
            "tasks", filters=[("task_id", "=", self._about)], detail=True, raise_on_missing_output=False
        )
        attempts = {one.attempt_number: one.worker_id for one in told}
        if self._attempt not in attempts:
            raise exception.UmbelStateApiException(
                f"no attempt {self._attempt} of task {self._about} is known; there are {sorted(attempts)}"
            )
        return [one for one in found if one[0].worker == attempts[self._attempt]]
