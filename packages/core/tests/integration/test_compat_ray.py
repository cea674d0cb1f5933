"""`python -m umbel.compat.ray`: programs for Ray, unmodified."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import textwrap

import pytest

SCRIPTS = pathlib.Path(__file__).parent / "compat_scripts"
TIMEOUT_S = 90  # a loaded machine needs a while to start the processes; a hang needs to end

# What each program prints, on Ray as here.
PRINTED = {
    "parameter_server.py": ["updates: 120", "weights: [1, -2, 3]"],
    "monte_carlo_pi.py 4 20000": ["pi is about 3.1; 100% done"],
    "tree_reduce.py": ["tree: 16206 depth: 204"],
    "placement_groups.py": [
        "sums: [30, 31] captured: True outside: None state: CREATED",
        "removed: REMOVED",
        "no such strategy",
    ],
    "async_actor.py": [
        "['async-0', 'async-1', 'async-2', 'thread-0', 'thread-1', 'thread-2']",
        "42 8",
        "[0, 2, 4]",
    ],
    "streaming.py": [
        "fourth powers: [0, 1, 16, 81]",
        "tokens: ['TO', 'BE', 'OR', 'NOT', 'TO', 'BE']",
        "ends: ['x', 'z'] ['a', 'b', 'c']",
        "first: 1",
        "then: True 'no more'",
        "over",
    ],
    "named_actors.py": [
        "values: [11, 12, 13, 14]",
        "named: ['counter']",
        "called: 28",
        "taken: True",
        "killed",
        "terminated: 1",
        "nobody",
    ],
    "pipeline.py": [
        "consumed: 190",
        "empty: True 0",
        "pool: [0, 1, 4, 9, 16, 25]",
        "starmap: [8, 9]",
        "imap: [1, 2, 3]",
    ],
    "failures.py": [
        "mishap: 7 True Mishap",
        "retried: lucky",
        "crashed",
        "timeout: True",
        "cancelled",
        "died: ActorDiedError",
        "pickled: by value",
        "a tuple is no list",
    ],
}


def environment(**variables: str) -> dict[str, str]:
    mine = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "UMBEL_"))}
    return {**mine, **variables}


def run(
    *arguments: str, cwd: pathlib.Path = SCRIPTS, stdin: str = "", plain: bool = False, **variables: str
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *([] if plain else ["-m", "umbel.compat.ray"]), *arguments]
    return subprocess.run(
        command,
        cwd=cwd,
        input=stdin,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def run_text(program: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return run("-c", textwrap.dedent(program), *arguments, **variables)


@pytest.mark.timeout(2 * TIMEOUT_S)
@pytest.mark.parametrize("command", PRINTED)
def test_programs_print_what_they_print_on_ray(command: str) -> None:
    done = run(*command.split())
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line for line in lines if line in PRINTED[command]] == PRINTED[command], done.stdout + done.stderr


def test_functions_that_mention_ray_run_in_workers() -> None:
    done = run_text(
        """
        import ray
        from ray.util.queue import Queue

        @ray.remote
        def look():
            import ray.util
            return ray.__name__, ray.exceptions.RayError.__name__, ray.is_initialized(), ray.__version__ >= "2.0"

        ray.init(num_cpus=1)
        print(*ray.get(look.remote()))
        """
    )
    assert done.stdout.splitlines()[-1] == "ray UmbelError True True", done.stderr


def test_modules_beside_the_script_are_importable_in_workers(tmp_path: pathlib.Path) -> None:
    (tmp_path / "helper.py").write_text("import ray\n\n@ray.remote\ndef answer():\n    return 42\n")
    (tmp_path / "main.py").write_text(
        "import ray, helper\nray.init(num_cpus=1)\nprint(ray.get(helper.answer.remote()))\n"
    )
    done = run(str(tmp_path / "main.py"), cwd=tmp_path.parent)
    assert done.stdout.splitlines()[-1] == "42", done.stderr


def test_joblib_knows_the_backend_by_ray_s_name() -> None:
    pytest.importorskip("joblib", reason="joblib is not a dependency")
    done = run_text(
        """
        import joblib, ray
        from ray.util.joblib import register_ray

        ray.init(num_cpus=2)
        register_ray()
        with joblib.parallel_config(backend="ray", n_jobs=2, ray_remote_args={"num_cpus": 0}):
            print(joblib.Parallel()(joblib.delayed(pow)(i, 2) for i in range(5)))
        """
    )
    assert done.stdout.splitlines()[-1] == "[0, 1, 4, 9, 16]", done.stderr


def test_a_process_pool_takes_ray_s_keywords() -> None:
    done = run_text(
        """
        from ray.util.multiprocessing import Pool
        from ray.util.multiprocessing.pool import Pool as Same

        with Pool(2, ray_address=None, ray_remote_args={"num_cpus": 0}) as pool:
            print(pool.map(abs, [-1, -2]), Same is Pool)
        """
    )
    assert done.stdout.splitlines()[-1] == "[1, 2] True", done.stderr


def test_ray_s_environment_variables_are_read_when_init_is_called() -> None:
    program = """
        import os, ray
        os.environ["RAY_ENABLE_AUTO_CONNECT"] = "1"
        ray.init(num_cpus=1)
        print(os.environ["UMBEL_ENABLE_AUTO_CONNECT"], os.environ["UMBEL_FIRST"], os.environ["UMBEL_MINE"])
        """
    done = run_text(program, RAY_FIRST="ray", RAY_MINE="ray", UMBEL_MINE="umbel")
    assert done.stdout.splitlines()[-1] == "1 ray umbel", done.stderr


def test_init_arguments_that_only_ray_has_are_accepted_with_a_warning() -> None:
    done = run_text("import ray; ray.init(num_cpus=1, include_dashboard=False, _temp_dir='/x'); print('up')")
    assert done.stdout.splitlines()[-1] == "up", done.stderr
    assert "_temp_dir" in done.stderr


@pytest.mark.parametrize(
    ("statement", "name"),
    [
        ("import ray.tune", "ray.tune"),
        ("from ray import tune", "ray.tune"),
        ("from ray.rllib.algorithms import PPO", "ray.rllib"),
        ("from ray.util import tpu", "ray.util.tpu"),
        ("import ray; ray.util.tpu", "ray.util.tpu"),
        ("from ray.exceptions import NoSuchError", "ray.exceptions.NoSuchError"),
        ("import ray; ray.no_such_name", "ray.no_such_name"),
    ],
)
def test_a_missing_name_is_named(statement: str, name: str) -> None:
    done = run("-c", statement)
    assert done.returncode == 1
    assert f"{name}: Umbel has no such thing yet" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("module", ["tpu"])
def test_a_planned_module_says_what_to_use_instead(module: str) -> None:
    for statement in (f"import ray.util.{module}", f"from ray.util import {module}", f"import ray; ray.util.{module}"):
        assert "this version of Umbel: " in run("-c", statement).stderr.splitlines()[-1]


def test_handles_have_rays_name_of_their_id_here_and_in_workers() -> None:
    done = run_text(
        """
        import pickle, ray
        ray.init(num_cpus=1)
        @ray.remote
        class Actor:
            def told(self): return ray.get_runtime_context().get_actor_id()
        actor = Actor.remote()
        ask = ray.remote(lambda actor: actor._ray_actor_id.hex())
        print(actor._ray_actor_id.hex() == ray.get(actor.told.remote()) == ray.get(ask.remote(actor)))
        print(ray.ObjectID is ray.ObjectRef)
        try:
            pickle.dumps(ray.put(1))
        except ray.exceptions.OufOfBandObjectRefSerializationException:
            print("told")
        """,
        RAY_allow_out_of_band_object_ref_serialization="0",
    )
    assert done.stdout.splitlines() == ["True", "True", "told"], done.stderr


def test_graphs_are_where_rays_are() -> None:
    done = run_text(
        """
        import ray
        from ray.dag import InputNode, MultiOutputNode
        @ray.remote
        class Actor:
            def step(self, x):
                if x < 0:
                    raise ValueError(x)
                return x + 1
        first, second = Actor.remote(), Actor.remote()
        with InputNode() as given:
            graph = MultiOutputNode([second.step.bind(first.step.bind(given)), first.step.bind(given)])
        print(ray.get(graph.execute(1)))
        compiled = graph.experimental_compile(_max_inflight_executions=1)
        print(ray.get(compiled.execute(1)), isinstance(compiled, ray.dag.CompiledDAG))
        refs = compiled.execute(-1)
        try:
            ray.get(refs)
        except ray.exceptions.RayTaskError as error:
            print(repr(error.cause))
        compiled.execute(1)
        compiled.teardown()
        try:
            compiled.execute(1)
        except ray.exceptions.RayChannelError:
            print("torn down")
        """
    )
    assert done.stdout.splitlines() == ["[3, 2]", "[3, 2] True", "ValueError(-1)", "torn down"], done.stderr


def test_groups_of_actors_are_where_rays_are() -> None:
    pytest.importorskip("numpy")
    done = run_text(
        """
        import numpy as np
        import ray
        from ray.experimental.collective import create_collective_group, destroy_collective_group
        from ray.util import collective

        @ray.remote(num_cpus=0)
        class Rank:
            def total(self, value):
                tensor = np.array([value])
                collective.allreduce(tensor, "pair")
                return int(tensor[0])

        ray.init(num_cpus=1)
        pair = [Rank.remote(), Rank.remote()]
        group = create_collective_group(pair, backend="shm", name="pair")
        print(*ray.get([one.total.remote(value) for one, value in zip(pair, (3, 4))]), group.get_rank(pair[1]))
        destroy_collective_group(group)
        """
    )
    assert done.stdout.splitlines()[-1:] == ["7 7 1"], done.stderr
    done = run_text("from ray.experimental.collective import allreduce")
    assert "ray.experimental.collective.allreduce: Umbel has no such thing yet" in done.stderr


def test_private_names_are_refused() -> None:
    for statement in ("import ray._private.worker", "import ray; ray._raylet"):
        assert "private to Ray" in run("-c", statement).stderr.splitlines()[-1]


def test_a_program_can_test_for_names() -> None:
    done = run_text(
        """
        import ray
        print(hasattr(ray, "get"), hasattr(ray, "tune"), hasattr(ray.exceptions, "RayTaskError"))
        try:
            from ray import tune
        except ImportError as error:
            print(error.name)
        from ray.util import *
        from ray.exceptions import *
        print(ActorPool.__name__, RayTaskError.__name__, "RayTaskError" in dir(ray.exceptions))
        """
    )
    assert done.stdout.splitlines() == ["True False True", "umbel.tune", "ActorPool UmbelTaskError True"], done.stderr


def test_a_function_and_a_module_may_share_a_name() -> None:
    done = run_text(
        """
        import ray.util.placement_group as module
        from ray.util.placement_group import PlacementGroup
        from ray.util import placement_group
        import ray
        print(callable(placement_group), ray.util.placement_group is placement_group, PlacementGroup.__name__)
        """
    )
    assert done.stdout.splitlines() == ["True True PlacementGroup"], done.stderr


def test_a_real_ray_that_was_imported_before_is_refused() -> None:
    program = "import sys, types; sys.modules['ray'] = types.ModuleType('ray'); import umbel.compat.ray.install"
    done = run("-c", program, plain=True)
    assert "the real ray was imported already" in done.stderr


def test_a_real_ray_beside_is_not_used(tmp_path: pathlib.Path) -> None:
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "__init__.py").write_text("raise SystemExit('the real one')")
    search_path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = run("-c", "import ray, umbel; print(ray.get is umbel.get)", PYTHONPATH=search_path)
    assert done.stdout.splitlines() == ["True"], done.stderr


class TestLikeTheInterpreter:
    """What a program sees of its process, compared with what it sees when Python itself runs it."""

    PROGRAM = """
        import sys
        main = sys.modules["__main__"]
        print(sys.argv, __name__, main.__dict__ is globals(), sys.path[0])
        print(__doc__, __package__, __spec__, globals().get("__file__"), type(__builtins__).__name__)
        """

    def compare(self, *arguments: str, cwd: pathlib.Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
        ours, theirs = (run(*arguments, cwd=cwd, stdin=stdin, plain=plain) for plain in (False, True))
        assert ours.stdout == theirs.stdout, ours.stderr
        assert ours.stderr == theirs.stderr
        assert ours.returncode == theirs.returncode
        return ours

    def test_script(self, tmp_path: pathlib.Path) -> None:
        (tmp_path / "below").mkdir()
        (tmp_path / "below" / "script.py").write_text(textwrap.dedent(self.PROGRAM))
        self.compare("below/script.py", "a", "-m", "--flag", cwd=tmp_path)

    def test_command_and_standard_input(self, tmp_path: pathlib.Path) -> None:
        program = textwrap.dedent(self.PROGRAM)
        self.compare("-c", program, "a", "b", cwd=tmp_path)
        self.compare("-", "a", cwd=tmp_path, stdin=program)

    def test_module_directory_and_zip_file(self, tmp_path: pathlib.Path) -> None:
        import zipfile

        program = "import sys; print(sys.argv, __name__, sys.path[0], __package__, __spec__.name)"
        (tmp_path / "package").mkdir()
        (tmp_path / "package" / "__main__.py").write_text(program)
        (tmp_path / "package" / "module.py").write_text(program)
        with zipfile.ZipFile(tmp_path / "program.zip", "w") as archive:
            archive.writestr("__main__.py", program)
        self.compare("-m", "package", "x", cwd=tmp_path)
        self.compare("-m", "package.module", "x", cwd=tmp_path)
        self.compare("package", "x", cwd=tmp_path)
        self.compare("program.zip", "x", cwd=tmp_path)

    @pytest.mark.parametrize(
        "ending",
        [
            "pass",
            "import sys; sys.exit(7)",
            "raise SystemExit('a message')",
            "1 / 0",
            "raise KeyError('inner') from ValueError('outer')",
            "import atexit; atexit.register(print, 'at exit'); undefined",
            "import sys; sys.excepthook = lambda kind, value, tb: print(kind, tb.tb_frame.f_code.co_name); 1 / 0",
            "x = (",
        ],
    )
    def test_endings_and_tracebacks(self, ending: str, tmp_path: pathlib.Path) -> None:
        (tmp_path / "script.py").write_text(f"print('begin')\n{ending}\n")
        self.compare("script.py", cwd=tmp_path)

    def test_interruption(self, tmp_path: pathlib.Path) -> None:
        (tmp_path / "script.py").write_text("raise KeyboardInterrupt\n")
        assert self.compare("script.py", cwd=tmp_path).returncode == -signal.SIGINT

    def test_what_cannot_be_run(self, tmp_path: pathlib.Path) -> None:
        assert self.compare("missing.py", cwd=tmp_path).returncode == 2
        assert self.compare("-m", "missing_module", cwd=tmp_path).returncode == 1

    def test_help_and_usage(self) -> None:
        assert run("--help").stdout.startswith("usage: python -m umbel.compat.ray")
        for arguments in ([], ["-c"], ["-m"], ["--unknown"]):
            done = run(*arguments)
            assert (done.returncode, "usage:" in done.stderr) == (2, True)
