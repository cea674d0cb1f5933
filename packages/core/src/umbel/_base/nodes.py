"""Which node a process runs on can be read from its id: it has the first bytes of its node's id in it, the rest is random.

So whoever has the id of a process, or of an object that one owns, knows where to look for it, and asks nobody. They are not
the first bytes: messages, and people, shorten ids to their beginning.
"""

from __future__ import annotations

import os

NODE_ID_BYTES = 28
TAG_BYTES = 6  # of 2,000 nodes two have the same with a chance of one in 140 million
PROCESS_ID_BYTES = 16
_TAG_BEGIN = 4  # in a process's id
_TAG_END = _TAG_BEGIN + TAG_BYTES
TAG_IN_TEXT = slice(2 * _TAG_BEGIN, 2 * _TAG_END)  # of a process's id in hexadecimal, and whatever begins with one


def new_node_id() -> str:
    """In hex, as all node ids are."""
    return os.urandom(NODE_ID_BYTES).hex()


def new_process_id(node_id: str) -> bytes:
    """Of a process on this node."""
    return os.urandom(_TAG_BEGIN) + tag_of_node(node_id) + os.urandom(PROCESS_ID_BYTES - _TAG_END)


def tag_of_node(node_id: str) -> bytes:
    return bytes.fromhex(node_id)[:TAG_BYTES]


def tag_of_process(process_id: bytes) -> bytes:
    """Of the node that it runs on. process_id: or whatever begins with one, as the id of an object does."""
    return process_id[_TAG_BEGIN:_TAG_END]


def listens(address: str) -> bool:
    """Whether a node with this address, as host:port, listens there; others know its host even if not."""
    return not address.endswith(":0")


def address_in_words(address: str) -> str:
    """For what begins with "at"."""
    return address if listens(address) else f"{address.rpartition(':')[0]}, where it listens nowhere"


def tag_in(process_id: str) -> str:
    """The same, all in hexadecimal."""
    return process_id[2 * _TAG_BEGIN : 2 * _TAG_END]


def tag_text(node_id: str) -> str:
    """Of a node, in hexadecimal."""
    return node_id[: 2 * TAG_BYTES]
