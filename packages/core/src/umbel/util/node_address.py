"""Under which address others reach this node, and what its launcher calls it."""

from __future__ import annotations

import socket

import umbel
from umbel._model import node_labels

# Nothing is sent there: connecting a datagram socket only makes the system choose the interface it would use.
_ANY_OUTSIDE_ADDRESS = ("192.0.2.1", 9)  # a documentation address (RFC 5737), the discard port
LOOPBACK = "127.0.0.1"


def get_node_ip_address() -> str:
    """The IP address of this process's node: as the running session has it, else of the interface that leads outside.

    127.0.0.1 when the machine has no network.
    """
    if umbel.is_initialized():
        here = umbel.get_runtime_context().get_node_id()
        for node in umbel.nodes():
            if node["NodeID"] == here:
                return str(node["NodeManagerAddress"])
    return outgoing_address()


def get_node_instance_id() -> str:
    """What the launcher of this process's node calls it; "" for a node that none has launched, or where no session runs."""
    if not umbel.is_initialized():
        return ""
    return umbel.get_runtime_context().get_node_labels().get(node_labels.INSTANCE_ID, "")


def outgoing_address() -> str:
    """The address of the interface that leads outside."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_ANY_OUTSIDE_ADDRESS)
        except OSError:  # no route
            return LOOPBACK
        return str(probe.getsockname()[0])
