"""Which node a process runs on can be read from its id: the first bytes are its node's, the rest is random.

So whoever has the id of a process, or of an object that one owns, knows where to look for it, and asks nobody.
"""

from __future__ import annotations

import os

NODE_ID_BYTES = 28
TAG_BYTES = 6  # of 2,000 nodes two have the same with a chance of one in 140 million
PROCESS_ID_BYTES = 16


def new_node_id() -> str:
    """In hex, as all node ids are."""
    return os.urandom(NODE_ID_BYTES).hex()


def new_process_id(node_id: str) -> bytes:
    """Of a process on this node."""
    return bytes.fromhex(node_id)[:TAG_BYTES] + os.urandom(PROCESS_ID_BYTES - TAG_BYTES)


def tag_of_node(node_id: str) -> bytes:
    return bytes.fromhex(node_id)[:TAG_BYTES]


def tag_of_process(process_id: bytes) -> bytes:
    """Of the node that it runs on. process_id: or whatever begins with one, as the id of an object does."""
    return process_id[:TAG_BYTES]
