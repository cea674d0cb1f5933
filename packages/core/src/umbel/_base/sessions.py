"""Where a session keeps its files, and how to tell and remove one whose processes are gone.

A session directory is `<base>/<pid>-<start time>-<pid namespace>-<random>`, after the process that made it; its shared
memory is `<shm>/umbel-<uid>-<same name>`. The start time tells a process from a later one with the same pid, the
namespace keeps containers that share a directory from taking each other's sessions for stale. Nothing here starts or
asks a process; everything may be run by several processes at once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import stat
from collections.abc import Callable
from typing import NamedTuple

SHM_DIR = "/dev/shm"
SOCKET_PATH_BYTES_MAX = 107 if os.path.isdir("/proc") else 103  # sun_path without its final zero: Linux, macOS
SOCKET_NAME_BYTES = (
    38  # "/" + a worker id in hexadecimal + ".sock" or ".door", the longest names in a session directory
)
AGENT_SOCKET = "agent.sock"  # in the session directory: where the daemon listens
SPILL_FILE = "spilling"  # in the session directory: where its values are moved to, unless into it
OUTLIVES_FILE = "outlives-drivers"  # in the session directory of a node that does
CLUSTER_FILE = "cluster.json"  # in that of a head which launches nodes: what it is to follow of its cluster's file
GROUP_FILE = "memory-group"  # in the session directory: the control group that holds those of its workers, if any
GROUP_TRIES_MAX, GROUP_RETRY_S = 100, 0.01  # a killed process leaves its group within milliseconds
LATE_TRIES_MAX, LATE_RETRY_S = 100, 0.02  # and makes files no longer, or on a busy machine within a second
# Lines "pid start-time": in both directories the daemon and its fork server; in the session directory alone the servers of
# environments and the recorder of the history, too. What serves metrics is in neither: it ends with the daemon's pipe.
PROCESSES_FILE = "processes"


def start_time(pid: int) -> int:
    """When the process started, in clock ticks since boot; 0 where that cannot be known or it is gone or a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] == b"Z" else int(fields[19])


def is_alive(pid: int, started: int) -> bool:
    """Whether the process that had this pid and start time still runs."""
    if os.path.isdir("/proc/self"):
        return start_time(pid) == started
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def new_name() -> str:
    """A name for a session that this process makes."""
    return f"{os.getpid()}-{start_time(os.getpid())}-{_pid_namespace()}-{os.urandom(4).hex()}"


def _pid_namespace() -> int:
    """A number that differs between containers with different process ids; 0 where there is no such thing."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return 0


def base_dir() -> str:
    """The directory of all this user's sessions, created if need be: private, short enough for socket paths.

    Raises RuntimeError when no candidate can be used, with the reason for each.
    """
    reasons = []
    # Not tempfile.gettempdir(): importing that takes longer than starting the daemon's interpreter.
    wished = [os.environ[name] for name in ("TMPDIR", "TEMP", "TMP") if os.environ.get(name)]
    for parent in dict.fromkeys((*map(os.path.abspath, wished), "/tmp")):
        path = os.path.join(parent, f"umbel-{os.getuid()}")
        longest = len(os.fsencode(path)) + len("/4194304-100000000000-4294967295-12345678") + SOCKET_NAME_BYTES
        if longest > SOCKET_PATH_BYTES_MAX:
            reasons.append(
                f"{path}: socket paths in it would have {longest} bytes, the system allows {SOCKET_PATH_BYTES_MAX}"
            )
            continue
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(path, 0o700)
            found = os.lstat(path)
        except OSError as error:
            reasons.append(f"{path}: {error.strerror}")
            continue
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            reasons.append(f"{path}: it exists and is not a directory of this user")
            continue
        if found.st_mode & 0o077:
            os.chmod(path, 0o700)
        return path
    raise RuntimeError(
        f"Umbel found no directory for its sockets ({'; '.join(reasons)}); set TMPDIR to a short path on a local disk"
    )


def kept_logs_dir() -> str:
    """Where logs are kept, in a directory for each session, unless the configuration says otherwise."""
    return os.path.join(base_dir(), "logs")


def store_dir_for(session_dir: str) -> str:
    """Where this session's shared memory lives: in /dev/shm, or in the session directory where there is none."""
    if os.path.isdir(SHM_DIR) and os.access(SHM_DIR, os.W_OK | os.X_OK):
        return os.path.join(SHM_DIR, f"umbel-{os.getuid()}-{os.path.basename(session_dir)}")
    return os.path.join(session_dir, "store")


