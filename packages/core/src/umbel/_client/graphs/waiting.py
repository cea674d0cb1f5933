"""What the processes of a compiled graph wait for, as reasons. Each names the graph, so that another process's can follow."""

from __future__ import annotations

from typing import NamedTuple

from umbel._model import reasons


class Sender(NamedTuple):
    """Who is to send a value. name: in words. actor: its id; "" for the process that compiled the graph."""

    name: str
    actor: str


class Result(NamedTuple):
    """One output of one execution. graph: its name; "" where nobody follows it."""

    graph: str
    output: int
    execution: int

    def __str__(self) -> str:
        return f"result {self.output} of execution {self.execution} of a compiled graph"


def running(graph: str, compiler_pid: int) -> reasons.Reason:
    """Of an actor's loop that waits for nothing."""
    return reasons.Reason(reasons.RUNNING, "it", f"runs {_of(compiler_pid)}", facts={"graph": graph})


def for_input(
    graph: str, compiler_pid: int, *, step: str, execution: int, sender: Sender, for_s: float
) -> reasons.Reason:
    """Of an actor's loop. step: the method that needs it."""
    text = (
        f"runs {_of(compiler_pid)}, and waits for the input of {step} in execution {execution} from {sender.name}, "
        f"for {for_s:.1f} s"
    )
    facts = {"graph": graph, "actor": sender.actor, "step": step, "execution": execution, "for_s": for_s}
    return reasons.Reason(reasons.GRAPH, "it", text, facts=facts)


def for_result(result: Result, sender: Sender, for_s: float) -> reasons.Reason:
    """Of who reads it."""
    text = f"waits for {result} from {sender.name}, for {for_s:.1f} s"
    facts = {**result._asdict(), "actor": sender.actor, "for_s": for_s}
    return reasons.Reason(reasons.GRAPH, "it", text, facts=facts)


def not_come(result: Result, sender: Sender) -> reasons.Reason:
    """Of the result. sender: who is to send what comes next on the way to it."""
    facts = {**result._asdict(), "actor": sender.actor}
    return reasons.Reason(reasons.GRAPH, str(result), f"waits for {sender.name}", facts=facts)


def has_come(result: Result) -> reasons.Reason:
    return reasons.Reason(reasons.READY, str(result), "is ready", facts=result._asdict())


def _of(compiler_pid: int) -> str:
    return f"the compiled graph of process {compiler_pid}"
