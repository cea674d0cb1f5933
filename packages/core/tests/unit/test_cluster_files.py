"""Files that describe clusters, and what `umbel up --dry-run` says of them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click.testing
import pytest

from umbel import exceptions
from umbel._client import cluster_files
from umbel._model.resources import ResourceSet
from umbel.cli import up

WHOLE: dict[str, Any] = {
    "cluster_name": "mine",
    "max_workers": 10,
    "upscaling_speed": 2,
    "idle_timeout_minutes": 1.5,
    "provider": {"type": "local", "region": "here"},
    "available_node_types": {
        "small": {"resources": {"CPU": 4}, "min_workers": 1},
        "large": {
            "resources": {"CPU": 64, "licence": 0.5},
            "labels": {"zone": "a"},
            "node_config": {"image": "x"},
            "max_workers": 2,
            "idle_timeout_s": 30,
        },
    },
}
SMALL = {"small": {"resources": {"CPU": 4}, "max_workers": 3}}
YAML = """
cluster_name: mine
max_workers: 10
upscaling_speed: 2
idle_timeout_minutes: 1.5
provider: {type: local, region: here}
available_node_types:
  small: {resources: {CPU: 4}, min_workers: 1}
  large:
    resources: {CPU: 64, licence: 0.5}
    labels: {zone: a}
    node_config: {image: x}
    max_workers: 2
    idle_timeout_s: 30
