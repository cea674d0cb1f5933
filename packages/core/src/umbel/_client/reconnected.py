"""What a process says to one of another node to which its connection had broken, while both live.

Over the new connection, before anything else, goes what it had asked of the other one for third processes and has no
acknowledgement of, all that it borrows itself, and which values it waits for. So nothing has to be known of what had arrived
before, and nothing is kept of what was sent while connections hold. `umbel._objects.ownership` says what the other one makes
of it.

Everything runs with the engine's lock held.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from umbel._objects import ownership
from umbel._wire import messages

if TYPE_CHECKING:
    from umbel._client import links
    from umbel._client.values import Values


def say_all(values: Values, link: links.Link) -> None:
    """Nothing was said by this link so far, nor is any of it lost to it that the table has decided and nobody has sent yet."""
    table, owner = values.table, link.peer
    unsent = [*values.carrying_out, *table.commands]
    asked = table.unacknowledged(owner, unsent)
    own = [borrow.object_id for borrow in asked if borrow.borrower == values.process_id]
    for borrow in asked:  # first: what this process has lent it may have let go of since
        if borrow.borrower != values.process_id:
            link.post((messages.BORROW, borrow.object_id, borrow.borrower, borrow.number))
    link.post((messages.BORROWS, table.borrows_of(owner, unsent), own))
    for object_id, record in table.records.items():
        if record.is_fetching and record.kind == ownership.PENDING and table.owner_of(object_id) == owner:
            link.post((messages.FETCH, object_id))
    values._engine.mark_dirty(link)


def say_borrows(values: Values, link: links.Link) -> None:
    link.post(
        (messages.BORROWS, values.table.borrows_of(link.peer, [*values.carrying_out, *values.table.commands]), [])
    )


def on_borrows(values: Values, link: links.Link, message: tuple[Any, ...]) -> None:
    _, grants, asked = message
    engine = values._engine
    is_doubtful = values.table.told_borrows(link.peer, dict(grants), engine.frame_time_s)
    for object_id in asked:
        link.post((messages.ACK, object_id))
    if is_doubtful and engine.links.remote is not None:
        engine.links.remote.ask_again(functools.partial(_ask, values, link.peer), after_s=ownership.UNDER_WAY_S)
    values.carry_out()


def _ask(values: Values, borrower: bytes) -> None:
    """Of what was kept for it something may have come to it, or not. One that is not connected says so by itself."""
    link = values._engine.links.by_peer.get(borrower)
    if link is not None and not values._engine.is_closed:
        link.post((messages.BORROWS_ASKED,))
        link.flush()
