"""Runtime environments with files and packages on nodes that have neither: real daemons, each with a directory of its own."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import drivers
import environment_files
import homes
import pytest

import umbel
from umbel import cluster_utils, exceptions
from umbel._base import token_files
from umbel._model import package_names
from umbel.util.scheduling_strategies import NodeAffinitySchedulingStrategy

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are found through /proc"),
    pytest.mark.timeout(120),
]

TIMEOUT_S = 60
THERE = {"there": 0.1}  # a resource that only the other node has


@pytest.fixture(scope="module")
def home() -> Iterator[str]:
    umbel.shutdown()
    with tempfile.TemporaryDirectory() as built, pytest.MonkeyPatch.context() as patch:
        patch.delenv("VIRTUAL_ENV", raising=False)
        with homes.own_home(
            UMBEL_NODE_RECONNECT_S="1", UMBEL_RUNTIME_ENV_PACKAGE_BYTES_MAX=str(100 << 20), UV_OFFLINE="1", UV_NO_CONFIG="1",
            UMBEL_RUNTIME_ENV_CACHE_DIR=f"{built}/cache", UV_CACHE_DIR=f"{built}/uv",
        ) as directory:  # fmt: skip
            yield directory


class Nodes:
    """A head without CPUs, and another node that has some, and a resource of its own."""

    def __init__(self) -> None:
        self.cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        assert self.cluster.head_node is not None
        self.head = self.cluster.head_node
        self.other = self.add("there")

    def add(self, resource: str) -> cluster_utils.ClusterNode:
        return self.cluster.add_node(num_cpus=2, resources={resource: 1})


@pytest.fixture(scope="module")
def nodes(home: str) -> Iterator[Nodes]:
    made = Nodes()
    try:
        made.cluster.connect()
        yield made
    finally:
        umbel.shutdown()
        made.cluster.shutdown()


@pytest.fixture
def own_nodes(home: str) -> Iterator[Nodes]:
    """A cluster that may be spoiled, with no driver yet."""
    umbel.shutdown()
    made = Nodes()
    try:
        yield made
    finally:
        umbel.shutdown()
        made.cluster.shutdown()


def get(reference: Any) -> Any:
    return umbel.get(reference, timeout=TIMEOUT_S)


def until_told(waiting: Any, words: str) -> str:
    """Why it waits, once these words are in that."""
    until_s = time.monotonic() + drivers.PATIENCE_S
    while words not in (told := str(umbel.explain(waiting))):
        assert time.monotonic() < until_s, f"{words!r} is not told: {told}"
        time.sleep(drivers.POLL_S)
    return told


def come(node: cluster_utils.ClusterNode) -> list[str]:
    """The packages that have come to a node, in turn."""
    log = Path(node.session_dir, "daemon.log").read_text()
    return [line.partition(" package ")[2].split()[0] for line in log.splitlines() if " has come from node " in line]


def drafts(node: cluster_utils.ClusterNode) -> list[Path]:
    return list(Path(node.session_dir, "packages").glob(".new-*"))


def project(directory: Path, value: Any) -> str:
    directory.mkdir()
    (directory / "own_module.py").write_text(f"VALUE = {value!r}\n")
    (directory / "data.txt").write_text(str(value))
    return str(directory)


@umbel.remote(resources=THERE)
def about() -> dict[str, Any]:
    return {
        "cwd": os.getcwd(),
        "files": {path.name: path.read_text() for path in Path().glob("*.txt")},
        "node": umbel.get_runtime_context().get_node_id(),
        "env_vars": dict(os.environ),
    }


@umbel.remote(resources=THERE)
def imported(name: str) -> Any:
    return __import__(name).VALUE


@umbel.remote(num_cpus=0, resources=THERE)
class Nothing:
    def do(self) -> None:
        pass


@umbel.remote
class Where:
    def server(self) -> int:
        """The fork server of its worker."""
        return os.getppid()


@umbel.remote
def server() -> int:
    return os.getppid()


def test_tasks_and_actors_of_an_environment_have_one_fork_server_on_each_node(nodes: Nodes, tmp_path: Path) -> None:
    env = {"working_dir": project(tmp_path / "s", 2)}
    options: dict[str, Any] = {"num_cpus": 0, "runtime_env": env}
    actor = Where.options(resources=THERE, **options).remote()
    there = {get(actor.server.remote()), get(server.options(resources=THERE, **options).remote())}
    assert len(there) == 1
    here = NodeAffinitySchedulingStrategy(nodes.head.node_id, soft=False)
    actor = Where.options(scheduling_strategy=here, **options).remote()
    here_too = {get(actor.server.remote()), get(server.options(scheduling_strategy=here, **options).remote())}
    assert len(here_too) == 1
    assert here_too != there


def test_a_working_directory_is_there_on_another_node(nodes: Nodes, tmp_path: Path) -> None:
    env = {"working_dir": project(tmp_path / "w", 1), "env_vars": {"GREETING": "hello"}}
    found = get(about.options(runtime_env=env).remote())
    assert found["node"] == nodes.other.node_id
    assert found["cwd"].startswith(nodes.other.session_dir)
    assert found["files"] == {"data.txt": "1"}
    assert found["env_vars"]["GREETING"] == "hello"
    assert get(imported.options(runtime_env=env).remote("own_module")) == 1


def test_modules_and_wheels_can_be_imported_on_another_node(nodes: Nodes, tmp_path: Path) -> None:
    (tmp_path / "own_package").mkdir()
    (tmp_path / "own_package" / "__init__.py").write_text("VALUE = 6\n")
    (tmp_path / "own_file.py").write_text("VALUE = 7\n")
    wheel = environment_files.wheel(tmp_path, "wheeled", body="VALUE = 8\n")
    env = {"py_modules": [tmp_path / "own_package", tmp_path / "own_file.py", wheel]}
    names = ("own_package", "own_file", "wheeled")
    assert [get(imported.options(runtime_env=env).remote(name)) for name in names] == [6, 7, 8]


@pytest.mark.parametrize("field", ["pip", "uv"])
def test_packages_are_installed_on_another_node(nodes: Nodes, tmp_path: Path, field: str) -> None:
    wheel = environment_files.wheel(tmp_path, f"tiny{field}", body="VALUE = 9\n")
    task = imported.options(runtime_env={field: [wheel]}).remote(f"tiny{field}")
    assert get(task) == 9


def test_an_actor_has_its_working_directory_on_another_node(nodes: Nodes, tmp_path: Path) -> None:
    @umbel.remote(resources=THERE, runtime_env={"working_dir": project(tmp_path / "w", 2)})
    class Reader:
        def read(self) -> tuple[str, str]:
            return Path("data.txt").read_text(), umbel.get_runtime_context().get_node_id()

    assert get(Reader.remote().read.remote()) == ("2", nodes.other.node_id)


def test_a_hook_runs_on_another_node(nodes: Nodes) -> None:
    def hook() -> None:
        os.environ["HOOKED"] = str(os.getpid())

    found = get(about.options(runtime_env={"worker_process_setup_hook": hook}).remote())
    assert found["node"] == nodes.other.node_id and found["env_vars"]["HOOKED"]


def test_a_large_package_arrives_whole(nodes: Nodes, tmp_path: Path) -> None:
    data = os.urandom(1 << 20) * 48
    (tmp_path / "large.bin").write_bytes(data)

    @umbel.remote(resources=THERE, runtime_env={"working_dir": str(tmp_path)})
    def digest() -> str:
        return hashlib.sha256(Path("large.bin").read_bytes()).hexdigest()

    assert get(digest.remote()) == hashlib.sha256(data).hexdigest()
    assert drafts(nodes.other) == []


def test_a_package_larger_than_the_node_takes_is_refused_there(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This process allows more than the nodes do."""
    monkeypatch.setenv("UMBEL_RUNTIME_ENV_PACKAGE_BYTES_MAX", str(200 << 20))
    with open(tmp_path / "large.bin", "wb") as file:
        file.truncate(120 << 20)
    with pytest.raises(exceptions.RuntimeEnvSetupError) as caught:
        get(about.options(runtime_env={"working_dir": str(tmp_path)}).remote())
    assert f"on node {nodes.other.node_id}: the package umbel-package://" in str(caught.value)
    assert "has 120.0 MiB, allowed on this node are 100.0 MiB; leave files out" in str(caught.value)
    assert drafts(nodes.other) == []


