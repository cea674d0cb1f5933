"""Node launchers that take their time, or fail: a plug-in, with a real autoscaler and real daemons.

Its nodes are those of `local`. What it is asked for in one type waits for a file, as a cloud has one wait for its machines; of
another type it launches nothing. While another file is there it does not say what runs.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import drivers
import pytest
import scaling
from scaling import LATE_S, STORE, own_home

import umbel
from umbel._plugins import registry

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are found through /proc"),
    pytest.mark.timeout(180),
]

TIMEOUT_S = 120
PLUGIN = """
import os, time

from umbel import exceptions, spi
from umbel._client import local_launcher
from umbel.hookspecs import hookimpl


class Slow(local_launcher.LocalLauncher):
    def __init__(self, cluster, *, address, token_file, config):
        super().__init__(cluster, address=address, token_file=token_file, config={})
        self.gate = config["gate"]

    def launch(self, spec, count):
        if spec.type_name == "broken":
            raise RuntimeError("the cloud has no such machines")
        while spec.type_name.startswith("slow") and not os.path.exists(self.gate):
            time.sleep(0.02)
        return super().launch(spec, count)

    def running(self):
        while os.path.exists(self.gate + ".shut"):
            open(self.gate + ".asked", "w").close()
            time.sleep(0.02)
        return super().running()


@hookimpl
def umbel_node_launchers():
    return [spi.NodeLauncherDescriptor("slow", Slow, summary="for tests")]
"""


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with own_home() as directory:
        plugins = Path(directory) / "plugins"
        about = plugins / "slow-1.dist-info"
        about.mkdir(parents=True)
        (plugins / "slow_launcher.py").write_text(PLUGIN)
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: slow\nVersion: 1\n")
        (about / "entry_points.txt").write_text("[umbel.plugins]\nslow = slow_launcher\n")
        monkeypatch.syspath_prepend(str(plugins))
        registry.installed.cache_clear()  # other tests of this process have looked
        yield Path(directory)
        registry.installed.cache_clear()


@contextlib.contextmanager
def cluster(home: Path, **types: dict[str, Any]) -> Iterator[scaling.Up]:
    """Each type's nodes have a resource of its name; the launcher waits for the file `gate`."""
    made = {name: {"resources": {"CPU": 1, name: 1, **STORE}, "max_workers": 1, **one} for name, one in types.items()}
    head = {"resources": {"CPU": 1, **STORE}}
    provider = {"type": "slow", "gate": str(home / "gate")}
    try:
        with scaling.up(provider=provider, available_node_types={"head": head, **made}) as one:
            try:
                yield one
            finally:
                (home / "gate.shut").unlink(missing_ok=True)
    finally:
        (home / "gate").touch()


def needs(name: str) -> umbel.ObjectRef[str]:
    @umbel.remote(num_cpus=1, resources={name: 1})
    def node() -> str:
        return umbel.get_runtime_context().get_node_id()

    return node.remote()


def test_nodes_come_and_go_while_others_are_being_launched(home: Path) -> None:
    with cluster(home, slow={"min_workers": 1}, slow_too={"min_workers": 1}, quick={}) as made:
        drivers.wait_until(lambda: len(made.scaling()["coming"]) == 2, what="both to be launched at the same time")
        umbel.init(address=made.started.address)
        assert umbel.get(needs("quick"), timeout=LATE_S)
        late = needs("slow")
        coming = {one["type"]: one["for_s"] for one in made.scaling()["coming"]}
        assert coming.keys() == {"slow", "slow_too"}
        status = subprocess.run(
            [sys.executable, "-m", "umbel.cli", "status"], capture_output=True, text=True, timeout=TIMEOUT_S, check=True
        ).stdout
        assert re.search(r"is launching 1 of slow, for \d+ s: min_workers is 1", status), status
        made.until(0)  # what nothing needs any more goes, though the others have no answer
        (home / "gate").touch()
        assert umbel.get(late, timeout=LATE_S)
        assert not made.scaling()["coming"]


def test_nodes_are_ended_while_the_launcher_does_not_say_what_runs(home: Path) -> None:
    """Before: they stayed until it did."""
    with cluster(home, quick={}) as made:
        umbel.init(address=made.started.address)
        assert umbel.get(needs("quick"), timeout=LATE_S)
        (home / "gate.shut").touch()
        drivers.wait_until((home / "gate.asked").exists, what="the launcher to be asked")
        made.until(0)
        assert not made.scaling()["failures"]


def test_a_launch_that_raises_is_told_and_tried_again_later_and_holds_up_nobody(home: Path) -> None:
    with cluster(home, broken={}, quick={}) as made:
        umbel.init(address=made.started.address)
        never = needs("broken")
        (failure,) = drivers.wait_until(lambda: made.scaling()["failures"], what="the failure")
        assert failure["reason"] == "RuntimeError: the cloud has no such machines"
        assert failure["times"] == 1
        assert failure["retry_s"] > 0
        drivers.wait_until(
            lambda: (
                "could not be launched (RuntimeError: the cloud has no such machines); tried again in "
                in umbel.explain(never)
            ),
            what="the reason",
        )
        assert umbel.get(needs("quick"), timeout=LATE_S)
