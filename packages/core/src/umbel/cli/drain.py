"""`umbel drain-node`: have a node of a cluster take no more work, and end when it has nothing left."""

from __future__ import annotations

import click

from umbel import exceptions
from umbel._base import nodes
from umbel._client import tool
from umbel.cli import node

ANSWER_S = 20.0  # the head answers within 15
_REASONS = {
    "idle": "idle",
    "preemption": "preemption",
    "DRAIN_NODE_REASON_IDLE_TERMINATION": "idle",
    "DRAIN_NODE_REASON_PREEMPTION": "preemption",
}  # Ray's names, and ours


def make() -> click.Command:
    @click.command("drain-node")
    @click.argument("node_id", metavar="NODE", required=False)
    @click.option("--node-id", "node_option", metavar="NODE", help="The same, by Ray's name.")
    @click.option(
        "--reason",
        type=click.Choice([*_REASONS]),
        default="preemption",
        show_default=True,
        help="idle: only if nothing runs there. preemption: whatever runs; the machine will be taken away. Ray's names do too.",
    )
    @click.option("--reason-message", "--message", default="", help="For people, in `umbel status` and errors.")
    @click.option(
        "--deadline-remaining-seconds",
        "--deadline-s",
        "deadline_s",
        type=click.FloatRange(min=0),
        help="After so long the node ends whatever runs there; default never.",
    )
    @node.option
    def drain_node(
        node_id: str | None,
        node_option: str | None,
        reason: str,
        reason_message: str,
        deadline_s: float | None,
        session: str | None,
    ) -> None:
        """Have a node take no more work, hand its values over, and end when it has nothing left.

        NODE is the node's id, or as much of its beginning as no other has. What runs there goes on; what has not begun goes to
        other nodes.
        """
        if (node_id is None) == (node_option is None):
            raise click.UsageError("say which node, once: its id, or the beginning of it, as `umbel status` shows it")
        with node.connect(session, answer_s=ANSWER_S) as asker:
            try:
                found = _full_id(asker, node_id or node_option or "")
                refusal = asker.drain_node(found, _REASONS[reason], reason_message, deadline_s)
            except exceptions.UmbelError as error:
                raise click.ClickException(str(error)) from error
        if refusal:
            raise click.ClickException(f"the drain request is not accepted: {refusal}")
        click.echo(f"Node {found} is being drained: it takes no more work, and ends when it has nothing left.")

    return drain_node


def _full_id(asker: tool.Tool, given: str) -> str:
    """Of the living nodes whose ids begin so, the only one; what was given, if there is none."""
    text = given.strip().lower()
    if len(text) == 2 * nodes.NODE_ID_BYTES or not text:
        return text
    fitting = [one["node_id"] for one in asker.query("nodes") if one["alive"] and one["node_id"].startswith(text)]
    if len(fitting) > 1:
        shown = "".join(f"\n  {one}" for one in fitting)
        raise click.ClickException(f"several nodes have ids that begin with {given!r}; give more of it:{shown}")
    return fitting[0] if fitting else text
