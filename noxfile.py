"""Every job of the repository.

`nox -l` lists them, `nox -s NAME` runs one, `nox -s NAME -- ARGUMENTS` passes arguments on. The packages stand in one
table, PACKAGES; what each needs is read from its own pyproject.toml. Jobs that run our code run the built wheels, in an
environment that holds only what the package declares and the tools of the job, so that a missing dependency or a file
left out of the wheel shows here and not at a user's.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nox
import nox.command
from nox.project import dependency_groups, load_toml

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "venv"  # the standard library's: nothing to install before the first job
nox.options.sessions = ["lint", "layers", "types", "build", "tests"]

ROOT = Path(__file__).parent
PEER = "ray==2.60.*"  # what the benchmarks compare with
DATA_PEERS = ("ray[data]==2.60.*", "polars", "pandas", "duckdb", "pillow", "torch==2.13.*")  # Ray Data joins by Polars
SIMULATED_SEEDS = "5000"  # of most worlds (`umbel.testing.simulation.jobs.EVERY`): below five minutes on two cores
TEST_PROCESSES_MAX = 4  # each test may start several nodes
SOAK_MINUTES = "10"
CHAOS_MINUTES = "10"
FUZZ_SECONDS = "60"


@dataclass(frozen=True)
class Package:
    """A distribution of this repository. `name` is its folder below packages/."""

    name: str

    @property
    def folder(self) -> Path:
        return ROOT / "packages" / self.name

    @property
    def sources(self) -> Path:
        return self.folder / "src"

    @property
    def settings(self) -> dict[str, Any]:
        return load_toml(self.folder / "pyproject.toml")

    @property
    def distribution(self) -> str:
        name: str = self.settings["project"]["name"]
        return name

    def group(self, name: str) -> list[str]:
        """The requirements of one of its dependency groups."""
        return list(dependency_groups(self.settings, name))

    def outside_requirements(self) -> list[str]:
        return [r for r in self.settings["project"]["dependencies"] if _name_of(r) not in _distributions()]

    def closure(self) -> list[Package]:
        """The package and those of this repository that it depends on, each after what it needs."""
        ours = _distributions()
        needed = [ours[name] for r in self.settings["project"]["dependencies"] if (name := _name_of(r)) in ours]
        ordered = [package for direct in needed for package in direct.closure()]
        return [*dict.fromkeys(ordered), self]


PACKAGES = (Package("core"), Package("data"))
each_package = nox.parametrize("package", [nox.param(package, id=package.name) for package in PACKAGES])


def _name_of(requirement: str) -> str:
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    if name is None:
        raise ValueError(f"not a requirement: {requirement!r}; write it as in PEP 508, for example 'click>=8.1'")
    return name[0].lower()


def _distributions() -> dict[str, Package]:
    return {package.distribution: package for package in PACKAGES}


def _tools(group: str) -> list[str]:
    """The requirements of a dependency group of the workspace."""
    return list(dependency_groups(load_toml(ROOT / "pyproject.toml"), group))


def _fingerprint(package: Package) -> str:
    digest = hashlib.sha256()
    files = [package.folder / name for name in ("pyproject.toml", "README.md", "LICENSE")]
    files += sorted(path for path in package.sources.rglob("*") if path.is_file() and path.suffix != ".pyc")
    for path in files:
        content = path.read_bytes()
        digest.update(f"{path.relative_to(package.folder)}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:16]


def _wheel(session: nox.Session, package: Package) -> Path:
    """The wheel of the sources as they are now, built once for all jobs and kept until the sources change."""
    kept = Path(session.cache_dir).resolve() / "wheels" / package.name
    house = kept / _fingerprint(package)
    if not list(house.glob("*.whl")):
        shutil.rmtree(kept, ignore_errors=True)
        command = ["python", "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(house)]
        session.run(*command, str(package.folder), silent=True)
    (wheel,) = house.glob("*.whl")
    return wheel


def _install(session: nox.Session, package: Package, *requirements: str) -> None:
    """Installs the wheels of the package and of what it needs of ours, with `requirements` beside them."""
    wheels = [str(_wheel(session, one)) for one in package.closure()]
    session.install(*wheels, *requirements)
    if session.virtualenv._reused:  # with `nox -r`: pip keeps an older wheel of the same version
        session.install("--force-reinstall", "--no-deps", *wheels)


@nox.session
def quickstart(session: nox.Session) -> None:
    """Run examples/quickstart.py on this Python's own standard library."""
    _install(session, PACKAGES[0])
    session.run("python", "examples/quickstart.py", *session.posargs)


