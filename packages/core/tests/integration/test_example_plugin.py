"""The example plugin as its users meet it: both wheels in a fresh environment, chosen by name, and put to the suite."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[4]
EXAMPLE = ROOT / "examples" / "plugins" / "umbel-largest-first"
PYTHON_LINES_MAX = 60  # so that it stays an example of how little a plugin takes

# Making an environment, building two wheels and installing them takes 20 s, and several times that on a busy machine.
pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]

# A task of one CPU waits, then one of two, while both CPUs are held. Prints which of them started first after that.
PROGRAM = """
import os, sys, time
import umbel

@umbel.remote(num_cpus=2, resources={"hold": 1})  # not the needs of `large`, which would get its worker as it is
def hold(path):
    while not os.path.exists(path):
        time.sleep(0.01)

@umbel.remote
def started(name):
    return time.monotonic(), name

def wait_until(is_so):
    deadline = time.monotonic() + 30
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.01)

if __name__ == "__main__":
    scheduler = sys.argv[2] if len(sys.argv) > 2 else None
    with umbel.init(num_cpus=2, resources={"hold": 1}, scheduler=scheduler):
        held = hold.remote(sys.argv[1])
        wait_until(lambda: not umbel.available_resources().get("CPU"))
        small = started.remote("small")
        wait_until(lambda: len(umbel.explain()) == 1)  # so that it is the older one, whatever the driver sends first
        large = started.options(num_cpus=2).remote("large")
        wait_until(lambda: len(umbel.explain()) == 2)
        open(sys.argv[1], "w").close()
        print(min(umbel.get([small, large]))[1])
"""

# An actor of a program on the head, of which all is free, in a cluster with a smaller node. Prints where it lives.
ACTOR = """
import sys
import umbel
from umbel import cluster_utils

@umbel.remote(num_cpus=1)
class Resident:
    def node(self):
        return umbel.get_runtime_context().get_node_id()

if __name__ == "__main__":
    wanted = {"scheduler": sys.argv[1]}
    nodes = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 4, **wanted})
    small = nodes.add_node(num_cpus=2, **wanted)
    with umbel.init(address=nodes.address):
        home = umbel.get(Resident.remote().node.remote())
        print({nodes.head_node.node_id: "its creator's", small.node_id: "the fullest"}[home])
    nodes.shutdown()
"""


class Environment:
    """A virtual environment, and nothing of this one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.variables = {
            name: value for name, value in os.environ.items() if not name.startswith(("UMBEL_S", "UMBEL_PL", "PYTHON"))
        }

    def run(self, *command: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.folder / "bin" / command[0], *command[1:]],
            env={**self.variables, **variables},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    folder = tmp_path_factory.mktemp("example") / "venv"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=120)
    made = Environment(folder)
    done = made.run("python", "-m", "pip", "install", "-q", ROOT / "packages" / "core", EXAMPLE, "pytest>=8.2")
    assert done.returncode == 0, done.stdout + done.stderr
    return made


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return path


def test_example_is_short() -> None:
    lines = [line for path in EXAMPLE.rglob("*.py") for line in path.read_text().splitlines()]
    assert len(lines) < PYTHON_LINES_MAX


def test_command_lists_it(environment: Environment) -> None:
    done = environment.run("umbel", "plugins", "list", "--json")
    assert done.returncode == 0, done.stderr
    builtin, example = json.loads(done.stdout)
    assert (builtin["name"], builtin["distribution"], builtin["state"]) == ("builtin", "umbel", "active")
    assert example == {
        "name": "largest-first",
        "distribution": "umbel-largest-first",
        "version": "0.1.0",
        "state": "active",
        "reason": "",
        "hooks": ["umbel_schedulers"],
        "provides": {"umbel_schedulers": ["largest-first"]},
    }


def test_policy_chosen_by_argument_decides(environment: Environment, program: Path, tmp_path: Path) -> None:
    done = environment.run("python", program, tmp_path / "go", "largest-first")
    assert done.stdout == "large\n", done.stderr


def test_policy_chosen_by_environment_decides(environment: Environment, program: Path, tmp_path: Path) -> None:
    done = environment.run("python", program, tmp_path / "go", UMBEL_SCHEDULER="largest-first")
    assert done.stdout == "large\n", done.stderr


def test_policy_that_is_installed_but_not_chosen_does_nothing(
    environment: Environment, program: Path, tmp_path: Path
) -> None:
    done = environment.run("python", program, tmp_path / "go")
    assert done.stdout == "small\n", done.stderr


def test_policy_that_is_blocked_cannot_be_chosen(environment: Environment, program: Path, tmp_path: Path) -> None:
    done = environment.run("python", program, tmp_path / "go", "largest-first", UMBEL_PLUGINS="-largest-first")
    assert done.returncode == 1
    assert "scheduler must be one of hybrid, spread, got 'largest-first'" in done.stderr


@pytest.mark.parametrize(("scheduler", "home"), [("largest-first", "the fullest"), ("hybrid", "its creator's")])
def test_policy_that_is_chosen_for_a_cluster_places_actors(
    environment: Environment, program: Path, scheduler: str, home: str
) -> None:
    program.write_text(ACTOR)
    done = environment.run("python", program, scheduler)
    assert done.stdout == f"{home}\n", done.stderr


def test_it_passes_the_conformance_suite(environment: Environment, tmp_path: Path) -> None:
    copied = shutil.copytree(EXAMPLE / "tests", tmp_path / "tests")  # away from this repository's settings of pytest
    done = environment.run("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", copied)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
