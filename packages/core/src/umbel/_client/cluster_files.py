"""Files that describe a cluster which grows and shrinks: which launcher, which types of nodes, within which limits.

The keys are Ray's, as far as they say something here: JSON and TOML by Python itself, YAML with PyYAML (`umbel[yaml]`). What is
not known is an error that names what is, so nothing that was written is silently left out.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from umbel import exceptions, spi
from umbel._autoscaling import node_types
from umbel._client import own_node
from umbel._model import resources

_KEYS: Final = (
    "cluster_name", "max_workers", "upscaling_speed", "idle_timeout_minutes", "provider", "auth", "head_node_type",
    "available_node_types",
)  # fmt: skip
_NAME: Final = re.compile(r"[A-Za-z0-9][-_A-Za-z0-9]{0,39}")  # it is a label's value, and part of files' names
_AUTH_KEYS: Final = ("ssh_user", "ssh_private_key", "ssh_port")
_TYPE_KEYS: Final = ("resources", "labels", "node_config", "min_workers", "max_workers", "idle_timeout_s")
# Of Ray's files: how machines are set up, which is a launcher's affair.
_ELSEWHERE: Final = frozenset({
    "cluster_synced_files", "docker", "file_mounts", "file_mounts_sync_continuously", "head_setup_commands",
    "head_start_ray_commands", "initialization_commands", "metadata", "rsync_exclude", "rsync_filter", "setup_commands",
    "worker_setup_commands", "worker_start_ray_commands",
})  # fmt: skip


class ClusterFile(NamedTuple):
    """launcher: its plugin's name; launcher_config: what else is said of it. specs: of each type, by its name. head: of the
    head's type, None where none is named. content: as it was read."""

    name: str
    launcher: str
    launcher_config: Mapping[str, Any]
    settings: node_types.Settings
    specs: Mapping[str, spi.NodeSpec]
    head: spi.NodeSpec | None
    content: Mapping[str, Any]


def read(path: str) -> ClusterFile:
    """Raises OSError, InvalidOption for what is wrong in it, PluginError for YAML without PyYAML."""
    return parsed(_content(path), path)


def _content(path: str) -> Any:
    kind = os.path.splitext(path)[1].lower()
    if kind not in (".json", ".toml", ".yaml", ".yml"):
        raise exceptions.InvalidOption(
            f"a cluster's file must be called *.json, *.toml or *.yaml, got {path!r}; rename it", option="path"
        )
    with open(path, encoding="utf-8") as file:
        text = file.read()
    load: Callable[[str], Any] = json.loads
    if kind == ".toml":
        if sys.version_info < (3, 11):
            raise exceptions.InvalidOption(
                f"{path} cannot be read by Python {sys.version.split()[0]}, which has no TOML; use JSON or YAML",
                option="path",
            )
        load = importlib.import_module("tomllib").loads
    elif kind != ".json":
        try:
            load = importlib.import_module("yaml").safe_load
        except ImportError as error:
            raise exceptions.PluginError(
                f"{path} cannot be read without PyYAML; install umbel[yaml], or write it in JSON or TOML"
            ) from error
    try:
        return load(text)
    except Exception as error:  # each format has its own
        raise exceptions.InvalidOption(f"{path} is not {kind[1:].upper()}: {error}", option="path") from error


def parsed(content: Any, path: str) -> ClusterFile:
    """content: as read from a file. Raises InvalidOption."""
    top = _mapping(content, path)
    _known(top, _KEYS, path)
    provider = dict(_mapping(top.get("provider", {"type": "local"}), f"{path}: provider"))
    auth = _mapping(top.get("auth", {}), f"{path}: auth")
    _known(auth, _AUTH_KEYS, f"{path}: auth")
    provider |= auth
    launcher = provider.pop("type", None)
    if not isinstance(launcher, str) or not launcher:
        raise _wrong(f"{path}: provider.type", "the name of a node launcher, as 'local'", launcher)
    listed = _mapping(top.get("available_node_types"), f"{path}: available_node_types")
    most = top.get("max_workers")
    head_type = top.get("head_node_type")
    if head_type is not None and head_type not in listed:
        raise _wrong(
            f"{path}: head_node_type", f"one of available_node_types, {', '.join(map(str, listed))}", head_type
        )
    types, specs = [], {}
    for name, told in listed.items():
        where = f"{path}: available_node_types.{name}"
        made, specs[str(name)] = _node_type(str(name), _mapping(told, where), where, 0 if name == head_type else most)
        if name != head_type or made.max_workers:  # as in Ray, no others are like the head unless that is said
            types.append(made)
    settings = node_types.Settings(
        tuple(types),
        sum(one.max_workers for one in types) if most is None else most,
        top.get("upscaling_speed", node_types.UPSCALING_SPEED),
        _minutes(top.get("idle_timeout_minutes"), path),
    )
    name = top.get("cluster_name", "default")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise _wrong(f"{path}: cluster_name", "a name of at most 40 letters, digits, - and _", name)
    try:
        head = specs[head_type] if head_type is not None else None
        return ClusterFile(name, launcher, provider, node_types.checked(settings), specs, head, top)
    except exceptions.InvalidOption as error:
        raise exceptions.InvalidOption(f"{path}: {error}", option="path") from error


def _node_type(name: str, told: Mapping[str, Any], where: str, most: Any) -> tuple[node_types.NodeType, spi.NodeSpec]:
    _known(told, _TYPE_KEYS, where)
    try:
        amounts = resources.ResourceSet.from_floats(_mapping(told.get("resources"), f"{where}.resources"))
        labels = own_node.labels_of(told.get("labels"))
    except (exceptions.UmbelError, TypeError, ValueError) as error:
        raise exceptions.InvalidOption(f"{where}: {error}", option="path") from error
    limit = told.get("max_workers", most)
    if limit is None:
        raise exceptions.InvalidOption(
            f"{where}.max_workers must be a whole number >= 0, and is not there, nor is max_workers of the cluster; add one",
            option="path",
        )
    made = node_types.NodeType(name, amounts, limit, told.get("min_workers", 0), labels, told.get("idle_timeout_s"))
    config = _mapping(told.get("node_config", {}), f"{where}.node_config")
    return made, spi.NodeSpec(name, amounts, labels, config)


def _minutes(value: Any, path: str) -> float:
    if value is None:
        return node_types.IDLE_TIMEOUT_S
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _wrong(f"{path}: idle_timeout_minutes", "a number", value)
    return 60.0 * value


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _wrong(where, "a mapping of names", value)
    return value


def _known(told: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    unknown = sorted(map(str, told.keys() - set(known)))
    if not unknown:
        return
    elsewhere = [one for one in unknown if one in _ELSEWHERE]
    advice = f"remove {', '.join(unknown)}"
    if elsewhere:
        advice += f" ({', '.join(elsewhere)}: how a machine is set up is for its launcher to know, by node_config)"
    raise exceptions.InvalidOption(
        f"{where} may have {', '.join(known)}, got {', '.join(unknown)}; {advice}", option="path"
    )


def _wrong(where: str, wanted: str, value: Any) -> exceptions.InvalidOption:
    got = "nothing" if value is None else repr(value)
    return exceptions.InvalidOption(f"{where} must be {wanted}, got {got}; correct it", option="path")