@nox.session
@each_package
def tests(session: nox.Session, package: Package) -> None:
    """Test the built wheel of each package: first with nothing but what it declares, then with what a user may have as well what
    was skipped."""
    folder = str(package.folder / "tests")
    _install(session, package, *package.group("test"))
    if session.virtualenv._reused:  # with what it had more in the end, which would hide that something is not declared
        optional = [_name_of(requirement) for requirement in package.group("test-optional")]
        session.run("python", "-m", "pip", "uninstall", "--quiet", "--yes", *optional)
    environment = {"PYTHONPATH": None}
    # Most tests wait for processes. A file's tests share what takes long to set up.
    processes = str(min(os.cpu_count() or 1, TEST_PROCESSES_MAX))
    pytest = ["pytest", "--wheel", "--durations=10", "--durations-min=5"]
    pytest += ["--numprocesses", processes, "--dist=loadfile", "--no-loadscope-reorder"]
    skipped = Path(session.cache_dir, f"skipped-tests-{package.name}").resolve()
    session.run(*pytest, f"--skipped-tests={skipped}", folder, *session.posargs, env=environment)
    if skipped.read_text():
        session.install(*package.group("test-optional"))
        session.run(*pytest, f"@{skipped}", *session.posargs, env=environment)


@nox.session
def torch(session: nox.Session) -> None:
    """Test what needs PyTorch, which takes a large download: so each package in the environment of the one before."""
    for package in PACKAGES:
        _install(session, package, *package.group("test"), *package.group("test-torch"))
        folder = str(package.folder / "tests")
        session.run("pytest", "--wheel", "-m", "torch", folder, *session.posargs, env={"PYTHONPATH": None})


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format with ruff."""
    session.install(*_tools("lint"))
    session.run("ruff", "check", *session.posargs)
    session.run("ruff", "format", "--check")


@nox.session
def layers(session: nox.Session) -> None:
    """Check who imports whom: the contracts of pyproject.toml, on the built wheels."""
    for package in PACKAGES:
        _install(session, package, *_tools("layers"))
    session.run("lint-imports", "--no-cache", "--no-logo", *session.posargs, env={"PYTHONPATH": None})


@nox.session
def types(session: nox.Session) -> None:
    """Check types, strictly: ours, and those that users get, by programs that say which lines are mistakes."""
    outside = [r for package in PACKAGES for r in (*package.outside_requirements(), *package.group("types"))]
    session.install(*_tools("types"), *outside)
    sources = [package.sources for package in PACKAGES]
    session.run(
        "mypy",
        *(str(path / "umbel") for path in sources),
        "tools",
        str(PACKAGES[0].folder / "tests" / "types"),
        *session.posargs,
        env={"MYPYPATH": ":".join(map(str, sources))},
    )


@nox.session
def build(session: nox.Session) -> None:
    """Build the wheels and check what is in them."""
    session.run("python", "tools/check_wheels.py", *(str(_wheel(session, package)) for package in PACKAGES))


@nox.session
def sim(session: nox.Session) -> None:
    """Run the state machines in the simulator, with faults, for many seeds."""
    _install(session, PACKAGES[0])
    session.run("python", "-m", "umbel.testing.simulation", *(session.posargs or ["--seeds", SIMULATED_SEEDS]))


@nox.session
def fuzz(session: nox.Session) -> None:
    """Feed what reads from the network with made-up bytes, by atheris, or by hypothesis where that does not install."""
    package = PACKAGES[0]
    _install(session, package)
    try:
        session.install("--only-binary=:all:", *_tools("fuzz"))
    except nox.command.CommandFailed:
        session.warn("atheris has no wheel for this Python and system; hypothesis looks instead, without coverage")
        session.install(*package.group("test"))
        tests = str(package.folder / "tests/unit/test_wire_properties.py")
        environment = {"PYTHONPATH": None, "HYPOTHESIS_PROFILE": "long"}
        session.run("pytest", "--wheel", "--timeout=600", tests, env=environment)
    else:
        command = ["python", "tools/fuzz.py", *(session.posargs or ["--seconds", FUZZ_SECONDS])]
        session.run(*command, env={"PYTHONPATH": None})


@nox.session
def soak(session: nox.Session) -> None:
    """Mixed load for minutes while workers and actors are killed at random."""
    _install(session, PACKAGES[0], "numpy")
    session.run("python", "benchmarks/soak.py", *(session.posargs or ["--minutes", SOAK_MINUTES]))


@nox.session
def chaos(session: nox.Session) -> None:
    """Mixed load on five nodes for minutes while processes are killed and stopped and connections cut, held up and delayed."""
    _install(session, PACKAGES[0])
    session.run("python", "benchmarks/chaos.py", *(session.posargs or ["--minutes", CHAOS_MINUTES]))


@nox.session
def scale(session: nox.Session) -> None:
    """Measure what a cluster's control costs with 100 and with 2,000 simulated nodes."""
    _install(session, PACKAGES[0])
    session.run("python", "benchmarks/scale.py", *session.posargs)


