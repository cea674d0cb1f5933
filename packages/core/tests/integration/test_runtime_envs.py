"""Runtime environments: files that travel, packages that are installed, and what becomes of tasks when they cannot be."""

from __future__ import annotations

import importlib
import os
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import drivers
import environment_files
import pytest

import umbel
from umbel import exceptions
from umbel.util import state

PATIENCE_S = 45.0


@pytest.fixture(scope="module", autouse=True)
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UMBEL_RUNTIME_ENV_CACHE_DIR", str(directory))
        patch.setenv("UV_CACHE_DIR", str(tmp_path_factory.mktemp("uv")))
        patch.setenv("UV_OFFLINE", "1")
        patch.setenv("UV_NO_CONFIG", "1")
        patch.delenv("VIRTUAL_ENV", raising=False)  # uv would take it for the project's environment
        yield directory


@pytest.fixture(scope="module")
def session(cache_dir: Path) -> Iterator[None]:
    with umbel.init(num_cpus=2):
        yield


def get(ref: Any) -> Any:
    return umbel.get(ref, timeout=PATIENCE_S)


@umbel.remote
def about() -> dict[str, Any]:
    return {
        "cwd": os.getcwd(),
        "files": sorted(os.listdir(".")),
        "python": sys.executable,
        "path": list(sys.path),
        "env": umbel.get_runtime_context().runtime_env,
        "parent": os.getppid(),
    }


@umbel.remote
def imported(name: str) -> Any:
    return __import__(name).VALUE


@umbel.remote
def about_child(env: Any) -> Any:
    return umbel.get(about.options(runtime_env=env).remote() if env else about.remote())


def servers() -> dict[str, Any]:
    from umbel._client import current

    return {one["built"]: one for one in current.engine().query("environments")}


# ---- files ----


def _project(directory: Path, value: int = 1) -> Path:
    directory.mkdir()
    (directory / "own_module.py").write_text(f"VALUE = {value}\n")
    (directory / "notes.log").write_text("x")
    (directory / "data.bin").write_text("x")
    (directory / ".gitignore").write_text("*.log\n")
    return directory


def test_working_dir_is_where_workers_start_and_import_from(session: None, tmp_path: Path) -> None:
    env = {"working_dir": str(_project(tmp_path / "w")), "excludes": ["*.bin"]}
    found = get(about.options(runtime_env=env).remote())
    assert found["files"] == [".gitignore", "own_module.py"]
    assert found["cwd"] != str(tmp_path / "w") and found["path"][0] == found["cwd"]
    assert found["env"].keys() == {"working_dir"} and found["env"]["working_dir"].startswith("umbel-package://")
    assert get(imported.options(runtime_env=env).remote("own_module")) == 1
    assert get(imported.options(runtime_env=found["env"]).remote("own_module")) == 1
    assert get(about.remote())["cwd"] == os.getcwd()


def test_workers_of_equal_environments_come_from_one_server(session: None, tmp_path: Path) -> None:
    env = {"working_dir": str(_project(tmp_path / "w", 2))}
    first = get(about.options(runtime_env=env).remote())
    second = get(about.options(runtime_env={**env, "env_vars": {"A": "1"}}).remote())
    plain = get(about.remote())
    assert first["parent"] == second["parent"] != plain["parent"]
    assert second["env"]["env_vars"] == {"A": "1"}


def test_children_inherit_and_what_they_ask_for_goes_before(session: None, tmp_path: Path) -> None:
    first, second = (str(_project(tmp_path / name, value)) for name, value in (("v", 3), ("w", 4)))
    parent = about_child.options(runtime_env={"working_dir": first, "env_vars": {"A": "1", "B": "1"}})
    inherited = get(parent.remote(None))
    assert inherited["env"]["env_vars"] == {"A": "1", "B": "1"}
    replaced = get(parent.remote({"working_dir": second, "env_vars": {"B": "2"}}))
    assert replaced["env"]["env_vars"] == {"A": "1", "B": "2"}
    assert replaced["cwd"] != inherited["cwd"]