def test_a_package_comes_once_whoever_wants_it(nodes: Nodes, tmp_path: Path) -> None:
    """Four environments that share it, and tasks and an actor in each."""
    working_dir = project(tmp_path / "w", os.urandom(4).hex())
    before = len(come(nodes.other))

    @umbel.remote(num_cpus=0, resources=THERE)
    class Reader:
        def read(self) -> str:
            return Path("data.txt").read_text()

    kept, told = [], []
    for number in range(4):
        (tmp_path / f"own_{number}.py").write_text("")
        env = {"working_dir": working_dir, "py_modules": [tmp_path / f"own_{number}.py"]}
        kept.append(Reader.options(runtime_env=env).remote())
        told += [kept[-1].read.remote(), *(about.options(runtime_env=env).remote() for _ in range(2))]
    found = get(told)
    shown = [one if isinstance(one, str) else one["files"]["data.txt"] for one in found]
    assert len(set(shown)) == 1
    new = come(nodes.other)[before:]
    assert len(new) == len(set(new)) == 5


def test_a_package_that_nobody_has_says_who_was_asked(nodes: Nodes) -> None:
    uri = f"{package_names.SCHEME}{'0' * 32}"
    with pytest.raises(exceptions.RuntimeEnvSetupError) as caught:
        get(about.options(runtime_env={"working_dir": uri}).remote())
    text = str(caught.value)
    assert f"on node {nodes.other.node_id}: the package {uri} of the environment is not there" in text
    assert f"node {nodes.head.node_id}: it does not have it" in text and "give the local path" in text