def spill_dir_for(session_dir: str, wished: str) -> str:
    """Where this session's values go that are moved out of shared memory. wished: a path or a URL, "" for the session
    directory."""
    if not wished:
        return os.path.join(session_dir, "spilled")
    return f"{wished.rstrip('/')}/umbel-{os.getuid()}-spilled-{os.path.basename(session_dir)}"


def make_directories(session_dir: str, store_dir: str, spill_dir: str) -> None:
    """Make a session's directories. The daemon does, which removes them: its starter may be killed at any moment.
    spill_dir is made when it is first used."""
    os.mkdir(session_dir, 0o700)
    try:
        os.makedirs(store_dir, 0o700, exist_ok=True)
        if not spill_dir.startswith(session_dir):
            with open(os.path.join(session_dir, SPILL_FILE), "w", encoding="utf-8") as file:
                file.write(spill_dir)
    except OSError:
        remove_tree(session_dir)
        raise


def spill_url(session_dir: str) -> str:
    """The URL to which this session moves values; "" if it is a path."""
    place = _spill_place(session_dir)
    return place if "://" in place else ""


def _spill_place(session_dir: str) -> str:
    """Outside of the session directory; "" if there is none. What it names is removed, so it must be a session's."""
    try:
        with open(os.path.join(session_dir, SPILL_FILE), encoding="utf-8") as file:
            place = file.read()
    except (OSError, UnicodeDecodeError):
        return ""
    return place if place == spill_dir_for(session_dir, os.path.dirname(place)) else ""


def remove_session(session_dir: str, store_dir: str) -> None:
    """Remove all that a session has on this machine's disks, in shared memory and of control groups, once its processes
    are gone. What it has elsewhere is not for us: see `spill_url`."""
    place = _spill_place(session_dir)
    _remove_wholly(store_dir)
    if place and "://" not in place:
        _remove_wholly(place)
    _remove_group(session_dir)
    _remove_wholly(session_dir)


def _remove_wholly(path: str) -> None:
    """Where a process that was killed is not gone yet, and makes a file meanwhile, the directory is not empty at once."""
    remove_tree(path)
    for _ in range(LATE_TRIES_MAX):
        if not os.path.isdir(path):
            return
        import time  # most sessions are removed at once

        time.sleep(LATE_RETRY_S)
        remove_tree(path)


def _remove_group(session_dir: str) -> None:
    """The control groups of a session's workers, which are killed by now."""
    try:
        with open(os.path.join(session_dir, GROUP_FILE)) as file:
            path = file.read()
    except OSError:
        return
    if not os.path.basename(path).startswith("umbel-"):
        return  # not one of ours
    with contextlib.suppress(OSError), os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                _remove_empty_group(entry.path)
    _remove_empty_group(path)


def _remove_empty_group(path: str) -> None:
    import time  # most sessions have no groups

    for _ in range(GROUP_TRIES_MAX):
        try:
            os.rmdir(path)
        except FileNotFoundError:
            return
        except OSError:  # its last process has not gone yet
            time.sleep(GROUP_RETRY_S)
        else:
            return


def remove_tree(path: str) -> None:
    """Remove a directory and all in it. What cannot be removed, or is gone already, is left."""
    with contextlib.suppress(OSError), os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                remove_tree(entry.path)
            else:
                with contextlib.suppress(OSError):
                    os.unlink(entry.path)
    with contextlib.suppress(OSError):
        os.rmdir(path)


def record_process(pid: int, *directories: str) -> None:
    """Note in a session's directories that `pid` belongs to it, so that they are not taken for stale while it runs."""
    for directory in directories:
        with open(os.path.join(directory, PROCESSES_FILE), "a") as file:
            file.write(f"{pid} {start_time(pid)}\n")