def test_actor_runs_in_its_environment(session: None, tmp_path: Path) -> None:
    @umbel.remote(runtime_env={"working_dir": str(_project(tmp_path / "w", 5))})
    class Reader:
        def value(self) -> Any:
            return __import__("own_module").VALUE

    assert get(Reader.remote().value.remote()) == 5


def test_modules_files_and_wheels_can_be_imported(session: None, tmp_path: Path) -> None:
    package = tmp_path / "own_package"
    package.mkdir()
    (package / "__init__.py").write_text("VALUE = 6\n")
    (tmp_path / "own_file.py").write_text("VALUE = 7\n")
    wheel = environment_files.wheel(tmp_path, "wheeled", body="VALUE = 8\n")
    env = {"py_modules": [package, tmp_path / "own_file.py", wheel]}
    names = ("own_package", "own_file", "wheeled")
    assert [get(imported.options(runtime_env=env).remote(name)) for name in names] == [6, 7, 8]


def test_module_that_the_node_has_imported_is_replaced(session: None, tmp_path: Path) -> None:
    (tmp_path / "textwrap.py").write_text("VALUE = 10\ndef dedent(text): return text\n")
    env = {"py_modules": [tmp_path / "textwrap.py"]}
    assert get(imported.options(runtime_env=env).remote("textwrap")) == 10


@pytest.mark.parametrize("imported_before", [False, True])
def test_variables_are_expanded_once_in_workers_of_a_built_environment(tmp_path: Path, imported_before: bool) -> None:
    """imported_before: the environment's server then runs an interpreter of its own, which inherits the variables."""
    (tmp_path / ("textwrap.py" if imported_before else "own_file.py")).write_text("def dedent(text): return text\n")
    output, _ = drivers.run(
        f"""
        import os, umbel
        umbel.init(num_cpus=1, runtime_env={{"py_modules": [{str(next(tmp_path.iterdir()))!r}],
                                            "env_vars": {{"PLACE": "${{PLACE}}:job"}}}})

        @umbel.remote
        def told(): return os.environ["PLACE"]

        print(umbel.get(told.remote()))
        print(umbel.get(told.options(runtime_env={{"env_vars": {{"PLACE": "${{PLACE}}:task"}}}}).remote()))
        """,
        PLACE="base",
    )
    assert output.splitlines() == ["base:job", "base:task"]


# ---- packages ----


@pytest.mark.parametrize("field", ["pip", "uv"])
def test_packages_are_installed_over_the_drivers(session: None, tmp_path: Path, cache_dir: Path, field: str) -> None:
    wheel = environment_files.wheel(tmp_path, f"tiny{field}", body="VALUE = 11\n")
    own_options = {"pip_install_options": ["--no-cache-dir"]}  # with which uv does not do it instead
    if field == "uv":
        own_options = {}
        environment_files.uv()
    env = {field: {"packages": ["--no-index", wheel], **own_options}}

    @umbel.remote(runtime_env=env)
    def look() -> Any:
        program = f"import sys, tiny{field}, umbel; print(tiny{field}.VALUE, umbel.__file__, *sys.path[1:])"
        child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        value, path, *places = child.stdout.split()
        assert packages(places) == packages(sys.path)
        installer = metadata.distribution(f"tiny{field}").read_text("INSTALLER")
        module = importlib.import_module(f"tiny{field}")
        return sys.executable, [value, path], cloudpickle_path(), installer, os.stat(str(module.__file__)).st_nlink

    def packages(places: list[str]) -> list[str]:
        return [place for place in places if place.endswith("-packages")]

    def cloudpickle_path() -> str:
        import cloudpickle

        return str(cloudpickle.__file__)

    python, child, path, installer, links = get(look.remote())
    assert python.startswith(str(cache_dir))
    assert child == ["11", umbel.__file__]
    assert path == cloudpickle_path()
    assert installer is not None and installer.strip() == field
    assert (links > 1) == (field == "uv"), "uv links files to those of its cache, pip copies"
    with pytest.raises(ModuleNotFoundError):
        get(imported.remote(f"tiny{field}"))