def test_a_failed_build_on_another_node_fails_its_tasks_with_the_output_and_no_others(
    nodes: Nodes, tmp_path: Path
) -> None:
    environment_files.uv()
    (tmp_path / "bad-1.0-py3-none-any.whl").write_text("no zip file")
    env = {"uv": [str(tmp_path / "bad-1.0-py3-none-any.whl")]}
    failing = imported.options(runtime_env=env)
    bad, good = [failing.remote("nowhere") for _ in range(2)], about.remote()
    for one in bad:
        with pytest.raises(exceptions.RuntimeEnvSetupError) as caught:
            get(one)
        assert f"on node {nodes.other.node_id}: " in str(caught.value)
        assert "uv pip install" in str(caught.value) and "Failed to" in str(caught.value)
    assert get(good)["node"] == nodes.other.node_id

    actor = Nothing.options(runtime_env=env).remote()
    with pytest.raises(exceptions.RuntimeEnvSetupError, match=f"on node {nodes.other.node_id}: "):
        get(actor.do.remote())


def test_a_build_on_another_node_is_told_of_while_it_lasts(nodes: Nodes, tmp_path: Path) -> None:
    """A task, and a call of an actor, that wait for it; longer than a node gets to grant what it has room for."""
    environment_files.uv()
    for name in ("task", "actor"):
        (tmp_path / name).mkdir()
    of_task, of_actor = (
        {
            "uv": {
                "packages": [environment_files.project_that_hangs(tmp_path / name)],
                "uv_pip_install_options": ["--offline"],
            }
        }
        for name in ("task", "actor")
    )
    task = about.options(runtime_env=of_task).remote()
    actor = Nothing.options(runtime_env=of_actor).remote()
    for name, waiting in (("task", task), ("actor", actor.do.remote())):
        drivers.wait_until((tmp_path / name / "building").exists, what="the build to begin")
        told = until_told(waiting, "pip install")
        assert f"node {nodes.other.node_id}" in told and "runtime environment" in told and "hanging" in told
    building = [int((tmp_path / name / "building").read_text()) for name in ("task", "actor")]
    umbel.cancel(task)
    umbel.kill(actor)
    drivers.wait_until(lambda: not any(map(drivers.is_running, building)), what="the builds to end")


# ---- clusters of their own ----

JOB = """
import os, umbel
from pathlib import Path

env = {"working_dir": os.environ["PROJECT"], "env_vars": {"OF_THE_JOB": "1"}}
umbel.init(os.environ["ADDRESS"], log_to_driver=False, runtime_env=env)

@umbel.remote(resources={"there": 0.1})
def leaf():
    import own_module
    return own_module.VALUE, os.environ["OF_THE_JOB"], Path.cwd().parts[-2]

@umbel.remote(num_cpus=0, resources={"there": 0.1})
class Actor:
    def told(self):
        return umbel.get(leaf.remote())

print(umbel.get(leaf.remote()), umbel.get(Actor.remote().told.remote()), flush=True)
input()
"""


@pytest.mark.parametrize("scheme", ["", "umbel://"])
def test_the_environment_of_a_job_holds_on_all_nodes(nodes: Nodes, tmp_path: Path, scheme: str) -> None:
    """Of a driver of the head, and of a program of another machine that is connected to it."""
    environment = {
        "ADDRESS": f"{scheme}{nodes.cluster.address}", "PROJECT": project(tmp_path / "w", os.urandom(4).hex()),
        token_files.FILE_VARIABLE: nodes.cluster.token_file, "TMPDIR": os.environ["TMPDIR"],
    }  # fmt: skip
    value = (tmp_path / "w" / "data.txt").read_text()
    with drivers.driver(JOB, **environment) as program:
        assert program.line() == f"{(value, '1', 'packages')} {(value, '1', 'packages')}"
        program.tell()
        program.finish()