@nox.session
def figures(session: nox.Session) -> None:
    """Measure what has no row in docs/benchmarks.md, beside Ray where that has it too, and write docs/figures.md."""
    package = PACKAGES[0]
    _install(session, package, *package.group("test-torch"), *package.group("test-optional"))
    command = ["python", "benchmarks/figures.py", "--peer-python", str(_peer_python(session, "peer", PEER, "numpy"))]
    session.run(*command, *(session.posargs or ["--write", "docs/figures.md"]))


def _peer_python(session: nox.Session, name: str, *requirements: str) -> Path:
    """Of an environment that has what the benchmarks compare with, made once for all jobs that want this one."""
    peer = Path(session.cache_dir).resolve() / name
    peer_python = peer / "bin" / "python"
    installed = peer / "installed"
    if not installed.exists() or installed.read_text() != "\n".join(requirements):
        session.run(sys.executable, "-m", "venv", "--clear", str(peer), external=True)
        session.run(str(peer_python), "-m", "pip", "install", "--quiet", *requirements, external=True)
        installed.write_text("\n".join(requirements))
    return peer_python


@nox.session
def bench(session: nox.Session) -> None:
    """Measure Umbel and Ray side by side and write docs/benchmarks.md."""
    _install(session, PACKAGES[0], "numpy")
    peer_python = _peer_python(session, "peer", PEER, "numpy")
    ours = Path(session.virtualenv.location).resolve() / "bin" / "python"
    command = ["python", "benchmarks/compare.py", "--umbel-python", str(ours), "--peer-python", str(peer_python)]
    session.run(*command, *(session.posargs or ["--write", "docs/benchmarks.md"]))


@nox.session
def bench_data(session: nox.Session) -> None:
    """Measure datasets beside Ray Data and other libraries and write docs/benchmarks-data.md."""
    _install(session, PACKAGES[1], "duckdb", "pillow", "polars")
    peer_python = _peer_python(session, "data-peers", *DATA_PEERS)
    folder = Path(session.cache_dir).resolve() / "bench-data"
    command = ["python", "benchmarks/data.py", "--peer-python", str(peer_python), "--folder", str(folder)]
    session.run(*command, *(session.posargs or ["--write", "docs/benchmarks-data.md"]))
