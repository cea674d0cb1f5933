"""How a compiled graph is executed: by loops in its actors and channels to them, or by ordinary calls."""

from __future__ import annotations

import _thread
import contextlib
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, Protocol

from umbel import exceptions
from umbel._client import answers, refs, values
from umbel._client.graphs import channels, loop, nodes, plan, waiting
from umbel._client.graphs.results import Outlet
from umbel._model.reasons import Reason
from umbel._objects import segments

FIRST_NUMBER = 1 << 62  # of the file of a graph, above those of segments of values
WHY_S = 5.0  # how long an actor that is gone is asked why; the agent knows within milliseconds


class Backend(Protocol):
    """What executes a graph."""

    @property
    def outlets(self) -> Sequence[Outlet]:
        """One for each result, in order."""
        ...

    def prepare(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The input of an execution, ready to be sent. Raises when it cannot be."""

    def send(self, given: Any) -> None:
        """Begin the execution that has just been opened, with what `prepare` returned."""

    def discard(self, given: Any) -> None:
        """There is no execution for what `prepare` returned."""

    def check_open(self) -> None:
        """Raises when the graph was torn down, or cannot be executed any more."""

    def check(self) -> None:
        """As `check_open`; also looks at the actors."""

    def late(self, execution: int, output: int) -> str:
        """What a result waits for, in words."""

    def why(self, execution: int, output: int) -> Reason:
        """The same as a reason, of a result that was not taken."""

    def close(self, timeout_s: float | None) -> list[str]:
        """End the graph. Returns the actors in which its methods still run when the time is up."""

    def abandon(self) -> None:
        """Nobody has the graph any more. Must neither wait nor raise."""


class Elsewhere(Exception):
    """An actor is on another node than the channels, whose memory it does not have. The words say which."""


class Channels:
    """Loops in the actors' processes, on one node."""

    def __init__(
        self, engine: Any, graph: plan.GraphPlan, _root: nodes.DAGNode, *, slots: int, buffer_bytes: int
    ) -> None:
        """Raises Elsewhere."""
        if len(graph.handles) > channels.ACTORS_MAX:
            raise exceptions.UnsupportedFeature(
                f"a compiled graph has at most {channels.ACTORS_MAX} actors, got {len(graph.handles)}; split it in two"
            )
        engine.check_running()
        self._engine = engine
        self._graph = graph
        self._process = loop.own_process()
        self._is_torn_down = False
        self._broken: bytes | None = None  # the error of a graph that lost an actor
        owner = engine.process_id.hex()
        self._name_of_graph = f"{owner}.{os.urandom(4).hex()}"
        self._senders = {plan.DRIVER: waiting.Sender(f"process {self._process.pid}", "")}
        for index, handle in enumerate(graph.handles):
            self._senders[index] = waiting.Sender(self._name(index), handle._actor_id.hex())
        number = FIRST_NUMBER + int.from_bytes(os.urandom(7), "little")
        path = os.path.join(engine.welcome["store_dir"], segments.name_of(owner, owner, number))
        size = channels.slot_bytes_of(buffer_bytes, slots)
        self._memory = channels.make(path, edges=len(graph.edges), slots=slots, slot_bytes=size)
        try:
            self._joined = self._join(path)
        except BaseException:
            self._memory.close()
            raise
        finally:
            segments.remove(path)  # everybody has it
        self._inlets = [(edge, channels.Sender(self._memory, edge)) for edge in graph.input_keys]
        self.outlets = [channels.Receiver(self._memory, edge) for edge in graph.outputs]
        answers.tell_of(engine, self)

    def _join(self, path: str) -> list[loop.Joined]:
        memory, graph = self._memory, self._graph
        here = self._engine.session_context.node_id
        joining = [
            handle.__umbel_call__.remote(
                loop.begin,
                loop.Order(
                    here, path, memory.slots, memory.slot_bytes, index, graph.edges, graph.actors[index], self._process,
                    self._name_of_graph, self._senders,
                ),
            )
            for index, handle in enumerate(graph.handles)
        ]  # fmt: skip
        self._engine.wait(joining, len(joining), None, True)  # the file stays until nobody may open it any more
        joined: list[loop.Joined] = self._engine.get(joining, None)
        for index, one in enumerate(joined):
            if one.node_id != here:
                raise Elsewhere(f"{self._name(index)} is on node {one.node_id}, and this process on node {here}")
        return joined

    def prepare(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[channels.Message]:
        input_of, size, engine = self._graph.input_of, self._memory.slot_bytes, self._engine
        return [channels.encode(input_of(edge, args, kwargs), size, engine) for edge, _ in self._inlets]

    def send(self, given: list[channels.Message]) -> None:
        try:
            for (_, sender), message in zip(self._inlets, given, strict=True):
                sender.send(message)
        except channels.ChannelClosed:
            self.discard(given)
            self._raise_closed()

    def discard(self, given: list[channels.Message]) -> None:
        for message in given:
            message.discard()

    def check_open(self) -> None:
        if self._engine.is_closed or self._engine.agent_is_gone:
            self._engine.check_running()
        if self._memory.is_closed:
            self._raise_closed()

    def check(self) -> None:
        self.check_open()
        for _, sender in self._inlets:
            sender.let_go()
        if not all(one.process.is_alive() for one in self._joined):
            self._memory.close()
            self._raise_closed()

    def _raise_closed(self) -> NoReturn:
        if not self._is_torn_down:
            if self._broken is None:
                self._broken = exceptions.dump_error(self._why_broken())
            values.raise_error(self._broken)
        raise exceptions.UmbelChannelError("the compiled graph was torn down; compile the graph again to execute it")

    def _why_broken(self) -> BaseException:
        """The error of a graph that is over before its time: an actor has died, or leaves."""
        actors = list(enumerate(self._joined))
        gone = [index for index, one in actors if not one.process.is_alive()]
        for index in [*gone, *(index for index, _ in actors if index not in gone)]:
            error = self._death_of(index)
            if error is not None:
                return error
            if index in gone:
                return exceptions.ActorDiedError(
                    f"the process of {self._name(index)} ended while it took part in a compiled graph; if the actor has "
                    "restarted, compile the graph again",
                    actor_id=self._graph.handles[index]._actor_id.hex(),
                )
        return exceptions.UmbelChannelError("the loop of an actor in the compiled graph ended; its log says why")

    def _death_of(self, index: int) -> BaseException | None:
        """What the daemon says of an actor, if that is that it is dead."""
        try:
            self._engine.get([self._graph.handles[index].__umbel_ready__.remote()], WHY_S)
        except exceptions.ActorDiedError as error:
            return error
        except exceptions.UmbelError:
            pass  # it does not say
        return None

    def _name(self, index: int) -> str:
        handle = self._graph.handles[index]
        return f"actor {handle._description.class_name} ({handle._actor_id.hex()})"

    def late(self, execution: int, output: int) -> str:
        sender = self._sender_waited_for(execution)
        where = "" if sender is None else f": it waits for {self._name(sender)}"
        return f"result {output} of execution {execution} of the compiled graph did not come{where}"

    def _sender_waited_for(self, execution: int) -> int | None:
        """The first actor on the way that has not sent what others need in an execution."""
        for edge in self._graph.edges:  # upstream first
            if edge.sender != plan.DRIVER and self._memory.count_written(edge.index) <= execution:
                return edge.sender
        return None

    def why(self, execution: int, output: int) -> Reason:
        result = waiting.Result(self._name_of_graph, output, execution)
        sender = self._sender_waited_for(execution)
        return waiting.has_come(result) if sender is None else waiting.not_come(result, self._senders[sender])

    def wait_now(self) -> answers.Wait | None:
        """What a thread here that reads a result waits for, for those who ask."""
        for output, receiver in enumerate(self.outlets):
            asleep = receiver.asleep
            if asleep is not None:
                thread, since_s = asleep
                result = waiting.Result(self._name_of_graph, output, receiver.read_count)
                sender = self._sender_waited_for(result.execution)
                if sender is None:
                    return None  # it has come this moment
                reason = waiting.for_result(result, self._senders[sender], time.monotonic() - since_s)
                return answers.Wait(thread, reason)
        return None

    def close(self, timeout_s: float | None) -> list[str]:
        if self._process.pid != os.getpid():
            return []  # a forked child's copy: the graph is its parent's
        self._is_torn_down = True
        self._memory.close()
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        left = []
        for index, one in enumerate(self._joined):
            while not self._memory.has_ended(index) and one.process.is_alive() and not self._engine.is_closed:
                if deadline_s is not None and time.monotonic() >= deadline_s:
                    left.append(self._name(index))
                    break
                self._memory.wait_ended(index)
        self._give_back()
        return left

    def _give_back(self) -> None:
        if not self._engine.is_closed:
            for _, sender in self._inlets:
                sender.let_go(of_all=True)

    def abandon(self) -> None:
        if self._process.pid == os.getpid() and not self._is_torn_down:
            self._is_torn_down = True
            self._memory.close()
            with contextlib.suppress(RuntimeError):  # the interpreter ends, and the session with it
                _thread.start_new_thread(
                    self._give_back, ()
                )  # this may be a garbage collection amid a call of the store


class _CallsOutlet:
    """The results of one output of a graph that runs by ordinary calls."""

    def __init__(self, backend: Calls) -> None:
        self._backend = backend
        self.results: deque[refs.ObjectRef[Any] | Exception] = deque()

    def wait(self, deadline_s: float | None, _on_slice: Callable[[], None]) -> bool:
        self._backend.check_open()
        if isinstance(self.results[0], Exception):
            return True
        left_s = None if deadline_s is None else max(0.0, deadline_s - time.monotonic())
        ready, _ = self._backend.engine.wait([self.results[0]], 1, left_s, True)
        return bool(ready)

    def take(self, engine: Any) -> Any:
        result = self.results.popleft()
        if isinstance(result, Exception):
            raise result
        return engine.get([result], None)[0]


class Calls:
    """Ordinary calls of the actors: for the inline engine, which has one process, and where the program and the actors do not
    all share memory."""

    def __init__(
        self, engine: Any, graph: plan.GraphPlan, root: nodes.DAGNode, *, slots: int, buffer_bytes: int
    ) -> None:
        self.engine = engine
        self._graph = graph
        self._nodes = nodes.upstream(root)
        self._root = root
        self._is_torn_down = False
        self.outlets = [_CallsOutlet(self) for _ in graph.outputs]

    def prepare(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        is_whole = None in self._graph.input_keys.values()
        stored = [self.engine.put(value) for value in args]  # a copy as it is now; refused if it cannot be pickled
        named = {name: self.engine.put(value) for name, value in kwargs.items()}
        return stored[0] if is_whole else nodes.DAGInputData(*stored, **named)

    def send(self, given: Any) -> None:
        results: dict[nodes.DAGNode, Any] = {}
        try:
            for node in self._nodes:
                results[node] = node._run(results, given)
        except Exception as error:  # a call was refused, and there is an execution: it gets the error
            results[self._root] = [error] * len(self.outlets) if self._graph.is_list else error
        found = results[self._root]
        for outlet, result in zip(self.outlets, found if self._graph.is_list else [found], strict=True):
            outlet.results.append(result)

    def discard(self, given: Any) -> None:
        """Its references go with it."""

    def check_open(self) -> None:
        if self._is_torn_down:
            raise exceptions.UmbelChannelError(
                "the compiled graph was torn down; compile the graph again to execute it"
            )

    def check(self) -> None:
        self.check_open()

    def late(self, execution: int, output: int) -> str:
        return f"result {output} of execution {execution} of the compiled graph did not come"

    def why(self, execution: int, output: int) -> Reason:
        results = self.outlets[output].results
        if results and isinstance(results[0], refs.ObjectRef):  # results are taken in this order
            reason: Reason = self.engine.explain(results[0])
            return reason
        return waiting.has_come(waiting.Result("", output, execution))

    def close(self, timeout_s: float | None) -> list[str]:
        self._is_torn_down = True
        for outlet in self.outlets:
            outlet.results.clear()
        return []

    def abandon(self) -> None:
        self._is_torn_down = True
