"""Fields of `runtime_env`: what is allowed, what is refused with which words, and what travels."""

from __future__ import annotations

import copy
import os
import sys
from pathlib import Path
from typing import Any

import pytest

import umbel
from umbel import exceptions
from umbel._client import environments
from umbel._environments import building, containers, packing, requirements, virtual
from umbel._model import package_names, runtime_envs
from umbel.runtime_env import RuntimeEnv, RuntimeEnvConfig


class _Packing:
    """For plugins whose values pack no files."""

    def __init__(self, **env_vars: str) -> None:
        self.env_vars = env_vars
        self.excludes = ()

    def add_directory(self, path: str, *, into: str = "") -> str:
        raise AssertionError(path)

    add_file = add_archive = add_directory


class _FilePacking(_Packing):
    """For those that pack single files."""

    def __init__(self, packages: packing.Packages, **env_vars: str) -> None:
        super().__init__(**env_vars)
        self._packages = packages

    def add_file(self, path: str) -> str:
        return self._packages.add_file("a wheel", path)


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"nonsense": 1}, "allowed are config, container, env_vars, excludes"),
        ({"nonsense": None}, "no field 'nonsense'"),
        ({"conda": "base"}, "left to a plugin"),
        ({"pip": ["a"], "uv": ["a"]}, "both"),
        ({"container": {"image": "i"}, "working_dir": "."}, "both"),
        ({"pip": 5}, "a list of requirements, a requirements file or a dict"),
        ({"pip": "/nowhere/requirements.txt"}, "requirements file that can be read"),
        ({"pip": {"packages": [], "nonsense": 1}}, "allowed are packages, pip_check"),
        ({"pip": {"pip_check": True}}, "'packages'"),
        ({"pip": {"packages": [], "pip_check": 1}}, "True or False"),
        ({"uv": {"packages": [], "uv_pip_install_options": "x"}}, "a list of str"),
        ({"working_dir": 5}, "a path"),
        ({"working_dir": "s3://bucket/x.zip"}, "local directories"),
        ({"py_modules": "x"}, "a list of paths"),
        ({"py_modules": [5]}, "a path"),
        ({"py_executable": ""}, "a command"),
        ({"py_executable": "'"}, "a command"),
        ({"container": {"image": ""}}, "the name of an image"),
        ({"container": {"image": "i", "x": 1}}, "allowed are image and run_options"),
        ({"image_uri": "--privileged"}, "the name of an image"),
        ({"excludes": "x"}, "a list of patterns"),
        ({"config": 5}, "RuntimeEnvConfig"),
        ({"config": {"x": 1}}, "allowed are setup_timeout_seconds"),
        ({"config": {"setup_timeout_seconds": 0}}, "seconds > 0"),
        ({"config": {"eager_install": 1}}, "True or False"),
        ({"config": {"log_files": ["x"]}}, "not there"),
        ({"worker_process_setup_hook": 5}, "module.function"),
        ({"worker_process_setup_hook": "function"}, "module.function"),
    ],
)
def test_refused(env: dict[str, Any], words: str) -> None:
    with pytest.raises(exceptions.UmbelError) as caught:
        environments.validated(env)
    assert words in str(caught.value)
    with pytest.raises(type(caught.value)):
        umbel.remote(runtime_env=env)(len)


def test_what_is_allowed_is_valid_again(tmp_path: Path) -> None:
    env = {
        "env_vars": {"A": "1"},
        "working_dir": tmp_path,
        "py_modules": [umbel.util, tmp_path / "x.py"],
        "pip": ["six==1.0"],
        "excludes": ("a",),
        "config": RuntimeEnvConfig(setup_timeout_seconds=5),
        "worker_process_setup_hook": lambda: None,
    }
    once = environments.validated(env)
    assert environments.validated(once) == once
    assert once["working_dir"] == str(tmp_path)
    assert once["pip"] == {"packages": ["six==1.0"]}
    assert once["config"] == {"setup_timeout_seconds": 5, "eager_install": True}
    assert once["py_modules"][0] == os.path.dirname(umbel.util.__file__)