def test_options_of_uv_are_passed_on(session: None, tmp_path: Path) -> None:
    environment_files.uv()
    environment_files.wheel(tmp_path, "tinyoption", body="VALUE = 18\n", requires="nowhere")
    options = ["--no-index", "--no-deps", f"--find-links={tmp_path}"]
    env = {"uv": {"packages": ["tinyoption"], "uv_pip_install_options": options}}
    assert get(imported.options(runtime_env=env).remote("tinyoption")) == 18


@pytest.mark.parametrize(("requires", "words"), [("", ""), ("nowhere", "requires `nowhere`")])
def test_environment_is_checked_by_uv_if_asked_for(session: None, tmp_path: Path, requires: str, words: str) -> None:
    environment_files.uv()
    wheel = environment_files.wheel(tmp_path, "tinycheck", body="VALUE = 19\n", requires=requires)
    env = {"uv": {"packages": [wheel], "uv_check": True, "uv_pip_install_options": ["--no-index", "--no-deps"]}}
    ref = imported.options(runtime_env=env).remote("tinycheck")
    if not words:
        assert get(ref) == 19
        return
    with pytest.raises(exceptions.RuntimeEnvSetupError) as caught:
        get(ref)
    assert "uv pip check" in str(caught.value) and words in str(caught.value)


def test_uv_of_another_version_is_installed_and_used(session: None, tmp_path: Path) -> None:
    """A stand-in for that version notes its arguments, and runs the one that is there."""
    stand_in = f'#!/bin/sh\necho "$@" >> {tmp_path}/arguments\nexec {environment_files.uv()} "$@"\n'
    environment_files.wheel(tmp_path, "uv", "99.0", scripts={"uv": stand_in})
    wheel = environment_files.wheel(tmp_path, "tinyversion", body="VALUE = 20\n")
    env = {
        "uv": {"packages": [wheel], "uv_version": "==99.0", "uv_pip_install_options": ["--no-index"]},
        "env_vars": {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)},
    }
    assert get(imported.options(runtime_env=env).remote("tinyversion")) == 20
    assert (tmp_path / "arguments").read_text().startswith("pip install --python")


def test_uv_of_the_version_that_is_there_is_used(session: None, tmp_path: Path) -> None:
    pytest.importorskip("uv")
    wheel = environment_files.wheel(tmp_path, "tinysame", body="VALUE = 21\n")
    env = {
        "uv": {"packages": [wheel], "uv_version": f"=={metadata.version('uv')}"},
        "env_vars": {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/nowhere"},
    }
    assert get(imported.options(runtime_env=env).remote("tinysame")) == 21


def test_workers_of_uv_run_have_what_the_driver_has(tmp_path: Path) -> None:
    wheel = environment_files.wheel(tmp_path, "tinyrun", body="VALUE = 22\n")
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent(
            """
            import subprocess, sys, umbel

            @umbel.remote
            def value():
                import tinyrun
                child = [sys.executable, "-c", "import tinyrun; print(tinyrun.VALUE)"]
                return tinyrun.VALUE, sys.executable, subprocess.run(child, capture_output=True, text=True).stdout

            print(umbel.get(value.remote()) == (22, sys.executable, "22\\n"))
            """
        )
    )
    command = [environment_files.uv(), "run", "--no-project", "--python", sys.executable, "--with", wheel, str(program)]
    output, _ = drivers.run(f"import os; os.execv({command[0]!r}, {command!r})")
    assert output == "True\n"


def test_built_environment_is_used_again_in_another_session(tmp_path: Path, cache_dir: Path) -> None:
    wheel = environment_files.wheel(tmp_path, "tinyagain", body="VALUE = 12\n")
    program = f"""
        import umbel
        umbel.init(num_cpus=1, runtime_env={{"pip": ["--no-index", {wheel!r}]}})
        @umbel.remote
        def value():
            import sys, tinyagain
            return sys.executable
        print(umbel.get(value.remote()))
    """
    first, _ = drivers.run(program)
    python = Path(first.strip())
    made = os.stat(python.parent.parent / ".umbel-ready").st_mtime_ns
    second, _ = drivers.run(program)
    assert second == first
    assert os.stat(python.parent.parent / ".umbel-ready").st_mtime_ns == made


