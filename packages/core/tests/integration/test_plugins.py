"""Plugins under a running program: good ones at work, bad ones out of the way."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HEADER = "from umbel import spi\nfrom umbel.hookspecs import hookimpl\n"
LIMIT_S = 50

RAISING = f"""{HEADER}
class Raising:
    def order(self, waiting):
        raise RuntimeError("out of order")
    def place(self, demand, view):
        return spi.eligible_nodes(demand, view).refusal
@hookimpl
def umbel_schedulers():
    return [spi.SchedulerDescriptor("raising", Raising)]
"""

WATCHING = f"""{HEADER}
class Watching:
    def order(self, waiting):
        with open(__file__ + ".seen", "a") as file:
            for one in waiting:
                print(one.is_actor, one.demand.strategy, file=file)
        return list(range(len(waiting)))
    def place(self, demand, view):
        return spi.eligible_nodes(demand, view).refusal
@hookimpl
def umbel_schedulers():
    return [spi.SchedulerDescriptor("watching", Watching)]
"""

STRATEGIES = """
import umbel
from umbel.util.scheduling_strategies import NodeAffinitySchedulingStrategy

@umbel.remote
def work():
    return 1

@umbel.remote
class Worker:
    def work(self):
        return 1

if __name__ == "__main__":
    with umbel.init(num_cpus=2):
        umbel.get(work.options(scheduling_strategy="SPREAD").remote())
        soft = NodeAffinitySchedulingStrategy("ab" * 28, soft=True)
        umbel.get(Worker.options(scheduling_strategy=soft).remote().work.remote())
"""

GANG = """
import umbel
from umbel.util import placement_group
from umbel.util.scheduling_strategies import PlacementGroupSchedulingStrategy

@umbel.remote
def work():
    return umbel.get_runtime_context().get_placement_group_id()

if __name__ == "__main__":
    with umbel.init(num_cpus=2):
        group = placement_group([{"CPU": 1}, {"CPU": 1}])
        inside = work.options(scheduling_strategy=PlacementGroupSchedulingStrategy(group)).remote()
        print(umbel.get(inside) == group.id.hex())
"""

NPU = f"""{HEADER}
import os
class Npus:
    resource_name = "NPU"
    visible_devices_variable = "NPU_VISIBLE_DEVICES"
    def detect_count(self): return 2
    def detect_type(self): return "N1"
    def labels(self): return {{}}
    def extra_resources(self): return {{"NPU-link": 1.0}}
    def validate_quantity(self, quantity): return None
    def get_visible_ids(self):
        text = os.environ.get(self.visible_devices_variable)
        return None if text is None else [one for one in text.split(",") if one]
    def set_visible_ids(self, ids):
        os.environ[self.visible_devices_variable] = ",".join(ids)
@hookimpl
def umbel_accelerators():
    return [spi.AcceleratorDescriptor("npu", Npus)]
"""

ADD = """
import umbel

@umbel.remote
def add(a, b):
    return a + b

if __name__ == "__main__":
    with umbel.init(num_cpus=2):
        print(umbel.get([add.remote(index, 1) for index in range(5)]))
"""

SEE = """
import os
import umbel

@umbel.remote
def see():
    return os.environ.get("NPU_VISIBLE_DEVICES")

if __name__ == "__main__":
    with umbel.init(num_cpus=2):
        total = umbel.cluster_resources()
        print({name: total.get(name) for name in ("NPU", "NPU-link", "accelerator_type:N1")})
        print(umbel.get(see.options(resources={"NPU": 2}).remote()), umbel.get(see.remote()))
"""


class Installed:
    """A folder of plugins that programs have on their path."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, name: str, source: str) -> None:
        (self.folder / f"{name}_plugin.py").write_text(source)
        about = self.folder / f"umbel_{name}-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: umbel-{name}\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text(f"[umbel.plugins]\n{name} = {name}_plugin\n")

    def run(self, program: str, **variables: str) -> subprocess.CompletedProcess[str]:
        path = self.folder / "program.py"
        path.write_text(program)
        inherited = {name: value for name, value in os.environ.items() if name != "UMBEL_PLUGINS"}
        python_path = os.pathsep.join([str(self.folder), *filter(None, [os.environ.get("PYTHONPATH")])])
        return subprocess.run(
            [sys.executable, str(path)],
            env={**inherited, "PYTHONPATH": python_path, **variables},
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )


@pytest.fixture
def installed(tmp_path: Path) -> Installed:
    return Installed(tmp_path)


SUMS = "[1, 2, 3, 4, 5]\n"


@pytest.mark.slow
def test_broken_plugin_does_not_keep_a_program_from_running(installed: Installed) -> None:
    installed.add("broken", "import not_there_at_all")
    done = installed.run(ADD)
    assert (done.returncode, done.stdout) == (0, SUMS), done.stderr


@pytest.mark.slow
def test_policy_that_raises_is_switched_off_with_one_warning(installed: Installed) -> None:
    installed.add("raising", RAISING)
    done = installed.run(ADD, UMBEL_SCHEDULER="raising")
    assert (done.returncode, done.stdout) == (0, SUMS), done.stderr
    assert done.stderr.count("scheduler 'raising' is switched off: order() raised RuntimeError: out of order") == 1


@pytest.mark.slow
def test_policy_sees_the_strategies_of_tasks_and_actors(installed: Installed) -> None:
    installed.add("watching", WATCHING)
    done = installed.run(STRATEGIES, UMBEL_SCHEDULER="watching")
    assert done.returncode == 0, done.stderr
    affinity = f"NodeAffinity(node_id='{'ab' * 28}', is_soft=True, spills_when_busy=False, fails_when_busy=False)"
    assert set((installed.folder / "watching_plugin.py.seen").read_text().splitlines()) == {
        "False SPREAD",
        f"True {affinity}",
    }


@pytest.mark.slow
def test_policy_orders_what_placement_groups_want(installed: Installed) -> None:
    installed.add("watching", WATCHING)
    done = installed.run(GANG, UMBEL_SCHEDULER="watching")
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
    assert "switched off" not in done.stderr
    assert set((installed.folder / "watching_plugin.py.seen").read_text().splitlines()) == {"False DEFAULT"}


@pytest.mark.slow
def test_unknown_policy_is_refused_before_anything_starts(installed: Installed) -> None:
    done = installed.run(ADD, UMBEL_SCHEDULER="hybird")
    assert done.returncode == 1
    assert done.stderr.strip().endswith(
        "scheduler must be one of hybrid, spread, got 'hybird'; install the plugin that provides it, or look at "
        "`umbel plugins list` for why it is off"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ({}, "{'NPU': 2.0, 'NPU-link': 1.0, 'accelerator_type:N1': 1.0}\n0,1 None\n"),
        ({"UMBEL_PLUGINS": "-npu"}, "{'NPU': None, 'NPU-link': None, 'accelerator_type:N1': None}\n"),
    ],
)
def test_devices_of_a_plugin_are_offered_and_shown_to_those_that_ask(
    installed: Installed, visible: dict[str, str], expected: str
) -> None:
    installed.add("npu", NPU)
    program = SEE if not visible else SEE.rpartition("        print(")[0]
    done = installed.run(program, **visible)
    assert (done.returncode, done.stdout) == (0, expected), done.stderr
