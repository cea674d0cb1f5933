"""Makes one environment and becomes its fork server: in this process, or by running another interpreter.

Forked from the node's fork server, as the head of a process group. Whatever can take long or fail is done here, while the
agent listens; messages to it are those of a fork server, and before {"t": "building", "text"}
and, if there will be none, {"t": "unbuilt", "error"}.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shlex
import signal
import socket
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from umbel import exceptions
from umbel._base import sessions, variables
from umbel._environments import building, packing

if TYPE_CHECKING:
    import subprocess

_FDS_MAX = 2  # with one message: a worker's two pipes
_BOOT = "umbel._agent.environment_boot"


def prepare(
    control: socket.socket, config: dict[str, Any], order: dict[str, Any], die_with_parent: Callable[[], None]
) -> dict[str, Any] | None:
    """Build what `order` says. Returns the configuration of a fork server that goes on here; None when the build has
    failed, which the agent has been told. Does not return when another interpreter takes over.

    order["job"] replaces what it names of the node's configuration: the driver's own. One of another machine names neither
    interpreter nor paths, and its workers have the node's.
    """
    job, node_flags = order["job"], config["interpreter_flags"]
    if job is not None:
        config = {**config, **job}
    sessions.record_process(os.getpid(), config["session_dir"])
    log = os.open(log_path(config["session_dir"], order["id"]), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)

    def tell(message: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # the agent is gone, which ends us soon
            control.send(json.dumps(message).encode())

    directories = [config["session_dir"], config["store_dir"]]
    build = building.Build(
        packages_dir=packing.directory_of(config["session_dir"]),
        temporary_dir=os.path.join(config["session_dir"], f"building-{order['id']}"),
        session_directories=tuple(path for path in directories if not path.startswith(sessions.SHM_DIR)),
        log=log,
        tell=lambda text: tell({"t": "building", "text": text[:1000]}),
        ended=control.fileno(),
        before_exec=lambda: _before_exec(die_with_parent),
    )
    try:
        build.build(order["built"])
        is_local = job is not None and "python" in job
        if is_local and not build.workers.interpreter and _is_foreign(job, node_flags):
            build.workers.interpreter = [_interpreter_of(job)]
        taken = _take_over(control, config, order["id"], build, die_with_parent)
        if job is not None and taken is not None:
            from umbel._agent import forkserver

            forkserver.import_all(job["worker_imports"], tell)
        return taken
    except exceptions.UmbelError as error:
        tell({"t": "unbuilt", "error": str(error)[:60_000]})
    except Exception:
        import traceback

        tell({"t": "unbuilt", "error": traceback.format_exc()[-60_000:]})
    return None


def log_path(session_dir: str, server: str) -> str:
    return os.path.join(session_dir, f"{server}.log")


def _before_exec(die_with_parent: Callable[[], None]) -> None:
    die_with_parent()
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _take_over(
    control: socket.socket,
    config: dict[str, Any],
    server: str,
    build: building.Build,
    die_with_parent: Callable[[], None],
) -> dict[str, Any] | None:
    setup = build.workers
    variables.put_back(config["replaced_env"])
    os.environ.update(setup.env_vars)
    replaced = variables.put(config["worker_env"].items())
    config = {**config, "is_environment": True, "cwd": setup.cwd or config["cwd"], "replaced_env": replaced}
    if not (setup.interpreter or setup.around or _is_imported(setup.import_paths)):
        sys.path[:] = building.sys_path_of(setup, config["sys_path"])
        with contextlib.suppress(OSError):
            os.chdir(config["cwd"])
        return config
    config |= {
        "env_vars": setup.env_vars,
        "put_env": {} if setup.is_isolated else {name: os.environ[name] for name in replaced},
        "locks": build.locks,
        "control": control.fileno(),
        "control_path": os.path.join(config["session_dir"], f"{server}.env") if setup.is_isolated else "",
        "python": config.get("python_version") or list(sys.version_info[:2]),
        "umbel_version": _version(),
        "import_paths": setup.import_paths,
        "program_paths": [] if setup.is_isolated else _program_paths(config["sys_path"]),
    }
    has_own = setup.has_own_packages or setup.is_isolated
    config["sys_path"] = None if has_own else building.sys_path_of(setup, config["sys_path"])
    path = os.path.join(config["session_dir"], f"{server}.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(config, file)
    if setup.is_isolated:
        _relay(control, [*setup.around, "-m", _BOOT, path], config["control_path"], die_with_parent)
    command = [*setup.around, *(setup.interpreter or [sys.executable])]
    if setup.has_own_packages:
        command += ["-m", _BOOT, path]  # of a file, `uv run` would look for a project where that lies
        shown = shlex.join(command)
        build.tell(shown)
        python = ".".join(map(str, config["python"]))
        os.write(1, f"$ {shown}  # must run Python {python} with umbel {config['umbel_version']} installed\n".encode())
    else:
        command += [*config["interpreter_flags"], os.path.join(os.path.dirname(__file__), "environment_boot.py"), path]
    for fd in (control.fileno(), *build.locks):
        os.set_inheritable(fd, True)
    with contextlib.suppress(OSError):
        os.chdir(config["cwd"])  # where uv looks for a project
    try:
        os.execvp(command[0], command)
    except OSError as error:
        raise exceptions.RuntimeEnvSetupError(f"cannot run {command[0]!r}: {error}") from error


def _is_foreign(job: dict[str, Any], node_flags: list[str]) -> bool:
    """Whether a driver's workers cannot come of this process: another interpreter is theirs, or they would import other
    files than have been imported here."""
    if os.path.realpath(job["python"]) != os.path.realpath(sys.executable) or job["prefix"] != sys.prefix:
        return True
    if job["interpreter_flags"] != node_flags:
        return True
    from importlib import machinery

    for name, module in list(sys.modules.items()):
        origin = getattr(getattr(module, "__spec__", None), "origin", None)
        if "." in name or not origin or not os.path.isabs(origin) or _is_of_python(origin):
            continue
        found = machinery.PathFinder.find_spec(name, job["sys_path"])
        if found is None or found.origin != origin:
            return True
    return False


def _interpreter_of(job: dict[str, Any]) -> str:
    """The driver's. Raises RuntimeEnvSetupError where it is not."""
    python: str = job["python"]
    if not os.access(python, os.X_OK):
        raise exceptions.RuntimeEnvSetupError(
            f"workers of this job run {python}, as its driver does, which is not on this node; install it there at the same "
            "path, or connect by umbel://, whose workers have the node's own interpreter"
        )
    return python