def test_sessions_that_need_the_same_environment_at_once_build_it_once(tmp_path: Path) -> None:
    program = f"""
        import umbel
        umbel.init(num_cpus=1)

        @umbel.remote(runtime_env={{"pip": ["--no-index", {environment_files.project_that_counts(tmp_path)!r}]}})
        def value():
            import counted
            return counted.VALUE

        print(umbel.get(value.remote()))
    """
    with drivers.driver(program) as one, drivers.driver(program) as other:
        assert [one.finish()[0], other.finish()[0]] == ["16\n", "16\n"]
    assert (tmp_path / "builds").read_text() == "one\n"


def test_failed_build_fails_its_tasks_with_the_whole_output_and_may_succeed_later(
    session: None, tmp_path: Path
) -> None:
    # Links are searched anew each time, as an index is. With options of pip's, uv does not do it instead.
    packages = ["--no-index", f"--find-links {tmp_path}", "tinylater"]
    env = {"pip": {"packages": packages, "pip_install_options": ["--no-cache-dir"]}}
    failing = [imported.options(runtime_env=env).remote("tinylater") for _ in range(2)]

    @umbel.remote(runtime_env=env)
    class Actor:
        def call(self) -> None: ...

    lost = Actor.remote()
    assert get(about.remote())["env"] == {}
    for ref in (*failing, lost.call.remote()):
        with pytest.raises(exceptions.RuntimeEnvSetupError) as caught:
            get(ref)
        assert "No matching distribution found for tinylater" in str(caught.value)
        assert "-m pip install" in str(caught.value) and "exited with code 1" in str(caught.value)
    environment_files.wheel(tmp_path, "tinylater", body="VALUE = 13\n")
    assert get(imported.options(runtime_env=env).remote("tinylater")) == 13


def test_build_is_told_of_while_it_lasts_and_ends_with_the_task(session: None, tmp_path: Path) -> None:
    env = {"pip": ["--no-index", environment_files.project_that_hangs(tmp_path)]}
    ref = about.options(runtime_env=env).remote()
    builder = int(drivers.wait_until(lambda: (tmp_path / "building").exists() and (tmp_path / "building").read_text()))
    reason = str(state.explain(ref))
    assert "its runtime environment is being built for" in reason and "install" in reason and "hanging" in reason
    assert get(about.remote())["env"] == {}
    umbel.cancel(ref)
    with pytest.raises(exceptions.TaskCancelledError):
        get(ref)
    drivers.wait_until(lambda: not drivers.is_running(builder), what="the end of the build")


def test_build_that_takes_too_long_fails_with_what_it_printed(session: None, tmp_path: Path) -> None:
    env = {
        "pip": ["--no-index", environment_files.project_that_hangs(tmp_path)],
        "config": {"setup_timeout_seconds": 4},
    }
    with pytest.raises(exceptions.RuntimeEnvSetupError) as caught:
        get(about.options(runtime_env=env).remote())
    assert "not built within 4 s" in str(caught.value) and "-m venv" in str(caught.value)
    if (tmp_path / "building").exists():
        builder = int((tmp_path / "building").read_text())
        drivers.wait_until(lambda: not drivers.is_running(builder), what="the end of the build")


# ---- interpreters and containers ----


def test_py_executable_runs_workers(session: None, tmp_path: Path) -> None:
    wrapper = environment_files.script(tmp_path / "own-python", f'WRAPPED=yes exec {sys.executable} "$@"')

    @umbel.remote(runtime_env={"py_executable": f"{wrapper} -X dev", "env_vars": {"A": "1"}})
    def look() -> Any:
        return os.environ.get("WRAPPED"), os.environ.get("A"), sys.flags.dev_mode, sys.executable

    assert get(look.remote()) == ("yes", "1", True, sys.executable)


