"""The `umbel` command with plugins of every sort installed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import umbel
from umbel.cli import group, planned

ROOT = Path(__file__).resolve().parents[4]

HEADER = "from umbel import spi\nfrom umbel.hookspecs import hookimpl\n"
PLUGINS = {
    "greeter": f"""{HEADER}
def make():
    import click
    return click.Command("hello", callback=lambda: click.echo("hello"))
@hookimpl
def umbel_commands():
    return [spi.CommandDescriptor("hello", make, summary="Greet [somebody]")]
""",
    "lost": f"""{HEADER}
@hookimpl
def umbel_commands():
    return [
        spi.CommandDescriptor("lost", "not_there_at_all:make", summary="Never made"),
        spi.CommandDescriptor("text", lambda: "text", summary="Not a command"),
    ]
""",
    "broken": "import not_there_at_all",
}
TWIN = PLUGINS["greeter"]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path with these plugins, and no others: what the machine has installed is hidden."""
    monkeypatch.delenv("UMBEL_PLUGINS", raising=False)
    monkeypatch.setenv("COLUMNS", "120")
    for name, source in PLUGINS.items():
        install(tmp_path, name, source)
    original = group.registry.discovery.find_plugins
    monkeypatch.setattr(group.registry.discovery, "find_plugins", lambda: original([str(tmp_path)]))
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def install(folder: Path, name: str, source: str) -> None:
    module = f"test_cli_{folder.name}_{name}"
    (folder / f"{module}.py").write_text(source)
    about = folder / f"umbel_{name}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: umbel-{name}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[umbel.plugins]\n{name} = {module}\n")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(group.make(), list(arguments), prog_name="umbel")


def test_version() -> None:
    assert run("--version").output == f"umbel {umbel.__version__}\n"


def test_help_lists_the_commands_of_plugins_and_imports_none(installed: Path) -> None:
    done = run("--help")
    assert done.exit_code == 0
    assert [line.split(maxsplit=1) for line in done.output.partition("Commands:\n")[2].splitlines()] == [
        ["down", "End a cluster that `umbel up` has started"],
        ["drain-node", "Have a node take no more work, and end"],
        ["exec", "Run a command where a cluster's head is"],
        ["explain", "Why something waits, and what would help"],
        ["get", "All that is known of one task, actor, ..."],
        ["get-head-ip", "Where a cluster's head is"],
        ["get-worker-ips", "Where its other nodes are"],
        ["health-check", "Whether a cluster is alive, as an exit code"],
        ["hello", "Greet [somebody]"],
        ["kill-actor", "End a named actor"],
        ["list", "Tasks, actors, objects, workers, ..."],
        ["logs", "What workers have printed"],
        ["lost", "Never made"],
        ["memory", "Who holds what in a session's memory"],
        ["metrics", "What a session measures, and a board of it"],
        ["plugins", "What plugins are installed"],
        ["sessions", "Nodes that run on this machine"],
        ["stack", "What workers run, and where they stand"],
        ["start", "Start a node that programs share"],
        ["status", "What a node has and does"],
        ["stop", "End such a node"],
        ["summary", "How many tasks, actors, objects"],
        ["text", "Not a command"],
        ["timeline", "What ran when, as a file for Perfetto"],
        ["tls", "Certificates for a cluster that talks by TLS"],
        ["token", "A role's token for a node that listens"],
        ["up", "Start a cluster that launches its nodes"],
    ]


def test_command_of_a_plugin_runs(installed: Path) -> None:
    done = run("hello")
    assert (done.exit_code, done.stdout) == (0, "hello\n")


def test_broken_plugin_costs_one_line_on_standard_error(installed: Path) -> None:
    (line,) = run("hello").stderr.splitlines()
    assert line.startswith(
        "umbel: plugin 'broken' of umbel-broken 1.0 is off: importing it failed: ModuleNotFoundError"
    )


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("lost", "importing 'not_there_at_all:make' failed: ModuleNotFoundError"),
        ("text", "its factory must return a click.Command, got 'text'"),
    ],
)
def test_command_that_cannot_be_made_says_why(installed: Path, command: str, reason: str) -> None:
    done = run(command)
    assert done.exit_code == 1
    assert f"Error: command '{command}' of umbel-lost 1.0 (entry point lost = " in done.stderr
    assert reason in done.stderr
    assert isinstance(done.exception, SystemExit)


