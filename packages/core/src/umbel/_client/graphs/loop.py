"""What an actor does for a compiled graph: on a thread of its own, execution after execution, until the channels close.

The actor's other calls go on beside it. The loop ends as well when the process that compiled the graph is gone.
"""

from __future__ import annotations

import contextvars
import logging
import os
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from umbel import exceptions
from umbel._base import sessions
from umbel._client import answers, context, current, refs
from umbel._client.graphs import channels, plan, waiting

logger = logging.getLogger("umbel")


class Process(NamedTuple):
    """A process, told from a later one with the same pid."""

    pid: int
    started: int

    def is_alive(self) -> bool:
        return sessions.is_alive(self.pid, self.started)


class Order(NamedTuple):
    """What an actor is told of a graph."""

    node_id: str  # where the file is
    path: str
    slots: int
    slot_bytes: int
    actor: int  # its index
    edges: Sequence[plan.Edge]
    plan: plan.ActorPlan
    compiler: Process
    graph: str  # its name, for those who ask
    senders: Mapping[int, waiting.Sender]


class Joined(NamedTuple):
    """What an actor answers. node_id: where it is; on another node than the file it takes no part."""

    process: Process
    node_id: str


def own_process() -> Process:
    return Process(os.getpid(), sessions.start_time(os.getpid()))


def begin(instance: Any, order: Order) -> Joined:
    """Take part in a graph. Runs in the actor, as a call. Raises what keeps it from doing so."""
    engine = current.engine()
    joined = Joined(own_process(), engine.session_context.node_id)
    if joined.node_id != order.node_id:
        return joined
    memory = channels.attach(order.path, edges=len(order.edges), slots=order.slots, slot_bytes=order.slot_bytes)
    serving = _Loop(engine, instance, memory, order)
    answers.tell_of(engine, serving)
    name = f"umbel-graph-{order.actor}"
    threading.Thread(target=contextvars.copy_context().run, args=(serving.run,), name=name, daemon=True).start()
    return joined


class _Step:
    """A step with its method and the ends of its edges."""

    __slots__ = ("args", "function", "kwargs", "name", "num_returns", "outputs", "reads", "slots")

    def __init__(self, instance: Any, step: plan.Step, receivers: dict[int, Any], senders: dict[int, Any]) -> None:
        self.function = getattr(instance, step.method)
        self.name = step.name
        self.num_returns = step.num_returns
        self.reads = [(receivers[read.edge], read.slots) for read in step.reads]
        self.args = [_resolved(argument) for argument in step.args]
        self.kwargs = {name: _resolved(argument) for name, argument in step.kwargs}
        self.outputs = [
            (output.index, output.slot, [senders[edge] for edge in output.edges]) for output in step.outputs
        ]
        given = (*step.args, *(argument for _, argument in step.kwargs))
        self.slots = [argument.number for argument in given if isinstance(argument, plan.Slot)]


def _resolved(argument: plan.Constant | plan.Slot) -> plan.Constant | plan.Slot:
    """A reference that was bound becomes its value, as it would for a call."""
    if isinstance(argument, plan.Constant) and isinstance(argument.value, refs.ObjectRef):
        return plan.Constant(current.engine().get([argument.value], None)[0])
    return argument


