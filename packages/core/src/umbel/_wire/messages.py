"""The messages of data frames: tuples whose first item is one of these numbers.

Object ids are 28 bytes, process ids 16; `seq` numbers the tasks and calls of one owner. An encoded value is
(kind, payload), see `umbel._objects.serialization`. `deps` lists arguments that were references:
(position or keyword, object id, kind, payload).
"""

from __future__ import annotations

from typing import Any

# Any process to any other
HELLO = 1  # process_id, number: who has connected, to one of another node for which time, as far as it knows
BORROW = 2  # object_id, borrower, number -> ACK
ACK = 3  # object_id: the borrow is entered
RELEASE = 4  # object_id, borrower, grants
FETCH = 5  # object_id -> VALUE, once there is one
VALUE = 6  # object_id, kind, payload
FREE = 7  # segment name: its value is dead, its creator may use the memory again
LOST = 9  # object_id, payload, how: to the owner of an object whose stored value is gone
COPIED = 10  # object_id, key: to the owner of an object; the sender's node has a copy of its value, by this key
TAKEN = 11  # segment name: its owner has the value elsewhere now; its creator need not stay for it
BORROWS = 13  # [(object_id, grants)], [object_id]: what the sender has of the receiver, and has asked for -> ACK
BORROWS_ASKED = 14  # -> BORROWS
PACKET = 12  # name, packet or None: for the inbox of that name; None is the end of the sender's
CANCEL_OBJECT = 8  # object_id, is_forced, is_recursive: to the owner of somebody's result

# Owner to worker or actor
TEMPLATE = 20  # index, facts: what all tasks or calls of one template share, sent before the first
FUNCTION = 21  # digest, pickled function
TASK = 22  # seq, template index, arguments kind, payload, deps, attempt
CALL = 23  # the same for an actor's method
STEAL = 24  # count: hand back so many unstarted tasks
CANCEL = 25  # seq, is_forced, is_recursive
DEPTH = 27  # depth: how deeply nested the tasks are whose children the following tasks and calls are
CONSUMED = 26  # seq, count: so many items of a stream were read

# Worker or actor to owner
REPLY = 40  # seq, kind, payload, contained ids or None, duration_s, ended_s
REPLY_MANY = 41  # seq, [(kind, payload, contained)], duration_s, ended_s
FAILED = 42  # seq, error bytes, duration_s or None, ended_s: seconds since 1970
ITEM = 43  # seq, index, kind, payload, contained
END = 44  # seq, count, error bytes or None, duration_s, ended_s
UNSTARTED = 45  # [seq], is_blocked: handed back; a blocked worker wants no more until it replies
CANCELLED = 46  # seq: it never ran
RETIRE = 47  # the worker has reached max_calls; push nothing more

# Kinds in deps beside those of encoded values
AWAITED = 20  # payload is the seq of a task sent before to the same worker, whose result the worker has itself

# Kinds of arguments beside the kinds of encoded values, which hold (args, kwargs)
ARGS = 10  # payload is the tuple of positional arguments
ARGS_KWARGS = 11  # payload is (args, kwargs)
ARGS_OBJECT = 12  # (args, kwargs) is the object in deps whose key is None


def results_in(message: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    """The results, (kind, payload, contained) each, in what a worker or actor says to an owner."""
    if message[0] == REPLY:
        return [message[2:5]]
    if message[0] == REPLY_MANY:
        return list(message[2])
    return [message[3:6]] if message[0] == ITEM else []