def test_unknown_command_is_a_usage_error(installed: Path) -> None:
    done = run("nonsense")
    assert done.exit_code == 2
    assert "No such command 'nonsense'" in done.stderr


def test_list_shows_every_plugin_and_why_it_is_off(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UMBEL_PLUGINS", "-greeter")
    rows = {row["name"]: row for row in json.loads(run("plugins", "list", "--json").stdout)}
    assert list(rows) == ["builtin", "broken", "greeter", "lost"]
    assert [row["state"] for row in rows.values()] == ["active", "broken", "blocked", "active"]
    assert rows["builtin"]["version"] == umbel.__version__
    assert rows["builtin"]["hooks"] == [
        "umbel_accelerators",
        "umbel_collectives",
        "umbel_commands",
        "umbel_control_storages",
        "umbel_engines",
        "umbel_node_launchers",
        "umbel_runtime_envs",
        "umbel_schedulers",
        "umbel_stores",
        "umbel_tensor_transports",
    ]
    assert rows["lost"] == {
        "name": "lost",
        "distribution": "umbel-lost",
        "version": "1.0",
        "state": "active",
        "reason": "",
        "hooks": ["umbel_commands"],
        "provides": {"umbel_commands": ["lost", "text"]},
    }
    assert rows["greeter"]["reason"] == "UMBEL_PLUGINS blocks it; remove '-greeter' to use it"


def test_table_shows_the_same(installed: Path) -> None:
    done = run("plugins", "list")
    assert done.exit_code == 0
    lines = [line.split() for line in done.stdout.splitlines()]
    assert " ".join(lines[0]) == "Plugin Distribution Version State Hooks: names, or why it is off"
    assert ["lost", "umbel-lost", "1.0", "active", "commands:", "lost,", "text"] in lines
    assert ["schedulers:", "hybrid,", "spread"] in lines
    assert "No module named 'not_there_at_all'" in " ".join(done.stdout.split())


def test_conflict_is_shown_and_costs_that_command_only(installed: Path) -> None:
    install(installed, "twin", TWIN)
    rows = {row["name"]: row for row in json.loads(run("plugins", "list", "--json").stdout)}
    assert (rows["greeter"]["state"], rows["twin"]["state"]) == ("conflict", "conflict")
    assert rows["greeter"]["reason"].startswith("command 'hello' is also provided by umbel-twin 1.0 (entry point twin")
    assert "(two plugins provide it)" in run("--help").output
    done = run("hello")
    assert done.exit_code == 1
    assert "two plugins provide a command called 'hello': umbel-greeter 1.0" in done.stderr
    assert run("plugins", "list").exit_code == 0


@pytest.mark.parametrize("arguments", [("plugins", "list"), ("hello",), ("--help",)])
def test_selection_that_makes_no_sense_is_an_error(
    installed: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.setenv("UMBEL_PLUGINS", "-a,a")
    done = run(*arguments)
    assert done.exit_code == 1
    assert "UMBEL_PLUGINS must be names to allow" in done.stderr


@pytest.mark.parametrize("name", planned.PLANNED)
def test_command_of_ray_that_is_missing_says_what_to_use_instead(name: str) -> None:
    for arguments in (
        (),
        ("submit", "--address", "http://x:8265", "--", "python", "a.py"),
        ("--help",),
        ("file.yaml", "-n", "x"),
    ):
        result = run(name, *arguments)
        assert result.exit_code == 1
        assert result.output.startswith(f"Error: `umbel {name}` is not in this version of Umbel: ")
    assert f"`{name}`" in (ROOT / "README.md").read_text(), "README.md lists what is missing"


def test_command_that_nobody_knows_is_still_an_error_of_usage() -> None:
    result = run("jbo")
    assert result.exit_code == 2
    assert "No such command 'jbo'" in result.output


@pytest.mark.parametrize("name", planned.PLANNED_OF_START)
def test_option_of_rays_start_that_is_missing_says_what_to_use_instead(name: str) -> None:
    for arguments in ((name,), ("--head", f"{name}=1"), (name, "1", "--address", "x:1")):
        result = run("start", *arguments)
        assert result.exit_code == 2
        assert f"Error: `umbel start {name}` is not in this version of Umbel: " in result.output
    assert f"`{name}`" in (ROOT / "README.md").read_text(), "README.md lists what is missing"


def test_option_of_start_that_nobody_knows_is_told_with_what_is_like_it() -> None:
    result = run("start", "--haed")
    assert result.exit_code == 2
    assert "--head" in result.output