class _Loop:
    def __init__(self, engine: Any, instance: Any, memory: channels.Memory, order: Order) -> None:
        self._engine = engine
        self._memory = memory
        self._order = order
        self._actor = order.actor
        self._compiler = order.compiler
        self._thread = 0
        receivers = {
            edge.index: channels.Receiver(memory, edge.index, slice_s=channels.IDLE_SLICE_S)
            for edge in order.edges
            if edge.receiver == order.actor
        }
        self._senders = {
            edge.index: channels.Sender(memory, edge.index) for edge in order.edges if edge.sender == order.actor
        }
        self._receivers = receivers
        self._steps = [_Step(instance, step, receivers, self._senders) for step in order.plan.steps]
        self._blank = [None] * order.plan.slot_count
        self._values: list[Any] = list(self._blank)

    def wait_now(self) -> answers.Wait | None:
        """What the loop does, for those who ask."""
        order = self._order
        for edge, receiver in self._receivers.items():
            asleep = receiver.asleep
            if asleep is not None:
                step = next(step.name for step in self._steps if any(one is receiver for one, _ in step.reads))
                reason = waiting.for_input(
                    order.graph,
                    order.compiler.pid,
                    step=step,
                    execution=receiver.read_count,
                    sender=order.senders[order.edges[edge].sender],
                    for_s=time.monotonic() - asleep[1],
                )
                return answers.Wait(self._thread, reason)
        return answers.Wait(self._thread, waiting.running(order.graph, order.compiler.pid)) if self._thread else None

    def run(self) -> None:
        self._thread = threading.get_ident()
        running = context.current_task.get()
        if running is not None:  # the call that began all this is over when a method asks who it is
            name = self._steps[0].name
            context.current_task.set(context.TaskContext(running.task_id, name, name, actor=running.actor))
        try:
            while True:
                for step in self._steps:
                    self._run_step(step)
                self._values[:] = self._blank
        except channels.ChannelClosed:
            pass
        except SystemExit as error:
            self._engine.leave_actor(error)
        except BaseException:  # a defect of ours: the driver sees that the loop has ended
            logger.error("internal error in the loop of a compiled graph:\n%s", traceback.format_exc())
        finally:
            self._values.clear()
            self._memory.close()  # without this actor the graph is over
            for sender in self._senders.values():
                sender.let_go(of_all=True)
            self._memory.say_ended(self._actor)
            self._thread = 0

    def _run_step(self, step: _Step) -> None:
        for receiver, slots in step.reads:
            receiver.wait(None, self._look_around)
            self._take(step, receiver, slots)
        result = self._call(step)
        for index, slot, senders in step.outputs:
            value = result
            if index is not None and type(result) is not channels.Failed:
                value = result[index]
            if slot is not None:
                self._values[slot] = value
            if senders:
                self._send(step, value, senders)

    def _take(self, step: _Step, receiver: channels.Receiver, slots: tuple[int, ...]) -> None:
        try:
            value = receiver.take(self._engine)
        except channels.ChannelClosed:
            raise
        except Exception as error:  # reading runs the user's code; or the value's owner is dead
            value = self._failed(step, error)
        if len(slots) == 1:
            self._values[slots[0]] = value
            return
        for position, slot in enumerate(slots):
            self._values[slot] = value if type(value) is channels.Failed else value[position]

    def _call(self, step: _Step) -> Any:
        values = self._values
        for slot in step.slots:
            if type(values[slot]) is channels.Failed:
                return values[slot]  # it does not run, and its readers get the same error
        args = [one.value if isinstance(one, plan.Constant) else values[one.number] for one in step.args]
        kwargs = {
            name: one.value if isinstance(one, plan.Constant) else values[one.number]
            for name, one in step.kwargs.items()
        }
        try:
            result = step.function(*args, **kwargs)
            if step.num_returns > 1:
                result = list(result)
                if len(result) != step.num_returns:
                    raise ValueError(
                        f"{step.name} has num_returns={step.num_returns}, got {len(result)} values; return as many"
                    )
        except Exception as error:
            return self._failed(step, error)
        return result

    def _send(self, step: _Step, value: Any, senders: list[channels.Sender]) -> None:
        slot_bytes = self._memory.slot_bytes
        try:
            message = channels.encode(value, slot_bytes, self._engine)
        except Exception as error:  # it cannot be pickled, or there is no room for it
            message = channels.encode(self._failed(step, error), slot_bytes, self._engine)
        try:
            for sender in senders:
                sender.send(message)
        except channels.ChannelClosed:
            message.discard()
            raise

    def _failed(self, step: _Step, error: BaseException) -> channels.Failed:
        running = context.current_task.get()
        wrapped = exceptions.UmbelTaskError.from_exception(
            error,
            step.name,
            pid=os.getpid(),
            actor_id=running.actor.actor_id if running is not None and running.actor is not None else None,
        )
        return channels.Failed(exceptions.dump_error(wrapped))

    def _look_around(self) -> None:
        """From time to time while nothing comes."""
        for sender in self._senders.values():
            sender.let_go()
        if not self._compiler.is_alive():
            raise channels.ChannelClosed
