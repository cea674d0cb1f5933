"""Starts a node that outlives drivers: one on its own, the head of a cluster, or one that joins a cluster."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from umbel import exceptions, spi
from umbel._base import config as configuration
from umbel._base import sessions, token_files
from umbel._client import attach, launch, own_node, start
from umbel._model import resources as resource_model
from umbel._plugins import registry
from umbel._transport import addresses, own_tls

# What the first worker's first task does without; then links to processes of other nodes are made at once.
_LATER_IMPORTS = ("umbel._client.remote_links", "umbel._transport.acceptor", "umbel._transport.ways")
ANYWHERE = ("", "0.0.0.0", "::")
_OUTSIDE = addresses.Address("192.0.2.1", 9)  # a documentation address (RFC 5737): nothing is sent there


class Wishes(NamedTuple):
    """What the node is to have; as for a private one in `umbel.init`. node_name: what lists call it, "" for its address.
    env_vars: of its processes, beside those of this one."""

    num_cpus: float | None = None
    num_gpus: float | None = None
    resources: Mapping[str, float] | None = None
    labels: Mapping[str, str] = {}
    object_store_memory: int | None = None
    scheduler: str | None = None
    memory: int | None = None
    node_name: str = ""
    env_vars: Mapping[str, str] = {}
    object_spilling_directory: str | None = None
    metrics_export_port: int | None = None


def wishes_of(spec: spi.NodeSpec, own_labels: Mapping[str, str], store_bytes: int | None = None) -> Wishes:
    """What a node of this type is to have. own_labels: beside those of its type. store_bytes: None for what the type says."""
    amounts = spec.resources.to_floats()
    cpus, gpus = amounts.pop(resource_model.CPU, 0), amounts.pop(resource_model.GPU, 0)
    memory = amounts.pop(resource_model.MEMORY, None)  # that of its machine, unless the type says
    store = amounts.pop(resource_model.OBJECT_STORE_MEMORY, None)
    if store is not None and store_bytes is None:
        store_bytes = int(store)
    labels = {**spec.labels, **own_labels}
    return Wishes(cpus, gpus, amounts, labels, store_bytes, memory=None if memory is None else int(memory))


class Place(NamedTuple):
    """Where the node is. head: the address of the one to join; "" for none.

    host, port: where it listens; a port of None is nowhere, a host of "" the one at which others reach it. node_host: at which
    that is, "" for the one that it listens at, or from which it reaches the head. listens: whether it does at all, which one that
    joins need not: others then reach it by connections that it makes itself. token_file: "" for the environment's token.
    token: in place of a file: it is kept in the session's directory, and goes with that.
    tls_directory: "" for the environment's, if there is one there.
    """

    head: str = ""
    host: str = ""
    port: int | None = None
    node_host: str = ""
    token_file: str = ""
    tls_directory: str = ""
    token: str = ""
    listens: bool = True


class Keeping(NamedTuple):
    """Where a head keeps its records. url: of a control storage. is_standby: wait while another head leads."""

    url: str
    is_standby: bool = False


class Started(NamedTuple):
    """A node's daemon. told: what it has, in words. address: where others reach it; "" for nowhere. token_file: of a head that
    listens, or that it was given."""

    launched: launch.Launched
    told: str
    address: str
    token_file: str


def start_node(
    wishes: Wishes,
    place: Place,
    keeping: Keeping | None = None,
    *,
    ends_with_starter: bool = False,
    autoscaling: Mapping[str, Any] | None = None,
) -> Started:
    """The node, once it listens and is a member of its cluster.

    Raises TypeError and ValueError for what is wrong, UmbelSystemError when it does not start or does not join, with the
    reason. ends_with_starter: the node ends when this process does. autoscaling: of a head that listens, what its cluster's
    file says, if it is to launch nodes.
    """
    config = configuration.Config.from_environment({**os.environ, **wishes.env_vars})
    if wishes.metrics_export_port is not None:
        config = own_node.with_metrics_port(config, wishes.metrics_export_port, option="metrics_export_port")
    if config.metrics_export_port >= 0:
        own_node.check_can_serve_metrics()
    config = own_node.with_spilling(config, wishes.object_spilling_directory, None, [])
    policy = wishes.scheduler or config.scheduler
    registry.installed().schedulers.find(policy)
    store_bytes = own_node.store_bytes(wishes.object_store_memory)
    network = _network(place, config)
    totals, ids, found_labels = own_node.totals(
        wishes.num_cpus, wishes.num_gpus, wishes.resources, store_bytes, config,
        host=network.get("node_host", resource_model.NODE_ADDRESS), is_head=not place.head,
        memory=wishes.memory,
    )  # fmt: skip
    labels = {**found_labels, **wishes.labels}
    launched = launch.launch(
        {
            **start.node_configuration(totals, ids, labels, store_bytes, policy, config),
            "embedded": False,
            "ends_with_starter": ends_with_starter,
            "has_jobs": True,
            "version": attach.version(),
            "worker_imports": [],
            "node_name": wishes.node_name,
            "env_vars": dict(wishes.env_vars),
            **network,
            **({"storage": keeping.url, "is_standby": keeping.is_standby} if keeping is not None else {}),
            **({"autoscaling": autoscaling} if autoscaling is not None else {}),
        },
        None
        if keeping is not None and keeping.is_standby
        else launch.READY_TIMEOUT_S + (config.node_join_s if place.head else 0.0),
    )
    address = sessions.outliving(launched.session_dir).address
    token_file = os.path.join(launched.session_dir, "token") if place.token else place.token_file
    return Started(launched, own_node.in_words(totals), address, token_file)


def _network(place: Place, config: configuration.Config) -> dict[str, Any]:
    """What the daemon is told of it. The token is there from now on."""
    if place.port is None and not place.head:
        return {}
    if place.head:
        heads = [addresses.parse(one) for one in place.head.split(",")]
        node_host = place.node_host or _source(heads[0])
        if not place.token and not place.token_file and token_files.find(os.environ) is None:
            raise exceptions.AuthenticationError(
                f"the head at {place.head} lets nobody in without a token; name its file by --token-file, or set "
                f"{token_files.TOKEN_VARIABLE} or {token_files.FILE_VARIABLE}"
            )
    else:
        node_host = place.node_host or (place.host if place.host not in ANYWHERE else _source(_OUTSIDE))
        if not place.token:
            token_files.ensure(place.token_file)
    tls_directory = place.tls_directory or os.environ.get(own_tls.DIRECTORY_VARIABLE, "")
    if tls_directory:
        tls_directory = os.path.abspath(tls_directory)
        own_tls.contexts(tls_directory)  # an error of it is told here
    return {
        "later_imports": [*start.LATER_IMPORTS, *_LATER_IMPORTS],
        "listen": str(addresses.Address(place.host or node_host, place.port or 0)),
        "node_host": node_host,
        "listens": place.listens,
        "token_file": place.token_file,
        **({"token": place.token} if place.token else {}),
        "tls_directory": tls_directory,
        "head": place.head,
        "join_s": config.node_join_s,
        "head_lost_s": config.head_lost_s,
        "health": {
            "period_s": config.health_check_period_s,
            "threshold": config.health_check_failure_threshold,
            "timeout_s": config.health_check_timeout_s,
            "reconnect_s": config.node_reconnect_s,
        },
    }


def _source(other: addresses.Address) -> str:
    try:
        return addresses.source_towards(other)
    except OSError as error:
        raise exceptions.UmbelSystemError(
            f"this machine has no address from which to reach {other}: {error.strerror}; name one by --node-ip-address"
        ) from error