CREATOR = """
import os, umbel
from pathlib import Path

umbel.init(os.environ["ADDRESS"], log_to_driver=False, namespace="tests")

class Reader:
    def read(self):
        return Path("data.txt").read_text()

def create(name, resource):
    env = {"working_dir": os.environ["PROJECT"]}
    made = umbel.remote(num_cpus=0, resources={resource: 0.1}, lifetime="detached", name=name, runtime_env=env)(Reader)
    return made.remote()

print(umbel.get(create("first", "there").read.remote()), flush=True)
late = create("late", "nowhere")
umbel.explain(late.read.remote())
print("created", flush=True)
input()
"""


def test_a_package_comes_from_another_node_that_has_it_when_its_source_dies(own_nodes: Nodes, tmp_path: Path) -> None:
    """The creator's node stands still while it is asked for the package, and is killed then."""
    source = own_nodes.add("source")
    environment = {"ADDRESS": source.address, "PROJECT": project(tmp_path / "w", "abc"), "TMPDIR": os.environ["TMPDIR"]}
    with drivers.driver(CREATOR, **environment) as program:
        assert [program.line(), program.line()] == ["abc", "created"]
        own_nodes.cluster.connect(namespace="tests")
        late = umbel.get_actor("late")
        drivers.freeze(source.pid)
        new = own_nodes.add("nowhere")
        (name,) = come(own_nodes.other)
        call = late.read.remote()
        told = until_told(call, "fetching package")
        assert "lacks files" in told and f": fetching package {name} from node {source.node_id}" in told
        assert f"node {new.node_id} looks for a worker" in told
        own_nodes.cluster.remove_node(source, allow_graceful=False)
        assert get(call) == "abc"
        log = Path(new.session_dir, "daemon.log").read_text()
        assert f"package {name} has come from node {own_nodes.other.node_id}" in log
        assert f"package {name} did not come from node {source.node_id}: " in log
        assert drafts(new) == []


def test_a_node_that_is_killed_while_it_builds_leaves_it_to_another(own_nodes: Nodes, tmp_path: Path) -> None:
    """Which must have such a resource; and the tasks are tried there without having begun."""
    environment_files.uv()
    own_nodes.cluster.connect()
    env = {
        "uv": {"packages": [environment_files.project_that_hangs(tmp_path)], "uv_pip_install_options": ["--offline"]}
    }
    task = about.options(runtime_env=env, max_retries=0).remote()
    drivers.wait_until((tmp_path / "building").exists, what="the build to begin")
    first = int((tmp_path / "building").read_text())
    new = own_nodes.add("there")
    own_nodes.cluster.remove_node(own_nodes.other, allow_graceful=False)
    drivers.wait_until(lambda: (tmp_path / "building").read_text() != str(first), what="another node to build it")
    assert f"on node {new.node_id} is being built" in until_told(task, "pip install")
    umbel.cancel(task)
    with pytest.raises(exceptions.TaskCancelledError):
        get(task)


# ---- a node that sees nothing of the others' files ----

NODE = """
import os, sys
from umbel._client import cluster_node

wishes = cluster_node.Wishes(num_cpus=1, num_gpus=0, resources={"apart": 1}, object_store_memory=80 << 20)
place = cluster_node.Place(head=os.environ["HEAD"], host="127.0.0.1", port=0)
started = cluster_node.start_node(wishes, place, ends_with_starter=True)
print(started.launched.node_id, started.launched.session_dir, flush=True)
sys.stdin.readline()
started.launched.close()
"""
APART = {"apart": 0.1}


