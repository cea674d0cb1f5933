"""The process that launches and ends the nodes of a cluster: `umbel._autoscaling` decides, a launcher does, the head is asked.

The head's daemon starts it, and starts it again; nothing that matters is kept here. One thread decides and talks to the head.
What a launcher is asked blocks, for minutes in a cloud: each launch has a thread of its own, of which there are as many as the
autoscaler has launches without an answer (`planning.LAUNCHES_MAX`); one lists nodes, and another one ends them. So nothing waits
for a launch but what it is for, nor for a listing that does not come. Nothing is launched before the launcher has said what runs.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from umbel import exceptions, spi
from umbel._autoscaling import autoscaler, events, observing, report
from umbel._base import config as configuration
from umbel._client import cluster_files, tool
from umbel._plugins import registry

ANSWER_S: Final = 60.0  # of the head, which may be busy; it has ended when its connection has
PERIODS_OF_LISTING: Final = 6  # 30 s: the head tells what has died, and a launcher may have to ask many machines
LISTING_LATE_S: Final = 60.0  # a listing without an answer for so long is told of; launchers may take minutes for it
FINAL_RETRY_S: Final = autoscaler.BACK_OFF_MAX_S  # after an error that asking again does not mend


class _Made(NamedTuple):
    """Of a file. launcher: None where it could not be made, for this reason."""

    file: cluster_files.ClusterFile
    launcher: spi.NodeLauncher | None
    trouble: str


class _ListingFailed(NamedTuple):
    reason: str


class _EndingFailed(NamedTuple):
    names: list[str]
    reason: str


class _HeadGone(NamedTuple):
    pass


class Process:
    """given: see `umbel._agent.scaling`."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._given = given
        self._period_s = configuration.Config.from_environment().autoscaler_period_s
        self._observer = observing.Observer()
        self._calls: queue.SimpleQueue[Callable[[], Any]] = queue.SimpleQueue()
        self._ends: queue.SimpleQueue[Callable[[], Any]] = queue.SimpleQueue()  # the same, on a thread of their own
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._machine: autoscaler.Autoscaler | None = None  # once it is known what runs
        self._file: cluster_files.ClusterFile | None = None
        self._launcher: spi.NodeLauncher | None = None
        self._happened: list[tuple[str, str]] = []  # severity and text, until the head is told
        self._ending: set[str] = set()  # nodes that the launcher is asked to end
        self._stamp: tuple[int, int] = (0, 0)  # of the file, as it was read
        self._is_listing = False
        self._listing_since_s = 0.0
        self._list_at_s = 0.0  # at once after something went wrong: it may have been done all the same
        self._troubles: dict[str, str] = {}  # by what is not well
        self._asker: tool.Tool

    def run(self) -> None:
        """Until the head ends."""
        threading.Thread(target=self._watch_head, daemon=True).start()
        for calls in (self._calls, self._ends):
            threading.Thread(target=self._call, args=(calls,), daemon=True).start()
        with tool.Tool(self._given["session_dir"], answer_s=ANSWER_S) as self._asker:
            due_s = time.monotonic()
            while True:
                try:
                    answer = self._answers.get(timeout=max(0.0, due_s - time.monotonic()))
                except queue.Empty:
                    self._period()
                    due_s = time.monotonic() + self._period_s
                    continue
                if isinstance(answer, _HeadGone):
                    return
                self._on_answer(answer)

    def _watch_head(self) -> None:
        os.read(self._given["lifeline"], 1)
        self._answers.put(_HeadGone())

    # ---- one period ----

    def _period(self) -> None:
        self._read_file()
        now_s = time.monotonic()
        machine = self._machine
        if self._launcher is not None and not self._is_listing and now_s >= self._list_at_s:
            self._list_at_s = now_s + PERIODS_OF_LISTING * self._period_s
            self._list(self._launcher)
        elif self._is_listing and now_s - self._listing_since_s >= LISTING_LATE_S:
            late_s = now_s - self._listing_since_s
            self._troubles["listing"] = f"the launcher was asked {late_s:.0f} s ago what runs, and has not said so"
        if machine is None:
            self._say()
            return
        for event in self._observer.events(self._asker.scale(), now_s):
            self._do(machine.apply(event))
        self._do(machine.apply(events.Ticked(time.monotonic())))
        self._say()

    def _list(self, launcher: spi.NodeLauncher) -> None:
        self._is_listing, self._listing_since_s = True, time.monotonic()
        self._calls.put(functools.partial(_listed, launcher))

    def _read_file(self) -> None:
        path = self._given["cluster_file"]
        try:
            found = os.stat(path)
            stamp = (found.st_mtime_ns, found.st_ino)
            if stamp == self._stamp:
                return
            self._stamp = stamp
            with open(path, encoding="utf-8") as text:
                file = cluster_files.parsed(json.load(text), path)
        except (OSError, ValueError, exceptions.UmbelError) as error:
            self._troubles["file"] = f"the cluster's file cannot be used, so it does what it did before: {error}"
            return
        self._troubles.pop("file", None)
        self._calls.put(functools.partial(self._made, file))

    def _made(self, file: cluster_files.ClusterFile) -> _Made:
        """On the thread of calls."""
        old = self._file
        try:
            is_same = old is not None and old._replace(settings=file.settings, specs=file.specs) == file
            if is_same and self._launcher is not None:
                launcher = self._launcher
            else:
                made = registry.installed().node_launchers.create(
                    file.launcher,
                    file.name,
                    address=self._given["address"],
                    token_file=self._given["token_file"],
                    config=file.launcher_config,
                )
                assert isinstance(made, spi.NodeLauncher)  # or an error would have been raised
                launcher = made
            for one in file.settings.node_types:
                launcher.check(file.specs[one.name])
        except Exception as error:  # a plugin's
            return _Made(file, None, _told(error))
        return _Made(file, launcher, "")

    # ---- what launchers answer ----

    def _on_answer(self, answer: Any) -> None:
        if isinstance(answer, _Made):
            self._on_made(answer)
        elif isinstance(answer, _ListingFailed):
            self._is_listing, self._list_at_s = False, 0.0
            what = "" if self._machine is not None else ", so nothing is launched"
            self._troubles["listing"] = f"the launcher cannot say what runs{what}: {answer.reason}"
        elif isinstance(answer, _EndingFailed):
            self._list_at_s = 0.0
            self._ending.difference_update(answer.names)
            self._troubles["ending"] = f"nodes could not be ended, which is tried again: {answer.reason}"
        else:
            self._on_event(answer)
        self._say()

    def _on_made(self, made: _Made) -> None:
        if made.launcher is None:
            self._troubles["launcher"] = f"the launcher cannot be used, so it does what it did before: {made.trouble}"
            return
        self._troubles.pop("launcher", None)
        if self._launcher is not None and self._launcher is not made.launcher:
            self._launcher.close()
        self._file, self._launcher = made.file, made.launcher
        if self._machine is not None:
            self._machine.apply(events.Configured(made.file.settings, time.monotonic()))
        elif not self._is_listing:
            self._list(made.launcher)

    def _on_event(self, event: events.Event) -> None:
        if isinstance(event, events.Listed):
            self._is_listing = False
            self._troubles.pop("listing", None)
            if self._machine is None:
                assert self._file is not None  # it was made for one
                self._machine = autoscaler.Autoscaler(self._file.settings)
                self._do(self._machine.apply(event))
                self._period()
                return
        if isinstance(event, events.LaunchAnswered) and event.error:
            self._list_at_s = 0.0
            self._happened.append(("WARNING", f"not all nodes could be launched: {event.error}"))
        if isinstance(event, events.NodeEnded):
            self._troubles.pop("ending", None)
            self._ending.discard(event.node)
        if self._machine is not None:
            self._do(self._machine.apply(event))

    # ---- what is to be done ----

    def _do(self, commands: Iterable[events.Command]) -> None:
        todo, ended = list(commands), []
        while todo:
            command = todo.pop(0)
            if isinstance(command, events.Launch):
                self._happened.append(
                    ("INFO", f"launches {command.node_count} of {command.type_name}: {command.reason}")
                )
                self._launch(command)
            elif isinstance(command, events.Drain):
                assert self._machine is not None  # whose command it is
                is_accepted = self._drain(command)
                todo += self._machine.apply(events.DrainAnswered(command.node, is_accepted, time.monotonic()))
            else:
                if command.node not in self._ending:  # it is told again until that is done
                    ended.append(command.node)
                    self._ending.add(command.node)
                    self._happened.append(("INFO", f"ends node {command.node}: {command.reason}"))
        if ended and self._launcher is not None:
            self._ends.put(functools.partial(_ended, self._launcher, ended))

    def _launch(self, command: events.Launch) -> None:
        file, launcher = self._file, self._launcher
        assert file is not None and launcher is not None  # or nothing would be launched
        spec = file.specs[command.type_name]
        launch = threading.Thread(target=lambda: self._answers.put(_launched(launcher, spec, command)), daemon=True)
        launch.start()

    def _drain(self, command: events.Drain) -> bool:
        """Whether nothing runs on a node, and nothing will. What the head does not know yet is not let in any more."""
        node_id = self._observer.seen.get(command.node)
        if node_id is None:
            return bool(self._asker.scale(barred=command.node)["is_barred"])
        try:
            return not self._asker.drain_node(node_id, "idle", f"by the autoscaler, as {command.reason}")
        except exceptions.UmbelSystemError:  # it has just gone; or the head has, as the next question finds out
            return False

    def _say(self) -> None:
        """To the head, what is done and why."""
        machine = self._machine
        told = report.of_machine(machine, time.monotonic()) if machine is not None else None
        troubles = [*self._troubles.values(), *self._observer.complaints]
        name = self._file.name if self._file is not None else ""
        happened, self._happened = self._happened, []
        self._asker.scale(report={"cluster_name": name, "troubles": troubles, "scaling": told, "happened": happened})

    # ---- the threads of calls ----

    def _call(self, calls: queue.SimpleQueue[Callable[[], Any]]) -> None:
        while True:
            found = calls.get()()
            for answer in found if isinstance(found, list) else [found]:
                self._answers.put(answer)


