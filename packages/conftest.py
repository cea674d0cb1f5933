"""What the tests of every package share: where umbel comes from, and that no process stays behind."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

PACKAGES = Path(__file__).resolve().parent
MARK = "UMBEL_TEST_RUN"  # in the environment of this run and so of every process that it starts, however deep
LEAVE_S = 10.0  # for processes of the last test to end: twice the time from asking a worker to killing it

# A shell that starts us in the background lets us ignore SIGINT; our workers would inherit that, and a running task
# could not be cancelled.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--wheel", action="store_true", help="refuse to test umbel's sources: only an installed wheel will do"
    )
    parser.addoption(
        "--skipped-tests", metavar="PATH", help="write there which tests were skipped, and which files as a whole"
    )


def pytest_configure(config: pytest.Config) -> None:
    import umbel

    sources = [path for path in umbel.__path__ if PACKAGES in Path(path).resolve().parents]
    if config.getoption("--wheel") and sources:
        raise pytest.UsageError(f"--wheel needs umbel installed from wheels, got {sources}; run the tests with nox")
    is_one_of_several = hasattr(config, "workerinput")  # of pytest-xdist, whose controller hears of all
    if (path := config.getoption("--skipped-tests")) and not is_one_of_several:
        config.pluginmanager.register(_SkippedTests(config.rootpath, Path(path)))


class _SkippedTests:
    """What is to be run again where all that it needs is installed."""

    def __init__(self, root: Path, path: Path) -> None:
        self._root = root
        self._path = path
        self._found: set[str] = set()

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._note(report)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._note(report)

    def _note(self, report: pytest.CollectReport | pytest.TestReport) -> None:
        if report.skipped:
            self._found.add(f"{self._root}/{report.nodeid}")

    def pytest_sessionfinish(self) -> None:
        self._path.write_text("".join(f"{one}\n" for one in sorted(self._found)))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if importlib.util.find_spec("torch") is None:
        for item in items:
            if item.get_closest_marker("torch"):
                item.add_marker(pytest.mark.skip(reason="needs PyTorch: nox -s torch installs it"))


def pytest_report_header() -> str:
    import umbel

    return f"umbel: {Path(str(umbel.__file__)).parent}"


def _left_behind(mark: str) -> list[psutil.Process]:
    left = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(MARK) == mark:
                left.append(process)
        except psutil.Error:  # it ended meanwhile, is a zombie, or belongs to somebody else
            continue
    return left


@pytest.fixture(scope="session", autouse=True)
def _own_place_for_sessions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A node that runs on this machine is not found by tests that start private ones, nor found by others what tests start. After
    the last test no session's directory is left."""
    tmp_path_factory.getbasetemp()  # stays where it is
    directory = tempfile.mkdtemp(prefix="u", dir="/tmp")  # a short one, for paths of sockets
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", directory)
        patch.setattr(tempfile, "tempdir", None)
        yield
        patch.undo()
    base = os.path.join(directory, f"umbel-{os.getuid()}")
    deadline = time.monotonic() + LEAVE_S
    while (left := os.listdir(base) if os.path.isdir(base) else []) and time.monotonic() < deadline:
        time.sleep(0.05)
    shutil.rmtree(directory)
    assert left == []


@pytest.fixture(scope="session", autouse=True)
def _no_process_stays_behind(_own_place_for_sessions: None) -> Iterator[None]:
    """After the last test no process that this run started is alive, nor any that those started, orphans included."""
    mark = uuid.uuid4().hex
    os.environ[MARK] = mark
    yield
    del os.environ[MARK]
    deadline = time.monotonic() + LEAVE_S
    while (left := _left_behind(mark)) and time.monotonic() < deadline:
        time.sleep(0.05)  # nothing tells when a process that is not our child ends
    told = [f"{process.pid} {' '.join(process.cmdline())}" for process in left if process.is_running()]
    for process in left:
        process.kill()
    assert told == []