@pytest.fixture(scope="module")
def apart(nodes: Nodes, home: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The id and the session of a node in a file system of its own, which has neither the others' sessions nor what tests
    make."""
    unshared = ["unshare", "--user", "--map-root-user", "--mount", "--propagation", "private"]
    hidden = [home, str(tmp_path_factory.getbasetemp()), "/dev/shm"]
    cover = " && ".join(f"mount -t tmpfs none {path}" for path in hidden)
    probe = subprocess.run(
        [*unshared, "sh", "-c", cover], check=False, capture_output=True, text=True, timeout=TIMEOUT_S
    )
    if probe.returncode:
        pytest.skip(f"mount namespaces are not permitted here: {probe.stderr.strip()}")
    directory = tempfile.mkdtemp(prefix="u", dir="/tmp")
    token = token_files.read(nodes.cluster.token_file).as_text()
    prefix = [*unshared, "sh", "-c", f'{cover} && exec "$0" "$@"']
    environment = {
        "HEAD": str(nodes.cluster.address), token_files.TOKEN_VARIABLE: token, "UV_CACHE_DIR": f"{directory}/uv",
        "UMBEL_RUNTIME_ENV_CACHE_DIR": f"{directory}/cache",
    }  # fmt: skip
    node = drivers.Driver(NODE, directory, prefix=prefix, **environment)
    try:
        node_id, session_dir = node.line().split()
        yield node_id, session_dir
        node.tell()
        node.finish()
        assert homes.is_empty(directory)
    finally:
        node.end()
        shutil.rmtree(directory, ignore_errors=True)


def test_files_and_wheels_reach_a_node_of_another_file_system(
    nodes: Nodes, apart: tuple[str, str], tmp_path: Path
) -> None:
    _, session_dir = apart
    hidden = [nodes.head.session_dir, nodes.other.session_dir, str(tmp_path)]
    wheel = environment_files.wheel(tmp_path, "faraway", body="VALUE = 10\n")
    (tmp_path / "own_file.py").write_text("VALUE = 11\n")

    @umbel.remote(num_cpus=0, resources=APART)
    class Reader:
        def read(self) -> tuple[Any, ...]:
            import faraway  # type: ignore[import-not-found]
            import own_file  # type: ignore[import-not-found]

            seen = [path for path in hidden if os.path.exists(path)]
            return seen, os.getcwd(), Path("data.txt").read_text(), faraway.VALUE, own_file.VALUE

    env = {"working_dir": project(tmp_path / "w", 9), "py_modules": [tmp_path / "own_file.py"], "uv": [wheel]}
    seen, cwd, *values = get(Reader.options(runtime_env=env).remote().read.remote())
    assert (seen, values) == ([], ["9", 10, 11])
    assert cwd.startswith(session_dir)


ELSEWHERE = """
import os, umbel

umbel.init(os.environ["ADDRESS"], log_to_driver=False)

@umbel.remote(num_cpus=0)
def where():
    return os.getcwd(), umbel.get_runtime_context().get_node_id()

print(umbel.get(where.options(resources={"there": 0.1}).remote()), flush=True)
try:
    umbel.get(where.options(resources={"apart": 0.1}).remote())
except umbel.exceptions.RuntimeEnvSetupError as error:
    print(str(error).replace(chr(10), " "), flush=True)
"""


def test_workers_are_like_their_driver_where_its_interpreter_is_and_elsewhere_say_that_it_is_not(
    nodes: Nodes, apart: tuple[str, str], tmp_path: Path
) -> None:
    """A driver of another environment, in a directory of its own: a node that has both uses them."""
    (tmp_path / "w").mkdir()
    venv.create(tmp_path / "environment", symlinks=True)
    (packages,) = (tmp_path / "environment").glob("lib/python*/site-packages")
    (packages / "behind.pth").write_text("".join(f"{path}\n" for path in sys.path if path))
    python = tmp_path / "environment" / "bin" / "python"
    prefix = ["sh", "-c", f'cd {tmp_path}/w && shift && exec {python} "$@"', "sh"]
    program = drivers.Driver(ELSEWHERE, os.environ["TMPDIR"], prefix=prefix, ADDRESS=str(nodes.cluster.address))
    try:
        assert program.line() == str((str(tmp_path / "w"), nodes.other.node_id))
        told = program.line()
        assert (
            f"on node {apart[0]}: workers of this job run {python}, as its driver does, which is not on this node"
            in told
        )
        assert "umbel://" in told
        program.finish()
    finally:
        program.end()


WITHOUT = """
import os, umbel, own_module

umbel.init(os.environ["ADDRESS"], log_to_driver=False)
there = umbel.remote(num_cpus=0, resources={"apart": 0.1})
print(umbel.get(there(os.getcwd).remote()), flush=True)
for env in (None, {"py_modules": ["own_module.py"]}):
    try:
        print(umbel.get(there(own_module.value).options(runtime_env=env).remote()), flush=True)
    except ModuleNotFoundError as error:
        print(str(error).rpartition("Error: ")[2].strip(), flush=True)
"""


def test_where_a_drivers_directory_is_not_workers_start_in_the_nodes_and_import_what_travels(
    nodes: Nodes, apart: tuple[str, str], tmp_path: Path
) -> None:
    (tmp_path / "own_module.py").write_text("def value():\n    return 12\n")
    prefix = ["sh", "-c", f'cd {tmp_path} && exec "$0" "$@"']
    program = drivers.Driver(WITHOUT, os.environ["TMPDIR"], prefix=prefix, ADDRESS=str(nodes.cluster.address))
    try:
        assert program.finish()[0].splitlines() == [os.getcwd(), "No module named 'own_module'", "12"]
    finally:
        program.end()
