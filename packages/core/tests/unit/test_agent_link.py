"""The connection of a process to its node's agent: who is told first that the agent has gone."""

from __future__ import annotations

import pathlib
import threading
from collections.abc import Iterator

import pytest

from umbel import exceptions
from umbel._client import links
from umbel._transport import connection, reactor

LIMIT_S = 20.0
WAKES_S = 0.3  # for a thread that may go on to do so


@pytest.fixture
def loop() -> Iterator[reactor.Reactor]:
    made = reactor.Reactor(lambda: None, name="test")
    yield made
    made.close()


@pytest.mark.slow
def test_nobody_who_waits_for_an_answer_is_told_before_a_process_that_ends_with_its_agent_has_ended(
    loop: reactor.Reactor, tmp_path: pathlib.Path
) -> None:
    """Else a task fails of that, and tells its owner, which may be on another node, and takes it for the task's own error."""
    path = str(tmp_path / "agent.sock")
    listener = connection.listen_unix(path)
    listener.setblocking(True)
    is_told = threading.Event()
    was_told: list[bool] = []

    def gone() -> None:
        was_told.append(is_told.wait(WAKES_S))

    def asks() -> None:
        with pytest.raises(exceptions.LocalNodeDiedError):
            link.request({"t": "query"})
        is_told.set()

    link = links.AgentLink(path, loop, lambda _message, _body: None, gone)
    link.is_vital = True
    askers = [threading.Thread(target=asks) for _ in range(2)]  # of which one reads the socket, at most
    with listener, listener.accept()[0] as agent:
        for asker in askers:
            asker.start()
        received = b""
        while received.count(b"query") < len(askers):
            received += agent.recv(4096)
    for asker in askers:
        asker.join(LIMIT_S)
        assert not asker.is_alive()
    assert was_told == [False]
    assert is_told.is_set()