def test_runtime_env_is_a_dictionary_of_what_it_was_given() -> None:
    assert RuntimeEnv(pip=["a"], env_vars={"A": "1"}) == {"pip": {"packages": ["a"]}, "env_vars": {"A": "1"}}
    assert RuntimeEnv(pip=["a"]).to_dict() == {"pip": {"packages": ["a"]}}
    assert copy.deepcopy(RuntimeEnv(pip=["a"])) == RuntimeEnv(pip=["a"])
    with pytest.raises(
        exceptions.UnsupportedAttribute, match=r"RuntimeEnv has no 'has_pip': it is a dictionary of its"
    ):
        RuntimeEnv(pip=["a"]).has_pip()
    with pytest.raises(exceptions.InvalidOption, match="nonsense"):
        RuntimeEnv(nonsense=1)
    with pytest.raises(exceptions.InvalidOption, match="env_vars"):
        RuntimeEnv(env_vars={"A": 1})  # type: ignore[dict-item]


def test_child_inherits_merges_variables_and_replaces_the_rest() -> None:
    parent = {"env_vars": {"A": "1", "B": "1"}, "built": {"pip": 1, "working_dir": "w"}, "config": {"x": 1}}
    child = {"env_vars": {"B": "2"}, "built": {"working_dir": "v"}, "hook": "m.f"}
    assert runtime_envs.merged(parent, child, environments.conflicts) == {
        "env_vars": {"A": "1", "B": "2"},
        "built": {"pip": 1, "working_dir": "v"},
        "config": {"x": 1},
        "hook": "m.f",
    }


def test_what_a_child_asks_for_displaces_what_it_cannot_have_with_it() -> None:
    parent = {"built": {"pip": 1, "working_dir": "w"}}
    assert runtime_envs.merged(parent, {"built": {"uv": 2}}, environments.conflicts) == {
        "built": {"uv": 2, "working_dir": "w"}
    }
    assert runtime_envs.merged(parent, {"built": {"image_uri": "i"}}, environments.conflicts) == {
        "built": {"image_uri": "i"}
    }


def test_what_travels_can_be_written_as_the_option_again() -> None:
    env = {"env_vars": {"A": "1"}, "built": {"working_dir": "umbel-package://1"}, "hook": "m.f", "config": {}}
    assert runtime_envs.as_option(env) == {
        "env_vars": {"A": "1"}, "working_dir": "umbel-package://1", "worker_process_setup_hook": "m.f",
    }  # fmt: skip


def test_packing_reads_local_files_once_for_a_session(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "a").write_text("1")
    fields = environments.validated({"working_dir": tmp_path / "w", "excludes": ["b"]})
    found = environments.packed({"A": "1"}, fields, {"env_vars": {"B": "2"}}, str(tmp_path))
    uri = found["built"]["working_dir"]
    assert found == {"env_vars": {"A": "1", "B": "2"}, "built": {"working_dir": uri}}
    packages = packing.Packages(str(tmp_path / "packages"), bytes_max=0)
    assert os.listdir(packages.unpacked(uri)) == ["a"]


def test_missing_directory_is_refused_when_it_is_packed(tmp_path: Path) -> None:
    fields = environments.validated({"working_dir": tmp_path / "nowhere"})
    with pytest.raises(exceptions.InvalidOption, match="an existing directory"):
        environments.packed({}, fields, {}, str(tmp_path))


# ---- pip and uv ----