def test_variables_are_appended_to_what_py_executable_sets(tmp_path: Path) -> None:
    wrapper = environment_files.script(
        tmp_path / "own-python", f'echo "$PLACE" > {tmp_path}/seen; PLACE=own:$PLACE exec {sys.executable} "$@"'
    )
    output, _ = drivers.run(
        f"""
        import os, umbel
        umbel.init(num_cpus=1, runtime_env={{"py_executable": {wrapper!r}, "env_vars": {{"PLACE": "${{PLACE}}:job"}}}})
        told = umbel.remote(lambda: os.environ["PLACE"])
        print(umbel.get(told.remote()))
        """,
        PLACE="base",
    )
    assert output == "own:base:job:job\n"
    assert (tmp_path / "seen").read_text() == "base:job\n"


def test_py_executable_without_umbel_fails_in_words(session: None) -> None:
    env = {"py_executable": f"{sys.executable} -I -S"}
    with pytest.raises(exceptions.RuntimeEnvSetupError) as caught:
        get(about.options(runtime_env=env).remote())
    assert "must run Python 3" in str(caught.value) and "No module named 'umbel'" in str(caught.value)
    with pytest.raises(exceptions.RuntimeEnvSetupError, match="/nowhere/python"):
        get(about.options(runtime_env={"py_executable": "/nowhere/python"}).remote())


@pytest.mark.parametrize("is_packed", [False, True])
def test_py_executable_of_uv_runs_in_the_project_of_the_driver_or_of_working_dir(
    tmp_path: Path, is_packed: bool
) -> None:
    """And not in one that our own files happen to lie in."""
    wheel = environment_files.wheel(tmp_path, "tinyproject", body="VALUE = 23\n")
    project, environment = environment_files.uv_project(tmp_path, "tinyproject", wheel)
    command = [
        environment_files.uv(),
        "run",
        "--with",
        environment_files.wheel(tmp_path, "tinywith", body="VALUE = 24\n"),
    ]
    env = {"py_executable": shlex.join(command), **({"working_dir": str(project)} if is_packed else {})}
    output, _ = drivers.run(
        f"""
        import os, sys, umbel

        os.chdir({str(tmp_path if is_packed else project)!r})
        sys.path.remove("")
        umbel.init(num_cpus=1, runtime_env={env!r})

        @umbel.remote
        def values():
            import tinyproject, tinywith
            return tinyproject.VALUE, tinywith.VALUE, sorted(os.listdir()), os.getcwd() in sys.path

        print(umbel.get(values.remote()))
        """,
        UV_PROJECT_ENVIRONMENT=str(environment),
        UV_CACHE_DIR=str(tmp_path / "cache"),
    )
    assert output == f"(23, 24, ['pyproject.toml', 'uv.lock'], {is_packed})\n"
    assert list(tmp_path.glob("cache/builds-*/*")) == []  # what uv made for this run it has removed


def test_container_is_run_by_the_command_line(tmp_path: Path) -> None:
    """A stand-in for podman notes its arguments and runs what would run inside."""
    environment_files.script(
        tmp_path / "podman",
        f"""
        for argument in "$@"; do echo "$argument" >> {tmp_path}/arguments; done
        while [ "$1" != -m ]; do shift; done
        INSIDE=yes exec {sys.executable} "$@"
        """,
    )
    output, _ = drivers.run(
        """
        import os, umbel
        umbel.init(num_cpus=1)

        @umbel.remote(runtime_env={"container": {"image": "image:1", "run_options": ["--gpus=all"]}})
        class Inside:
            def look(self, box):
                return os.environ.get("INSIDE"), len(umbel.get(box[0]))

        inside = Inside.options(runtime_env={"image_uri": "image:2", "env_vars": {"A": "1"}}).remote()
        print(umbel.get(inside.look.remote([umbel.put(bytes(1_000_000))])), flush=True)
        inside = Inside.remote()
        print(umbel.get(inside.look.remote([umbel.put(bytes(1_000_000))])), flush=True)
        """,
        PATH=f"{tmp_path}:{os.environ['PATH']}",
    )
    assert output == "('yes', 1000000)\n" * 2
    arguments = (tmp_path / "arguments").read_text().splitlines()
    assert arguments[:2] == ["run", "--rm"]
    assert "image:2" in arguments
    assert arguments[arguments.index("image:1") - 1] == "--gpus=all"
    assert arguments[arguments.index("image:1") + 1] == "-m"