def _listed(launcher: spi.NodeLauncher) -> events.Listed | _ListingFailed:
    asked_at_s = time.monotonic()
    try:
        found = dict(launcher.running())
    except Exception as error:  # a plugin's
        return _ListingFailed(_told(error))
    return events.Listed(found, asked_at_s, time.monotonic())


def _launched(launcher: spi.NodeLauncher, spec: spi.NodeSpec, command: events.Launch) -> events.LaunchAnswered:
    made: tuple[str, ...] = ()
    reason, retry_s = "", 0.0
    try:
        made = tuple(launcher.launch(spec, command.node_count))
    except exceptions.NodeLaunchError as error:
        made, reason, retry_s = error.launched, str(error), error.retry_after_s
    except (exceptions.InvalidOption, exceptions.AuthenticationError) as error:
        reason, retry_s = str(error), FINAL_RETRY_S
    except Exception as error:  # a plugin's
        reason = _told(error)
    return events.LaunchAnswered(command.number, made, time.monotonic(), reason, retry_s)


def _ended(launcher: spi.NodeLauncher, names: list[str]) -> list[events.NodeEnded] | _EndingFailed:
    try:
        launcher.terminate(names)
    except Exception as error:  # a plugin's
        return _EndingFailed(names, _told(error))
    return [events.NodeEnded(name, time.monotonic()) for name in names]


def _told(error: Exception) -> str:
    return str(error) if isinstance(error, exceptions.UmbelError) else f"{type(error).__name__}: {error}"


def main(given: Mapping[str, Any]) -> None:
    code = 0
    try:
        Process(given).run()
    except exceptions.UmbelSystemError as error:  # the head has gone, or does not answer
        with contextlib.suppress(OSError):
            sys.stderr.write(f"the autoscaler ends: {error}\n")
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)  # a launcher may be in the middle of something, which nobody waits for
