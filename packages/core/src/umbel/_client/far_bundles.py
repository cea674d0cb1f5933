"""What placement groups have on other nodes than the one that is asked, as `cluster_resources` and `available_resources` show it.

The head says on which nodes bundles are, and each of those what it has in them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from umbel import exceptions
from umbel._client import inquiry

if TYPE_CHECKING:
    from umbel._client.native import NativeEngine

LIMIT_S = 2.0  # for a node to answer, which takes milliseconds; of one that does not, nobody can say what is free

Amounts = dict[str, int]


def add(engine: NativeEngine, what: str, own: Amounts) -> Amounts:
    """own: the answer of the node to `what`. With what is on others; while the head is away, nobody knows where that is."""
    asked, *known = engine.query("nodes")
    others = {node["node_id"] for node in known if node["alive"]}
    if not others or asked["control_waits_for"]:
        return own
    asker = inquiry.EngineAsker(engine, timeout_s=LIMIT_S)
    try:
        homes = others.intersection(asker.query("bundle_nodes"))
        answers = asker.gather("bundles", dict.fromkeys(homes, ""), LIMIT_S) if homes else {}
    except (exceptions.GetTimeoutError, exceptions.UmbelSystemError):  # the head has gone meanwhile
        return own
    found = dict(own)
    for answer in answers.values():
        for name, amount in answer.get("result", {}).get(what, {}).items():
            found[name] = found.get(name, 0) + amount
    return found
