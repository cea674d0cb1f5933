"""What a rank makes of what others have said, over real sockets."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from umbel import exceptions
from umbel.util.collective import links, peers

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs sockets that keep packets apart")


def test_step_that_was_given_up_since_it_was_heard_of_does_not_succeed(tmp_path: Path) -> None:
    """Rank 0 is a step ahead, gives up, and rank 1 comes to that step only then."""
    sockets = links.pair()
    ahead, late = (
        peers.Peers(
            links.Links({1 - rank: sockets[rank]}), group_name="g", rank=rank, world_size=2, timeout_s=0.3,
            directory=str(tmp_path),
        )
        for rank in (0, 1)
    )  # fmt: skip
    late._carry_out_sends(late._rounds.step("first"))  # it has not heard of the other's yet
    ahead.exchange("first")

    def go_on() -> None:
        with pytest.raises(exceptions.CollectiveTimeoutError):
            ahead.exchange("second")

    waiting = threading.Thread(target=go_on)
    waiting.start()
    while not late._rounds.has_unread:
        late._rounds.heard(late._links.receive(0.1))
    waiting.join()
    with pytest.raises(exceptions.CollectiveTimeoutError):
        late.exchange("second")
    ahead.close()
    late.close()
