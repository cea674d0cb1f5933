"""A worker process: receives tasks, runs them one after another, or becomes an actor.

The main thread executes, and reads the sockets while it has nothing to do; the background thread of the engine's
reactor
answers for it while it is busy: hands back tasks that have not started, cancels, serves values.
"""

from __future__ import annotations

import functools
import mmap
import os
import signal
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from types import CodeType
from typing import Any, NoReturn

from umbel import exceptions
from umbel._base import config as configuration
from umbel._client import answers, context, current, interrupts, links, native, values
from umbel._objects import serialization
from umbel._transport import reactor
from umbel._wire import messages
from umbel._worker import actor, execute, output, queued

FUNCTIONS_MAX = 2_000  # functions kept unpickled; a driver that defines more in a loop has them unpickled again
TURNS_MIN = 8  # somebody gives us one thing at a time; a new actor that gets its first calls is no case of it
_PROGRESS = struct.Struct("<q")
_PROGRESS_BYTES = 9  # the number of a task, and 1 if it is not tried again when this process dies, else 0
_THREADS = "OMP_NUM_THREADS"

# This module is imported by the fork server, whose children should find imported what each of them would import.
serialization.preload()
_SETTINGS = configuration.Config.from_environment()


def _settings(env_vars: dict[str, str]) -> configuration.Config:
    """This process's: those of its node, unless its environment has variables of ours of its own."""
    if any(name.startswith("UMBEL_") for name in env_vars):
        return configuration.Config.from_environment()
    return _SETTINGS


def main(config: dict[str, Any]) -> None:
    """Run until the agent says to end or is gone."""
    hook = (config.get("env") or {}).get("hook")
    if hook:
        from umbel._worker import setup_hook

        setup_hook.call(hook, f"{config['session_dir']}/{config['id']}.failed")
    worker = Worker(config)
    sys.unraisablehook = functools.partial(worker.ignored, sys.unraisablehook)
    worker.run()


