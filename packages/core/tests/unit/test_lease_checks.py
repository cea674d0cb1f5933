"""When an owner asks whether a worker that has not answered for long is still leased."""

from __future__ import annotations

from umbel._scheduling import dispatch

LIMIT_S = dispatch.CHECKED_AFTER_S


def test_it_asks_when_it_has_heard_nothing_for_long_and_again_after_as_long() -> None:
    lease = dispatch.Lease("w", None, 100.0)
    assert lease.check_due_s() == 100.0 + LIMIT_S
    lease.last_reply_s = 107.0
    assert lease.check_due_s() == 107.0 + LIMIT_S
    lease.checked_s = 107.0 + LIMIT_S
    assert lease.check_due_s() == 107.0 + 2 * LIMIT_S
    lease.last_reply_s = 200.0
    assert lease.check_due_s() == 200.0 + LIMIT_S