def test_requirements_file_is_read_and_its_paths_made_absolute(tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("six\n")
    (tmp_path / "tiny-1.0-py3-none-any.whl").write_text("")
    text = "# all\n\n-r more.txt\ntiny-1.0-py3-none-any.whl # here\nnumpy>=1 \\\n  ; python_version>'3'\n--no-index\n"
    (tmp_path / "requirements.txt").write_text(text)
    found = requirements.Pip().validate(str(tmp_path / "requirements.txt"))
    assert found == {
        "packages": [
            f"-r {tmp_path}/more.txt",
            f"{tmp_path}/tiny-1.0-py3-none-any.whl",
            "numpy>=1    ; python_version>'3'",
            "--no-index",
        ]
    }


def test_contents_of_local_files_and_settings_of_the_tool_tell_environments_apart(tmp_path: Path) -> None:
    wheel = tmp_path / "tiny-1.0-py3-none-any.whl"
    wheel.write_text("1")
    pip = requirements.Pip()
    value = pip.validate([str(wheel)])
    packages = packing.Packages(str(tmp_path / "packages"), bytes_max=1 << 20)

    def packed(value: Any, **env_vars: str) -> dict[str, Any]:
        return pip.pack(value, _FilePacking(packages, **env_vars))

    first = packed(value)
    assert packed(value, OTHER="1") == first
    assert packed(pip.validate(first)) == first
    other_settings = packed(value, PIP_INDEX_URL="https://elsewhere")
    wheel.write_text("2")
    assert len({str(one) for one in (first, other_settings, packed(value))}) == 3
    wheel.unlink()
    with pytest.raises(exceptions.InvalidOption, match="cannot be read"):
        packed(value)


def test_wheels_travel_as_packages_and_projects_stay_where_they_are(tmp_path: Path) -> None:
    wheel = tmp_path / "tiny-1.0-py3-none-any.whl"
    wheel.write_text("1")
    (tmp_path / "project").mkdir()
    packages = packing.Packages(str(tmp_path / "packages"), bytes_max=1 << 20)
    uv = requirements.Uv()
    lines = [str(wheel), f"tiny @ file://{wheel}", f"{tmp_path}/project", f"-e {tmp_path}/project", "six"]
    plain, url, *others = uv.pack(uv.validate(lines), _FilePacking(packages))["packages"]
    assert others == lines[2:]
    (name,) = package_names.names_in(plain)
    assert (plain, url) == (
        f"{package_names.SCHEME}{name}/{wheel.name}",
        f"tiny @ file://{package_names.SCHEME}{name}/{wheel.name}",
    )
    assert Path(package_names.with_paths(plain, packages.unpacked)).read_text() == "1"


def test_project_directory_is_told_apart_by_its_files(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("1")
    uv = requirements.Uv()
    value = uv.validate([f"-e {tmp_path}"])
    first = uv.pack(value, _Packing())["files"]
    (tmp_path / "pyproject.toml").write_text("2")
    assert uv.pack(value, _Packing())["files"] != first


def test_what_is_inherited_tells_environments_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packages = tmp_path / "site-packages"
    packages.mkdir()
    monkeypatch.setattr(sys, "path", [*sys.path, str(packages)])
    before = virtual.inherited_state()
    assert before == virtual.inherited_state()
    os.utime(packages, ns=(1, 1))  # as installing something does
    assert virtual.inherited_state() != before
    assert virtual.settings_in({"PIP_INDEX_URL": "a", "UV_X": "b", "PIPELINE": "c"}) == {
        "PIP_INDEX_URL": "a", "UV_X": "b",
    }  # fmt: skip


def test_settings_of_the_tool_may_append_to_the_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", "/node")
    value = requirements.Pip().pack({"packages": []}, _Packing(PIP_FIND_LINKS="${PIP_FIND_LINKS} /own"))
    assert virtual.tool_settings(value) == {"PIP_FIND_LINKS": "/node /own"}


# ---- how workers are started ----


def test_own_packages_come_before_the_drivers_and_modules_before_all() -> None:
    setup = runtime_envs.WorkerSetup()
    setup.import_paths = ["/w"]
    setup.package_paths = ["/v/lib/python3/site-packages"]
    driver = ["/script", "/lib/python3", "/d/site-packages", "/e/dist-packages"]
    assert building.sys_path_of(setup, driver) == [
        "/w", "/script", "/lib/python3", "/v/lib/python3/site-packages", "/d/site-packages", "/e/dist-packages",
    ]  # fmt: skip


def test_command_lines_of_podman_and_docker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"UMBEL_X": "1", "OTHER": "2"})
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    monkeypatch.setattr(os, "getgid", lambda: 100)
    common = ["run", "--rm", "--network=host", "--pid=host", "--ipc=host"]
    rest = ["--volume=/s:/s", "--env=UMBEL_X", "--entrypoint=python3", "--gpus=all", "image:1"]
    assert containers.command("/bin/podman", "image:1", ["--gpus=all"], ("/s",)) == [
        "/bin/podman", *common, "--cgroup-manager=cgroupfs", "--userns=keep-id", *rest,
    ]  # fmt: skip
    assert containers.command("/bin/docker", "image:1", ["--gpus=all"], ("/s",)) == [
        "/bin/docker", *common, "--user=1000:100", *rest,
    ]  # fmt: skip


def test_missing_container_tool_is_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(exceptions.RuntimeEnvSetupError, match="podman or docker"):
        containers.tool()


def test_inline_engine_refuses_what_needs_processes() -> None:
    environments.refuse_inline('{"excludes": ["a"], "config": {}}')
    with pytest.raises(exceptions.UnsupportedFeature, match=r"'pip'.*inline engine"):
        environments.refuse_inline('{"pip": {}}')
