"""An agent's machine whose workers are ready as soon as they are ordered."""

from __future__ import annotations

from umbel._agent import events as ev
from umbel._agent.state import AgentState


def run(state: AgentState, *events: ev.AgentEvent, at_s: float = 0.0) -> list[ev.AgentCommand]:
    """What is ordered, but for the workers that are started for it."""
    todo, found = list(state.apply(*events)), []
    while todo:
        command = todo.pop(0)
        if isinstance(command, ev.StartWorker):
            todo += state.apply(ev.ClientJoined(command.worker, at_s), ev.WorkerReady(command.worker, at_s))
        else:
            found.append(command)
    state.check()
    return found