def running_sessions(base: str) -> list[str]:
    """This user's session directories whose daemon runs, the newest last."""
    return _serving(_starting_with(os.path.join(base, "")))


def _serving(paths: list[str]) -> list[str]:
    serving = []
    for path in paths:
        if os.path.exists(os.path.join(path, AGENT_SOCKET)) and not _is_stale(os.path.basename(path), path):
            with contextlib.suppress(FileNotFoundError):  # it has ended meanwhile
                serving.append((os.stat(path).st_ctime, path))
    return [path for _, path in sorted(serving)]


class Outliving(NamedTuple):
    """A node that does not end with a driver. address: where others reach it; cluster: of which it is a member, the id of the
    head's node; head: where that is reached. Each "" for none. labels: in JSON."""

    node_id: str
    address: str = ""
    cluster: str = ""
    head: str = ""
    labels: str = "{}"


def note_outliving(session_dir: str, node: Outliving) -> None:
    """The node of this session listens, and does not end with a driver; or it has become a member of a cluster."""
    draft = os.path.join(session_dir, f"{OUTLIVES_FILE}.new")
    with open(draft, "x") as file:
        file.write("\n".join(node))
    os.rename(draft, os.path.join(session_dir, OUTLIVES_FILE))


def outliving(session_dir: str) -> Outliving:
    """Raises OSError for a session that has ended."""
    with open(os.path.join(session_dir, OUTLIVES_FILE)) as file:
        return Outliving(*file.read().split("\n"))


def outliving_sessions(base: str) -> list[str]:
    """This user's session directories whose node runs and does not end with a driver, the newest last."""
    paths = [
        path for path in _starting_with(os.path.join(base, "")) if os.path.exists(os.path.join(path, OUTLIVES_FILE))
    ]
    return _serving(paths)


def sweep_stale_sessions(base: str, remove_url: Callable[[str], object] | None = None) -> list[str]:
    """Remove the files of sessions whose maker and daemon are gone, kill what is left of them; returns their paths.

    remove_url: removes what one of them has on another file system."""
    shared = os.path.join(SHM_DIR, f"umbel-{os.getuid()}-")
    swept = []
    for path in [*_starting_with(os.path.join(base, "")), *_starting_with(shared)]:
        name = path.removeprefix(shared) if path.startswith(shared) else os.path.basename(path)
        if _is_stale(name, path):
            _kill_rest(path)
            url = spill_url(path)
            if url and remove_url is not None:
                remove_url(url)
            remove_session(path, "")
            swept.append(path)
    return swept


def _starting_with(prefix: str) -> list[str]:
    """This user's directories whose path starts so."""
    parent, start = os.path.split(prefix)
    try:
        names = [name for name in os.listdir(parent) if name.startswith(start)]
    except OSError:
        return []
    return [path for path in (os.path.join(parent, name) for name in names) if _is_own(path)]


def _is_own(path: str) -> bool:
    try:
        return os.lstat(path).st_uid == os.getuid()
    except OSError:
        return False


def _is_stale(name: str, path: str) -> bool:
    parts = name.split("-")
    if len(parts) != 4 or not all(part.isdigit() for part in parts[:3]):
        return False  # not one of ours
    pid, started, namespace = map(int, parts[:3])
    if namespace != _pid_namespace():
        return False  # its process ids mean nothing here
    recorded = _processes(path)
    return not is_alive(pid, started) and not (recorded and is_alive(*recorded[0]))


def daemon_of(session_dir: str) -> int:
    """The process id of its daemon, if that runs; else 0."""
    recorded = _processes(session_dir)
    return recorded[0][0] if recorded and is_alive(*recorded[0]) else 0


def _processes(path: str) -> list[tuple[int, int]]:
    """Recorded processes: the daemon first, then its fork server."""
    try:
        with open(os.path.join(path, PROCESSES_FILE)) as file:
            lines = [line.split() for line in file]
    except (OSError, UnicodeDecodeError):
        return []
    return [
        (int(line[0]), int(line[1])) for line in lines if len(line) == 2 and line[0].isdigit() and line[1].isdigit()
    ]


def _kill_rest(path: str) -> None:
    for pid, started in _processes(path):
        if started and is_alive(pid, started):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