def _is_of_python(origin: str) -> bool:
    """Whether a file belongs to the interpreter's own library."""
    library = os.path.dirname(os.__file__) + os.sep
    return origin.startswith(library) and not building.is_package_directory(
        library + origin[len(library) :].partition(os.sep)[0]
    )


def _is_imported(paths: list[str]) -> bool:
    """Whether something of these directories has been imported here from elsewhere, so that workers would see that."""
    names = {name.partition(".")[0] for path in paths for name in os.listdir(path)}
    return any(name in sys.modules for name in names)


def _program_paths(driver: list[str]) -> list[str]:
    """What of the driver's `sys.path` belongs to the program, and not to its interpreter."""
    interpreters = {os.path.realpath(path) for path in (sys.prefix, sys.base_prefix)}
    return [
        path
        for path in driver
        if not building.is_package_directory(path)
        and not any((os.path.realpath(path) + os.sep).startswith(one + os.sep) for one in interpreters)
        and not path.endswith(".zip")
    ]


def _version() -> str:
    """Of the driver's Umbel; "" where it is not installed, but read from a checkout of its sources."""
    from importlib import metadata

    try:
        return metadata.version("umbel")
    except metadata.PackageNotFoundError:
        return ""


def _relay(control: socket.socket, command: list[str], path: str, die_with_parent: Callable[[], None]) -> NoReturn:
    """Run `command`, whose fork server connects to `path` because it cannot have our files, and pass messages on until
    either side ends."""
    import subprocess

    from umbel._agent import forkserver

    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(path)
    listener.listen(1)
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            preexec_fn=lambda: _before_exec(die_with_parent),  # noqa: PLW1509  # this process has one thread
        )
    except OSError as error:
        raise exceptions.RuntimeEnvSetupError(f"cannot run {command[0]!r}: {error}") from error
    poll = select.poll()
    poll.register(control, select.POLLIN)
    poll.register(listener, select.POLLIN)
    inside: socket.socket | None = None
    while True:
        for fd, _ in poll.poll(None if inside is not None else building.EXIT_LOOK_S * 1e3):
            if fd == listener.fileno():
                inside, _ = listener.accept()
                poll.unregister(listener)
                poll.register(inside, select.POLLIN)
                continue
            source, target = (control, inside) if fd == control.fileno() else (inside, control)
            if source is None or target is None or not _pass_on(source, target, forkserver.MESSAGE_BYTES_MAX):
                _end(process, inside)
        if inside is None and process.poll() is not None:
            raise exceptions.RuntimeEnvSetupError(f"{command[0]} exited with code {process.returncode}")


def _pass_on(source: socket.socket, target: socket.socket, bytes_max: int) -> bool:
    """One message, with what is open in it; false when a side has ended."""
    fds: list[int] = []
    try:
        data, fds, _, _ = socket.recv_fds(source, bytes_max, _FDS_MAX)
        if not data:
            return False
        if fds:
            socket.send_fds(target, [data], fds)
        else:
            target.send(data)
    except OSError:
        return False
    finally:
        for fd in fds:
            os.close(fd)
    return True


def _end(process: subprocess.Popen[bytes], inside: socket.socket | None) -> NoReturn:
    """Let the fork server inside end itself, which its closed socket tells it to, and then all that is left here."""
    import subprocess

    if inside is not None:
        inside.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_END_S)
    os.killpg(0, signal.SIGKILL)
    raise AssertionError("not reached")


_END_S = 5.0  # for the workers inside to be killed and reaped