def test_container_that_does_not_start_fails_with_its_output(tmp_path: Path) -> None:
    environment_files.script(tmp_path / "podman", "echo no such image >&2; exit 125")
    output, _ = drivers.run(
        """
        import umbel
        umbel.init(num_cpus=1)

        @umbel.remote(runtime_env={"image_uri": "image:1"})
        def f(): ...

        try:
            umbel.get(f.remote())
        except umbel.exceptions.RuntimeEnvSetupError as error:
            print(str(error).replace("\\n", " "))
        """,
        PATH=f"{tmp_path}:{os.environ['PATH']}",
    )
    assert "exited with code 125" in output and "no such image" in output


# ---- hooks and jobs ----


def test_hook_runs_in_each_worker_before_its_tasks(session: None) -> None:
    def hook() -> None:
        os.environ["HOOKED"] = str(os.getpid())

    @umbel.remote(runtime_env={"worker_process_setup_hook": hook})
    def look() -> bool:
        return os.environ["HOOKED"] == str(os.getpid())

    assert get(look.remote())


def test_failing_hook_fails_its_tasks_with_its_traceback(session: None) -> None:
    def hook() -> None:
        raise KeyError("missing key")

    with pytest.raises(exceptions.RuntimeEnvSetupError, match="missing key"):
        get(about.options(runtime_env={"worker_process_setup_hook": hook}).remote())
    with pytest.raises(exceptions.RuntimeEnvSetupError, match="no_such_module"):
        get(about.options(runtime_env={"worker_process_setup_hook": "no_such_module.f"}).remote())


def test_environment_of_a_job_is_built_at_once_and_holds_in_all_of_it(tmp_path: Path) -> None:
    project = _project(tmp_path / "w", 14)
    output, _ = drivers.run(
        f"""
        import time, umbel
        from umbel._client import current

        umbel.init(num_cpus=1, runtime_env={{"working_dir": {str(project)!r}, "env_vars": {{"A": "1"}}}})
        until_s = time.monotonic() + 20
        while not [one for one in current.engine().query("environments") if one["state"] == "ready"]:
            assert time.monotonic() < until_s
            time.sleep(0.01)
        from umbel.util import state
        print([(sorted(one.runtime_env["built"]), one.success) for one in state.list_runtime_envs()])

        @umbel.remote
        def value():
            import own_module, os
            return own_module.VALUE, os.environ["A"], sorted(umbel.get_runtime_context().runtime_env)

        @umbel.remote
        def parent():
            return umbel.get(value.remote())

        print(umbel.get(parent.remote()), sorted(umbel.get_runtime_context().runtime_env))
        """
    )
    fields = "['env_vars', 'working_dir']"
    assert output == f"[(['working_dir'], True)]\n(14, '1', {fields}) {fields}\n"


def test_job_whose_files_are_missing_does_not_start(tmp_path: Path) -> None:
    umbel.shutdown()
    with pytest.raises(exceptions.InvalidOption, match="an existing directory"):
        umbel.init(num_cpus=1, runtime_env={"working_dir": str(tmp_path / "nowhere")})
    assert not umbel.is_initialized()


def test_inline_engine_refuses_what_needs_processes() -> None:
    umbel.shutdown()
    with pytest.raises(exceptions.UnsupportedFeature, match="inline"):
        umbel.init(engine="inline", runtime_env={"pip": ["six"]})
    with umbel.init(engine="inline"), pytest.raises(exceptions.UnsupportedFeature, match="inline"):
        about.options(runtime_env={"pip": ["six"]}).remote()


# ---- plugins ----


