"""Runtime environments: files that travel, packages that are installed, and what becomes of tasks when they cannot be."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import drivers
import environment_files
import pytest

import umbel
from umbel import exceptions

PATIENCE_S = 45.0


@pytest.fixture(scope="module", autouse=True)
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UMBEL_RUNTIME_ENV_CACHE_DIR", str(directory))
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
    assert output == f"(14, '1', {fields}) {fields}\n"


def test_job_whose_files_are_missing_does_not_start(tmp_path: Path) -> None:
    umbel.shutdown()
    with pytest.raises(exceptions.InvalidOption, match="an existing directory"):
        umbel.init(num_cpus=1, runtime_env={"working_dir": str(tmp_path / "nowhere")})
    assert not umbel.is_initialized()


def test_killed_server_of_an_environment_is_replaced(tmp_path: Path) -> None:
    umbel.shutdown()
    with umbel.init(num_cpus=1):
        bound = about.options(runtime_env={"working_dir": str(_project(tmp_path / "w", 15))})
        first = get(bound.remote())["parent"]
        drivers.kill(first)
        drivers.wait_until(lambda: not drivers.is_running(first), what="the server's end")
        assert get(bound.remote())["parent"] != first