"""
TOML = """
cluster_name = "mine"
max_workers = 10
upscaling_speed = 2
idle_timeout_minutes = 1.5
provider = {type = "local", region = "here"}
[available_node_types]
small = {resources = {CPU = 4}, min_workers = 1}
[available_node_types.large]
resources = {CPU = 64, licence = 0.5}
labels = {zone = "a"}
node_config = {image = "x"}
max_workers = 2
idle_timeout_s = 30
"""


def written(directory: Path, text: str, name: str = "cluster.json") -> str:
    (directory / name).write_text(text)
    return str(directory / name)


def test_file_says_types_limits_and_launcher() -> None:
    file = cluster_files.parsed(WHOLE, "c.json")
    assert (file.name, file.launcher, file.launcher_config) == ("mine", "local", {"region": "here"})
    settings = file.settings
    assert (settings.max_workers, settings.upscaling_speed, settings.idle_timeout_s) == (10, 2, 90.0)
    small, large = settings.node_types
    assert (small.name, small.min_workers, small.max_workers, small.idle_timeout_s) == ("small", 1, 10, None)
    assert (large.max_workers, large.labels, large.idle_timeout_s) == (2, {"zone": "a"}, 30)
    assert file.specs["large"].config == {"image": "x"}
    assert file.specs["large"].resources == ResourceSet.from_floats({"CPU": 64, "licence": 0.5})


def test_limit_of_the_cluster_is_the_sum_of_its_types() -> None:
    assert cluster_files.parsed({"available_node_types": SMALL}, "c.json").settings.max_workers == 3


def test_json_and_toml_say_the_same(tmp_path: Path) -> None:
    wanted = cluster_files.parsed(WHOLE, "")
    assert cluster_files.read(written(tmp_path, json.dumps(WHOLE))) == wanted
    if sys.version_info >= (3, 11):
        assert cluster_files.read(written(tmp_path, TOML, "cluster.toml")) == wanted


def test_yaml_says_the_same(tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    assert cluster_files.read(written(tmp_path, YAML, "cluster.yaml")) == cluster_files.parsed(WHOLE, "")


def changed(**values: Any) -> dict[str, Any]:
    return {"available_node_types": SMALL, **values}


def with_type(**values: Any) -> dict[str, Any]:
    return {"available_node_types": {"small": {**SMALL["small"], **values}}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "c.json must be a mapping of names, got []; correct it"),
        ({}, "c.json: available_node_types must be a mapping of names, got nothing; correct it"),
        (changed(max_worker=3), "got max_worker; remove max_worker"),
        (
            changed(docker={"image": "x"}),
            "remove docker (docker: how a machine is set up is for its launcher to know, by node_config)",
        ),
        (changed(provider={}), "c.json: provider.type must be the name of a node launcher, as 'local', got nothing"),
        (changed(idle_timeout_minutes="5"), "c.json: idle_timeout_minutes must be a number, got '5'"),
        (changed(max_workers="many"), "c.json: max_workers must be a whole number >= 0, got 'many'"),
        (changed(cluster_name=7), "c.json: cluster_name must be a name of at most 40 letters, digits, - and _, got 7"),
        (changed(cluster_name="../x"), "c.json: cluster_name must be a name of at most 40"),
        (
            changed(head_node_type="large"),
            "c.json: head_node_type must be one of available_node_types, small, got 'large'",
        ),
        (changed(auth={"ssh_users": "x"}), "c.json: auth may have ssh_user, ssh_private_key, ssh_port, got ssh_users"),
        (with_type(ressources={}), "c.json: available_node_types.small may have resources, labels, node_config,"),
        (
            with_type(resources={"CPU": -1}),
            "c.json: available_node_types.small: resource 'CPU' must be a number >= 0, got -1",
        ),
        (with_type(labels={"zone": 1}), "c.json: available_node_types.small: labels must be a dict of strings"),
        (
            with_type(min_workers=9),
            "c.json: node_types['small'].min_workers must be at most its max_workers of 3, got 9",
        ),
        (
            {"available_node_types": {"small": {"resources": {"CPU": 1}}}},
            "c.json: available_node_types.small.max_workers must be a whole number >= 0, and is not there",
        ),
    ],
)
def test_what_is_wrong_is_named(content: Any, message: str) -> None:
    with pytest.raises(exceptions.InvalidOption) as caught:
        cluster_files.parsed(content, "c.json")
    assert message in str(caught.value)


def test_files_that_cannot_be_read_say_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(exceptions.InvalidOption, match=r"cluster.json is not JSON: Expecting value"):
        cluster_files.read(written(tmp_path, "x"))
    with pytest.raises(
        exceptions.InvalidOption, match=r"must be called \*.json, \*.toml or \*.yaml, got '.*cluster.ini'"
    ):
        cluster_files.read(written(tmp_path, "", "cluster.ini"))
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(exceptions.PluginError, match=r"without PyYAML; install umbel\[yaml\]"):
        cluster_files.read(written(tmp_path, "", "cluster.yaml"))


def run(*arguments: str) -> click.testing.Result:
    return click.testing.CliRunner().invoke(up.make(), arguments)


def test_dry_run_says_what_would_be_launched_and_what_not(tmp_path: Path) -> None:
    path = written(tmp_path, json.dumps({**WHOLE, "provider": {"type": "local"}}))
    done = run(path, "--dry-run", "--demand", '100 x {"CPU": 1}', "--demand", '{"GPU": 1}')
    assert (done.exit_code, done.stdout.splitlines()) == (
        0,
        [
            "launches 1 of small: min_workers is 1",
            "launches 2 of large: 64 x {CPU: 1}, which waits; 32 x {CPU: 1}, which waits",
            "no room for {GPU: 1}:",
            "  small: a node of it has {GPU: 0}, less than {GPU: 1}",
            "  large: a node of it has {GPU: 0}, less than {GPU: 1}",
        ],
    )
    told = json.loads(run(path, "--dry-run", "--demand", '{"GPU": 1}', "--json").stdout)
    assert told["launches"] == [{"type": "small", "count": 1, "reason": "min_workers is 1"}]
    assert [one["kind"] for one in told["unmet"][0]["looked_at"]] == ["too small", "too small"]


def test_demand_is_for_a_dry_run(tmp_path: Path) -> None:
    done = run(written(tmp_path, json.dumps(changed())), "--demand", '{"CPU": 1}')
    assert done.exit_code == 1
    assert "--demand and --json are for --dry-run" in done.stderr


def test_head_has_a_type_of_which_no_others_are_launched_unless_that_is_said() -> None:
    types = {**SMALL, "head": {"resources": {"CPU": 0}, "labels": {"zone": "a"}}}
    file = cluster_files.parsed({"available_node_types": types, "head_node_type": "head"}, "c.json")
    assert [one.name for one in file.settings.node_types] == ["small"]
    assert file.head is not None
    assert (file.head.resources.is_empty, file.head.labels, file.settings.max_workers) == (True, {"zone": "a"}, 3)
    more = cluster_files.parsed({"available_node_types": SMALL, "head_node_type": "small"}, "c.json")
    assert [one.name for one in more.settings.node_types] == ["small"]


def test_what_is_said_of_keys_goes_to_the_launcher() -> None:
    content = changed(provider={"type": "x", "worker_ips": ["a"]}, auth={"ssh_user": "me", "ssh_port": 2222})
    file = cluster_files.parsed(content, "c.json")
    assert file.launcher_config == {"worker_ips": ["a"], "ssh_user": "me", "ssh_port": 2222}


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        (changed(provider={"type": "nowhere"}), (), "nowhere"),
        (
            changed(),
            ("--demand", "CPU"),
            "--demand must be '{\"CPU\": 4}' or '100 x {\"CPU\": 1}', got 'CPU'; correct it",
        ),
        (changed(), ("--demand", '{"CPU": -1}'), "resource 'CPU' must be a number >= 0, got -1"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, content: Any, arguments: tuple[str, ...], message: str) -> None:
    done = run(written(tmp_path, json.dumps(content)), "--dry-run", *arguments)
    assert done.exit_code == 1
    assert message in done.stderr