def test_field_of_a_plugin_joins_the_others(tmp_path: Path) -> None:
    (tmp_path / "licence_plugin.py").write_text(
        textwrap.dedent(
            """
            from umbel import spi
            from umbel.hookspecs import hookimpl

            class Licence:
                priority = 1
                conflicts = ("uv",)

                def validate(self, value):
                    if not isinstance(value, str):
                        raise TypeError("a licence is a name")
                    return value

                def pack(self, value, packing):
                    return value

                def build(self, value, build):
                    if value == "expired":
                        raise ValueError("the licence has expired")
                    def make(path):
                        with open(f"{path}/licence", "w") as file:
                            file.write(value)
                    build.workers.env_vars["LICENCE"] = build.cached(f"licence {value}", make)

            @hookimpl
            def umbel_runtime_envs():
                return [spi.RuntimeEnvDescriptor("licence", Licence, summary="a licence")]
            """
        )
    )
    about = tmp_path / "licence_plugin-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: licence-plugin\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[umbel.plugins]\nlicence = licence_plugin\n")
    output, _ = drivers.run(
        """
        import os, umbel
        umbel.init(num_cpus=1)

        @umbel.remote
        def look():
            return open(os.environ["LICENCE"] + "/licence").read()

        print(umbel.get(look.options(runtime_env={"licence": "ours", "env_vars": {"A": "1"}}).remote()))
        for bad in ({"licence": 5}, {"licence": "ours", "uv": []}, {"licence": "expired"}):
            try:
                umbel.get(look.options(runtime_env=bad).remote())
            except umbel.exceptions.UmbelError as error:
                print(type(error).__name__, str(error).replace("\\n", " ")[:2000])
        """,
        PYTHONPATH=f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}",
    )
    lines = output.splitlines()
    assert lines[0] == "ours"
    assert lines[1].startswith("InvalidOption") and "a licence is a name" in lines[1]
    assert lines[2].startswith("InvalidOption") and "both" in lines[2]
    assert lines[3].startswith("RuntimeEnvSetupError") and "the licence has expired" in lines[3]


# ---- crashes ----

BUILDING = """
    import umbel
    umbel.init(num_cpus=1)

    @umbel.remote(runtime_env={{"pip": ["--no-index", {project!r}]}})
    def f(): ...

    ref = f.remote()
    print("submitted", flush=True)
    umbel.wait([ref])
"""


@pytest.mark.parametrize("victim", ["driver", "daemon", "fork server", "builder"])
def test_nothing_is_left_of_a_build_when_a_process_is_killed(tmp_path: Path, victim: str) -> None:
    source = BUILDING.format(project=environment_files.project_that_hangs(tmp_path))
    with drivers.driver(source) as driver:
        assert driver.line() == "submitted"
        drivers.wait_until((tmp_path / "building").exists, what="the build")
        with open(os.path.join(driver.session_dir(), "processes")) as file:
            daemon, fork_server, builder = (int(line.split()[0]) for line in file)
        drivers.kill({"driver": driver.pid, "daemon": daemon, "fork server": fork_server, "builder": builder}[victim])
        if victim == "builder":
            pid = int((tmp_path / "building").read_text())
            drivers.wait_until(lambda: not drivers.is_running(pid), what="the end of what it had started")
            drivers.wait_until(
                lambda: int((tmp_path / "building").read_text() or 0) not in (0, pid), what="another build"
            )
            drivers.kill(driver.pid)
        driver.expect_nothing_left()
        assert [name for name in os.listdir(driver.directory) if not name.startswith("umbel-")] == []


def test_killed_server_of_an_environment_is_replaced(tmp_path: Path) -> None:
    umbel.shutdown()
    with umbel.init(num_cpus=1):
        bound = about.options(runtime_env={"working_dir": str(_project(tmp_path / "w", 15))})
        first = get(bound.remote())["parent"]
        drivers.kill(first)
        drivers.wait_until(lambda: not drivers.is_running(first), what="the server's end")
        assert get(bound.remote())["parent"] != first