class Worker:
    """One worker process."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.settings = _settings((config.get("env") or {}).get("env_vars") or {})
        self.process_id = bytes.fromhex(config["id"])
        self._queue: deque[Any] = deque()  # executions, and thunks to run on the main thread
        self._idle: reactor.Waiter | None = None
        self._templates: dict[tuple[bytes, int], execute.Template] = {}
        self._blobs: dict[bytes, bytes] = {}
        self._functions: dict[bytes, Any] = {}
        self._running: execute.Execution | None = None
        self._method_before: execute.Template | None = None
        self._running_before: execute.Execution | None = None  # when housekeeping looked last
        self._cancel: execute.Execution | None = None
        # Of what was neither queued nor running then. No number: of whatever it was, its submitter has died.
        self._early_cancels: list[tuple[links.Link, int | None, bool, bool]] = []
        self._is_blocked = False
        self.is_creating = False  # an actor, from the agent's order until its constructor is done
        self._is_unwanted = False  # and it shall end then
        self._is_ending = False
        self._is_retiring = False
        self._threads = ""  # of numerical libraries, as what ran last was to have
        self._may_set_threads = _THREADS not in os.environ
        self._started_by: links.Link | None = None  # whose task was started last, if its answer may not be out
        self._is_cut_off = False  # it will not get that answer: what was started stays noted until we are leased anew
        self._main_thread = threading.main_thread().ident or 0
        self._progress_path = f"{config['session_dir']}/{config['id']}.progress"
        self._is_told_final = False  # there: that what runs is not tried again
        self._progress: Any = None  # some bytes that outlive us, once there was a task: see `_open_progress`
        self.host: Any = None  # the actor, once there is one
        self.tracing: Any = None  # where calls are traced
        self._users_code: tuple[CodeType, ...] = (execute.call_user.__code__,)  # whose callees may be interrupted
        self.accelerator_ids: dict[str, list[str]] = {}
        self.engine = native.NativeEngine(
            kind="worker",
            process_id=self.process_id,
            session_dir=config["session_dir"],
            namespace=config.get("namespace") or "",
            config=self.settings,
            has_door=bool(config.get("listen")),
            on_notice=self._on_notice,
            on_agent_gone=self._agent_gone,
        )
        welcome = self.engine.welcome
        self.session = context.SessionContext(
            kind="worker",
            worker_id=self.process_id.hex(),
            node_id=welcome["node_id"],
            job_id=welcome["job_id"],
            namespace=self.engine.namespace,
            session_dir=config["session_dir"],
            labels=config.get("labels"),
            accelerator_ids=self.accelerator_ids,
            env_vars={**(config.get("worker_env") or {}), **((config.get("env") or {}).get("env_vars") or {})},
            environment=config.get("env"),
        )
        self.engine.session_context = self.session
        self.engine.own_environment.fields = config.get("env") or {}
        self.engine.context_of = self._current_key
        self.engine.waits.on_blocked = self._blocked
        self.engine.arrivals.on_link_lost = self._submitter_gone
        self.engine.extra_housekeeping = self._housekeeping
        self.engine.exit_actor = self._exit_actor  # type: ignore[method-assign]  # a worker may host one
        self.engine.leave_actor = self._leave_actor  # type: ignore[method-assign]  # likewise
        self.executor = execute.Executor(self.engine)
        if self.engine.own_metrics is not None:
            self.engine.own_metrics.count_runs(self.executor)
        self.engine.arrivals.add(
            {
                messages.TASK: self._on_task,
                messages.CALL: self._on_call,
                messages.TEMPLATE: self._on_template,
                messages.FUNCTION: self._on_function,
                messages.DEPTH: self._on_depth,
                messages.STEAL: self._on_steal,
                messages.CANCEL: self._on_cancel,
                messages.CONSUMED: self._on_consumed,
            }
        )
        self.engine.answers.running = self._what_runs
        self.engine.answers.queue = self._queue_about
        current.set_engine(self.engine)
        self.engine.start()
        signal.signal(signal.SIGINT, self._interrupted)
        self._output = output.install(self._who_prints)
        if config.get("tracing_startup_hook"):
            from umbel._client import tracing

            self.tracing = tracing.start_in_worker(self.engine, config["tracing_startup_hook"])
            self._users_code += (tracing.call_user.__code__,)
        if config.get("logging_config"):
            from umbel._client import logging_config

            logging_config.apply(logging_config.LoggingConfig.from_dict(config["logging_config"]))

    def _open_progress(self) -> Any:
        """Some bytes that outlive us: the task started last. They tell the owner what a crash has cost, and the agent
        what it would cost."""
        descriptor = os.open(self._progress_path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, _PROGRESS.pack(-1) + b"\0")
            return mmap.mmap(descriptor, _PROGRESS_BYTES)
        finally:
            os.close(descriptor)

    # The main loop

    def run(self) -> None:
        queue = self._queue
        done_count = 0  # since the last wait
        turns = 0  # waits in a row before each of which there was one thing to do
        while not self._is_ending:
            try:
                job = queue.popleft()
            except IndexError:
                turns = turns + 1 if done_count == 1 else 0
                done_count = 0
                self._wait_for_work(is_lone=turns >= TURNS_MIN)
                continue
            done_count += 1
            if type(job) is execute.Execution:
                self._execute(job)
            else:
                job()
        self.leave(0)

    def _wait_for_work(self, *, is_lone: bool) -> None:
        """is_lone: somebody gives us one thing at a time."""
        self._pass_on_output()
        engine = self.engine
        with engine.lock:
            engine._flush()
            self.executor.last_flush_s = time.monotonic()
            if self._queue or self._is_ending:
                return
            owner = self._started_by
            if owner is not None and not engine.values._awaited and engine.links.is_all_sent() and not engine.is_closed:
                # Every answer is out: a crash from now on costs no task anything.
                self._started_by = None
                if engine.links.is_connected(owner):
                    _PROGRESS.pack_into(self._progress, 0, -1)
                else:
                    self._is_cut_off = True
            idle = self._idle = reactor.Waiter()
            idle.is_lone = is_lone
        engine.reactor.wait(idle, None)
        self._idle = None

    def _pass_on_output(self) -> None:
        for stream in self._output:
            if stream.is_waiting:
                stream.pass_on()

    def enqueue(self, job: Any) -> None:
        """Have the main thread do something. Lock held."""
        self._queue.append(job)
        idle = self._idle
        if idle is not None:
            idle.finish()

    def _execute(self, job: execute.Execution) -> None:
        template = job.template
        if job.attempt or (template.method and template is not self._method_before):
            # It may crash (again, if it was tried before): the answers so far must not go down with it.
            self._method_before = template
            self.executor.flush()
        if template.method:
            function = None  # whose calls are sent again, or not, whatever it had started
        else:
            if self._progress is None:
                self._progress = self._open_progress()
            self._started_by = job.link
            if (
                template.flush is not self._is_told_final
            ):  # before the number: nobody may take it for one that is tried again
                self._is_told_final = template.flush
                self._progress[8] = template.flush
            _PROGRESS.pack_into(self._progress, 0, job.seq)
            if template.threads != self._threads:
                self.use_threads(template.threads)
            try:
                function = self._function(template)
            except BaseException as error:  # unpickling runs the user's imports
                self.executor.fail(job, error, time.time())
                return
        running = context.TaskContext(
            execute.task_id(job),
            template.name,
            template.function_name,
            resources=template.resources,
            attempt=job.attempt,
            actor=self.host.context if self.host is not None else None,
            key=job,
        )
        job.context = running
        token = context.current_task.set(running)
        self._running = job
        self.engine.leases.depth = job.depth + 1
        try:
            self.executor.run(job, function if function is not None else self.host.method(template.method))
        except SystemExit as error:
            self._left_by_user(job, error)
        finally:
            self._running = None
            self._cancel = None
            if job.is_cancelled_with_children:  # some were submitted between the request and the interruption
                with self.engine.lock:
                    self.cancel_children(job, job.interrupted_at_seq, is_again=False)
            context.current_task.reset(token)
            job.context = None  # which knows the job; what belongs to the task ends with it, and here
        if template.max_calls:
            self._count_call(job, template)
        if template.flush or job.attempt:
            self.executor.flush()
        elif self._queue:  # else the main loop flushes before it waits
            self.executor.flush_soon()

    def _function(self, template: execute.Template) -> Any:
        function = template.function
        if function is None:
            digest = template.digest
            function = self._functions.get(digest)
            if function is None:
                function = serialization.loads(self._blobs[digest])
                if len(self._functions) >= FUNCTIONS_MAX:
                    self._functions.pop(next(iter(self._functions)))
                self._functions[digest] = function
            if self.tracing is not None:
                function = self.tracing.running(function)
            template.function = function
        return function

    def _count_call(self, job: execute.Execution, template: execute.Template) -> None:
        template.calls += 1
        if template.calls >= template.max_calls:
            with self.engine.lock:
                self._is_retiring = True
                self._hand_back(job.link, len(self._queue), is_blocked=False)
                job.link.post((messages.RETIRE,))
                job.link.flush()

    def _left_by_user(self, job: execute.Execution, error: SystemExit) -> None:
        """The user's code called sys.exit(): the process ends, with all that it has finished told. An actor that does so
        with 0 wants to end; anything else is a crash, after which it may restart."""
        if self.host is not None and error.code in (None, 0):
            self.host.left(f"sys.exit({error.code!r}) was called in its method {job.template.name}")
        with self.engine.lock:
            self._hand_back(job.link, len(self._queue), is_blocked=True)
            self.engine._flush()
        self.leave(_exit_code(error))

    def crash(self, error: SystemExit) -> NoReturn:
        """End this process now, whatever else it runs: what is finished is sent, nothing more. On any thread."""
        code = _exit_code(error)
        self._pass_on_output()
        with self.engine.lock:
            self.engine._flush()
        self._say_last()
        os._exit(code)

    def leave(self, code: int) -> None:
        """End this process in an orderly way: what is finished is sent, atexit handlers run."""
        with self.engine.lock:
            self.engine._flush()
        self._say_last()
        if threading.current_thread() is threading.main_thread():
            sys.exit(code)
        os._exit(code)

    def _say_last(self) -> None:
        """Report what was traced, measured and finished here and is not reported yet. On any thread, no lock."""
        if self.tracing is not None:
            self.tracing.flush()
        self.engine.reports.send_metrics()
        self.engine.reports.send_tasks()

    # Messages; lock held

    def _on_template(self, link: links.Link, message: tuple[Any, ...]) -> None:
        _, index, facts = message
        if not index:
            self._use_accelerators(facts["accelerators"])
            return
        template = self._templates[link.peer, index] = execute.Template(facts)
        if template.in_group is not None:
            self.runs_in_group()

    def runs_in_group(self) -> None:
        """What runs here, or some of it, is in a placement group, in which its children may be too."""
        from umbel._client import capturing

        capturing.install(self.engine)

    def use_threads(self, threads: str) -> None:
        """Have numerical libraries that are loaded from now on use so many threads, unless the user has said how
        many."""
        self._threads = threads
        if self._may_set_threads:
            os.environ[_THREADS] = threads

    def _on_function(self, _link: links.Link, message: tuple[Any, ...]) -> None:
        self._blobs[message[1]] = message[2]

    def _on_task(self, link: links.Link, message: tuple[Any, ...]) -> None:
        if self._is_blocked or self._is_retiring:
            link.post((messages.UNSTARTED, [message[1]], self._is_blocked))
            if self._is_retiring:  # whom we told so was gone, or had given us back before it knew
                link.post((messages.RETIRE,))
            return
        self.enqueue(execute.Execution(link, message, self._templates[link.peer, message[2]]))

    def _on_call(self, link: links.Link, message: tuple[Any, ...]) -> None:
        job = execute.Execution(link, message, self._templates[link.peer, message[2]])
        if self.host is None:
            error = exceptions.ActorUnavailableError("this process hosts no actor any more")
            link.post((messages.FAILED, job.seq, exceptions.dump_error(error), None, time.time()))
        else:
            self.host.arrived(job)

    @staticmethod
    def _on_depth(link: links.Link, message: tuple[Any, ...]) -> None:
        link.depth = message[1]

    def _on_steal(self, link: links.Link, message: tuple[Any, ...]) -> None:
        self._hand_back(link, message[1], is_blocked=self._is_blocked)

    def _hand_back(self, link: links.Link, count: int, *, is_blocked: bool) -> None:
        """Give back up to `count` unstarted tasks of this owner, the last ones first."""
        link.post((messages.UNSTARTED, queued.take_back(self._queue, link, count), is_blocked))
        self.engine.mark_dirty(link)

    def _on_cancel(self, link: links.Link, message: tuple[Any, ...]) -> None:
        _, seq, is_forced, is_recursive = message
        for waiting in queued.of(self._queue, link):
            if waiting.seq == seq and queued.withdraw(self._queue, waiting):
                link.post((messages.CANCELLED, seq))
                self.engine.mark_dirty(link)
                return
        job = self._running
        if self.host is not None:
            self.host.cancel(link, seq, is_recursive=is_recursive)
            return
        if job is None and self._idle is None:  # its function is being loaded, unless it has just ended
            self._early_cancels.append((link, seq, is_forced, is_recursive))
            self.engine.reactor.poke()
        elif job is not None and job.seq == seq and job.link is link:
            self._cancel_running(job, is_forced=is_forced, is_recursive=is_recursive)

    def _cancel_early(self) -> None:
        """Cancel what was to be before it ran, and runs now; forget it if it has ended."""
        with self.engine.lock:
            waiting, self._early_cancels = self._early_cancels, []
            for link, seq, is_forced, is_recursive in waiting:
                job = self._running
                if job is None and self._idle is None:
                    self._early_cancels.append((link, seq, is_forced, is_recursive))
                elif job is None or job.link is not link:
                    continue
                elif seq is None:
                    self._interrupt(job, is_again=False)
                elif job.seq == seq:
                    self._cancel_running(job, is_forced=is_forced, is_recursive=is_recursive)

    def _cancel_running(self, job: execute.Execution, *, is_forced: bool, is_recursive: bool) -> None:
        if is_forced:
            self._hand_back(job.link, len(self._queue), is_blocked=True)
            self.engine._flush()
            os._exit(1)
        self._interrupt(job, is_recursive=is_recursive)

    def _interrupt(self, job: execute.Execution, *, is_recursive: bool = True, is_again: bool = True) -> None:
        """Cancel the running task. is_again: even if it has been; see `cancel_children`. Lock held."""
        if is_recursive:
            job.is_cancelled_with_children = True
            self.cancel_children(job, self.engine.tasks.last_seq, is_again=is_again)
        if job.is_cancelled and not is_again:
            return
        job.is_cancelled = True
        if job.context is not None:
            job.context.is_canceled = True
        self._cancel = job
        signal.pthread_kill(self._main_thread, signal.SIGINT)
        self.engine.reactor.poke()  # to try again, should it find our own code running

    def cancel_children(self, parent: execute.Execution, until_seq: int, *, is_again: bool = True) -> None:
        """Cancel the tasks this one has submitted up to a sequence number. is_again: those too that have been, and may be
        cleaning up, which another interruption cuts short. Lock held."""
        book = self.engine.tasks
        for task in list(book.unfinished.values()):
            if task.parent is parent and task.seq <= until_seq and (is_again or not task.is_cancelled):
                book.cancel(task, force=False, recursive=True)

    def _on_consumed(self, link: links.Link, message: tuple[Any, ...]) -> None:
        _, seq, count = message
        job = self._running
        if self.host is not None:
            job = self.host.find(link, seq) or job
        if job is not None and job.seq == seq and job.link is link:
            job.consumed = max(job.consumed, count)
            resume, job.resume = job.resume, None
            if resume is not None:
                resume()

    # Notices of the agent; on the polling thread

    def _on_notice(self, message: dict[str, Any], body: bytes) -> bool:
        kind = message["t"]
        if kind == "create":
            self.is_creating = True
            self.enqueue(lambda: actor.become(self, message, body))
        elif kind == "exit":
            self._asked_to_exit(message)
        elif kind == "look_at_task":
            self._tell_task()
        elif kind == "leased":
            if self._is_cut_off:
                self._is_cut_off = False
                with self.engine.lock:
                    self.enqueue(self._note_nothing_started)
        else:
            return False
        return True

    def _note_nothing_started(self) -> None:
        """By whoever has leased us now. On the main thread, which notes what it starts."""
        if self._started_by is None:
            _PROGRESS.pack_into(self._progress, 0, -1)

    def _asked_to_exit(self, message: dict[str, Any]) -> None:
        if message.get("shutdown"):
            self._pass_on_output()
            self._say_last()
            os._exit(0)
        with self.engine.lock:
            self.engine.values.drain_drops()
            is_needed = self.engine.tasks.unfinished or self.engine.actors.constructors or self._is_needed_by_others()
            if message.get("idle") and (is_needed or self._queue or self._running is not None):
                self.engine.agent.notify({"t": "busy_owner", "running": self._running is not None or bool(self._queue)})
                return
            if self.is_creating:
                self._is_unwanted = True  # whoever constructs sees to it
            elif self.host is not None:
                self.host.end()
            else:
                self.enqueue(self._end)

    def _tell_task(self) -> None:
        """What runs here, and why it cannot be stopped for others and run again, for the agent."""
        with self.engine.lock:
            self.engine.values.drain_drops()
            job = self._running
            told: dict[str, Any] = {"task": -1, "since_s": 0.0}
            keeps = ""
            if self._queue or self.engine.actors.constructors:
                keeps = "there is more to do in its worker"
            elif self._is_needed_by_others():
                keeps = "others use what is in the memory of its worker"
            if job is not None and not job.template.method and hasattr(job, "started_s"):
                told = {"task": job.seq, "since_s": job.started_s}
                if job.template.flush:
                    keeps = "it is not to be tried again (max_retries=0)"
            self.engine.agent.notify({"t": "task_seen", **told, "keeps": keeps})

    def _is_needed_by_others(self) -> bool:
        """Whether a value that this process has is used elsewhere. Lock held."""
        records = self.engine.values.table.records.values()
        return (
            any(record.borrowers or record.kind == values.LIFETIME for record in records)
            or self.engine.values.keeps_for_other_nodes()
        )

    def created(self) -> None:
        """The actor's constructor has returned or failed. On the main thread, no lock."""
        with self.engine.lock:
            self.is_creating = False
            if self._is_unwanted:
                self._asked_to_exit({})

    def _end(self) -> None:
        self._is_ending = True

    def _submitter_gone(self, link: links.Link) -> None:
        """The process that submitted tasks died: forget those that wait, interrupt the one that runs. Lock held."""
        for job in queued.of(self._queue, link):
            if not job.template.method:
                queued.withdraw(self._queue, job)
        running = self._running
        if running is not None:
            if running.link is link and not running.template.method:
                self._interrupt(running, is_again=False)
        elif self._idle is None and self.host is None and not self.is_creating:  # as in `_on_cancel`
            self._early_cancels.append((link, None, False, True))
            self.engine.reactor.poke()

    def _agent_gone(self) -> None:
        os._exit(1)

    # Blocking, cancelling

    def _blocked(self) -> Any:
        """The main thread waits inside a task: give its CPUs and its unstarted tasks away. Returns how to resume."""
        if threading.get_ident() != self._main_thread or self._running is None:
            if self.host is not None:
                self.host.blocked()
            return None
        job = self._running
        with self.engine.lock:
            self._is_blocked = True
            if not job.template.method:
                self._hand_back(job.link, len(self._queue), is_blocked=True)
            self.engine._flush()
        self.engine.agent.notify({"t": "blocked"})
        return self._unblocked

    def _unblocked(self) -> None:
        with self.engine.lock:
            self._is_blocked = False
        self.engine.agent.notify({"t": "unblocked"})

    def _interrupted(self, _number: int, frame: Any) -> None:
        """SIGINT, which only `cancel` means: a terminal's Ctrl-C is the driver's business."""
        job = self._cancel
        if job is None or job is not self._running:
            return
        if not interrupts.is_harmless(frame, self.engine.lock, otherwise=False, users_code=self._users_code):
            interrupts.lay_trap(self.engine, self._take_cancel)  # beside it, housekeeping tries again
            return
        self._cancel = None
        job.interrupted_at_seq = self.engine.tasks.last_seq
        raise KeyboardInterrupt

    def ignored(self, show: Callable[[Any], object], what: Any) -> None:
        """Python has ignored an exception, as it does in `__del__`. A cancellation is raised again, elsewhere."""
        job = self._running
        is_cancelled = job is not None and job.is_cancelled and not job.template.method
        if is_cancelled and what.exc_type is KeyboardInterrupt and threading.get_ident() == self._main_thread:
            self._cancel = job
            self.engine.reactor.poke()  # housekeeping sees to it
        else:
            show(what)

    def _take_cancel(self) -> bool:
        job, self._cancel = self._cancel, None
        if job is None or job is not self._running:
            return False
        job.interrupted_at_seq = self.engine.tasks.last_seq
        return True

    def _housekeeping(self, _now_s: float) -> float | None:
        due: float | None = None
        running = self._running
        if running is not None and (running is not self._running_before or running.template.is_streaming):
            due = reactor.TICK_S  # it goes quickly here: what the main thread posts and does not send is ours to send
        self._running_before = running
        if self._early_cancels:
            self._cancel_early()
            due = interrupts.RETRY_S
        if self._cancel is not None and self._cancel is self._running:
            signal.pthread_kill(self._main_thread, signal.SIGINT)
            due = min(due or interrupts.RETRY_S, interrupts.RETRY_S)
        if self.host is not None:
            self._pass_on_output()
        return due

    # Who runs here

    def _what_runs(self) -> list[answers.Running]:
        """Lock held."""
        host = self.host
        found = []
        if host is not None:
            found = host.running()
            if host.constructing_since_s:
                name = f"{host.context.class_name}.__init__"
                found.append(answers.Running("", name, host.constructing_since_s, self._main_thread))
        if self._running is not None and hasattr(self._running, "started_s"):
            found.append(execute.running(self._running, self._main_thread))
        return found

    def _queue_about(self, task: str) -> answers.Queue:
        """Lock held."""
        found = self.host.queue_about(task) if self.host is not None else None
        return found or answers.Queue(len(self._queue), None)

    def _current_key(self) -> Any:
        running = context.current_task.get()
        return running.key if running is not None else None

    def _who_prints(self) -> tuple[str, str]:
        """The name to show, and the id of the task or call, "" for none."""
        running = context.current_task.get()
        if running is None and self._running is not None:
            running = self._running.context
        name = running.name if running is not None else "worker"
        return name if self.host is None else self.host.display_name, running.task_id if running is not None else ""

    def _exit_actor(self) -> None:
        if self.host is None:
            raise TypeError("umbel.actor.exit_actor() was called in a task; it ends the actor whose method calls it")
        self.host.exit_from_method()

    def _leave_actor(self, error: SystemExit) -> None:
        if self.host is not None:
            self.host.left_from_graph(error)

    def _use_accelerators(self, ids: dict[str, list[str]]) -> None:
        """Make only the assigned devices visible to what the user's code imports."""
        from umbel._plugins import registry

        for resource, assigned in ids.items():
            self.accelerator_ids[resource] = list(assigned)
            manager = registry.accelerator_for(resource)
            if manager is not None:
                manager.set_visible_ids(list(assigned))


def _exit_code(error: SystemExit) -> int:
    """The code that the interpreter would exit with; a text is printed, as it would be."""
    if error.code is None or isinstance(error.code, int):
        return int(error.code or 0)
    sys.stderr.write(f"{error.code}\n")
    sys.stderr.flush()
    return 1
