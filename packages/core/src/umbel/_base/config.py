"""What the environment may change: the variables UMBEL_*, read in one place.

A Config is read once where a process starts and handed on from there; nothing consults the environment later. A worker
inherits its node's environment, and so its configuration.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn, TypeVar, cast

from umbel import exceptions

_T = TypeVar("_T")


class _Setting:
    """A default of Config, and the variable that changes it; for numbers, the values allowed."""

    __slots__ = ("default", "maximum", "minimum", "variable")

    def __init__(self, default: object, variable: str, minimum: float, maximum: float) -> None:
        self.default = default
        self.variable = variable
        self.minimum = minimum
        self.maximum = maximum


def _setting(default: _T, variable: str, *, minimum: float = 0, maximum: float = float("inf")) -> _T:
    return cast("_T", _Setting(default, variable, minimum, maximum))  # what its class attribute is read as


class Config:
    """One process's settings, frozen. Sizes are bytes, times seconds."""

    address: str = _setting("", "UMBEL_ADDRESS")
    """Where `init()` connects when it is given no address, or "auto"; empty for the node that runs here, else a private one."""

    auto_connect: bool = _setting(True, "UMBEL_ENABLE_AUTO_CONNECT")
    """Whether the first `.remote()`, `put` or `get` calls `init()`. Ray's programs expect it to."""

    plugins: str = _setting("", "UMBEL_PLUGINS")
    """Which plugins are allowed or blocked; see docs/plugins."""

    namespace: str = _setting("", "UMBEL_NAMESPACE")
    """The namespace of `init()` without one; empty for a new anonymous one, so that jobs cannot clash by accident."""

    engine: str = _setting("native", "UMBEL_ENGINE")
    """The engine of `init()` without one."""

    scheduler: str = _setting("hybrid", "UMBEL_SCHEDULER")
    """The scheduling policy of `init()` without one."""

    store: str = _setting("shm", "UMBEL_STORE")
    """Which object store keeps large values; one for all processes of a node."""

    object_spilling: bool = _setting(True, "UMBEL_AUTOMATIC_OBJECT_SPILLING_ENABLED")
    """Whether values are moved to disk when the store fills up."""

    object_spilling_directory: str = _setting("", "UMBEL_OBJECT_SPILLING_DIRECTORY")
    """Where values are moved to: a path or a URL; empty for the session directory."""

    object_spilling_threshold: float = _setting(0.8, "UMBEL_OBJECT_SPILLING_THRESHOLD", maximum=1.0)
    """The share of the store from which on values are moved. Ray's default; the rest is room while they are being
    written."""

    min_spilling_size: int = _setting(100_000_000, "UMBEL_MIN_SPILLING_SIZE", minimum=1)
    """Small values share files of this size; of a small store's content at most an eighth is moved at once. Ray's
    default."""

    worker_imports: str = _setting("", "UMBEL_WORKER_IMPORTS")
    """Modules, separated by commas, that are imported once per node before workers are forked."""

    log_level: str = _setting("WARNING", "UMBEL_LOG_LEVEL")
    """The level of the logger "umbel". A library is quiet until something is wrong."""

    log_to_driver: bool = _setting(True, "UMBEL_LOG_TO_DRIVER")
    """Whether what workers print appears at the driver."""

    log_prefix_color: bool = _setting(True, "UMBEL_COLOR_PREFIX")
    """Whether the prefix of what workers print is coloured where the driver's output is a terminal."""

    log_fold_s: float = _setting(5.0, "UMBEL_LOG_FOLD_S")
    """For how long equal lines that several workers print are folded into one. As in Ray; 0 shows them all."""

    metrics_export_port: int = _setting(-1, "UMBEL_METRICS_EXPORT_PORT", minimum=-1, maximum=65_535)
    """Where a node serves metrics to Prometheus; 0 for any free port, -1 for nowhere."""

    metrics_export_host: str = _setting("127.0.0.1", "UMBEL_METRICS_EXPORT_HOST")
    """The address at which metrics are served. They say how a program works, so others must be let in on purpose."""

    log_keep_s: float = _setting(0.0, "UMBEL_LOG_KEEP_S")
    """How long what workers have printed is kept after the session, from the last line of a file on; 0 for not at all:
    a session leaves nothing behind unless it was told to."""

    log_dir: str = _setting("", "UMBEL_LOG_DIR")
    """Where what workers have printed is kept, a directory for each session; empty for `logs` beside the
    sessions' directories."""

    log_bytes_max: int = _setting(1 << 30, "UMBEL_LOG_BYTES_MAX")
    """How large all log files of a session may be, and all that are kept; the oldest go first. 0 for no log files."""

    log_file_bytes_max: int = _setting(32 << 20, "UMBEL_LOG_FILE_BYTES_MAX", minimum=65_536)
    """How large one of a worker's log files and its index may be, but for what comes at once, a pipe full; the file
    before is there as well. A few seconds of a loop that prints."""

    inline_bytes_max: int = _setting(100 * 1024, "UMBEL_INLINE_BYTES_MAX")
    """A value up to this size travels in the message itself. Above it, one copy in shared memory costs less than two
    through a socket (about 4.5 GB/s against 1) even with the round trip to open it."""

    locality_bytes_min: int = _setting(4 << 20, "UMBEL_LOCALITY_BYTES_MIN", minimum=1)
    """From how many bytes on one node a task's arguments draw it there. Fewer are copied in the few milliseconds that a worker of
    another node may take."""

    function_warn_bytes: int = _setting(10 * 1000 * 1000, "UMBEL_FUNCTION_SIZE_WARN_THRESHOLD")
    """A pickled function of this size has captured data that belongs into `put`: each worker reads it anew."""

    function_bytes_max: int = _setting(100 * 1000 * 1000, "UMBEL_FUNCTION_SIZE_ERROR_THRESHOLD")
    """A pickled function above this size is refused. Ray's limit."""

    allow_out_of_band_refs: bool = _setting(True, "UMBEL_ALLOW_OUT_OF_BAND_OBJECT_REF_SERIALIZATION")
    """Whether a reference may be pickled outside of arguments, `put` and results. Its object is then kept for good, so
    a program that must not leak forbids it and sees where it happens. Ray's default."""

    ignore_unhandled_errors: bool = _setting(False, "UMBEL_IGNORE_UNHANDLED_ERRORS")
    """Whether nothing is logged when the last reference to an error goes away that nobody has read."""

    task_max_retries: int = _setting(3, "UMBEL_TASK_MAX_RETRIES", minimum=-1)
    """`max_retries` of tasks that do not say; -1 for no limit. Ray's default."""

    worker_register_timeout_s: float = _setting(60.0, "UMBEL_WORKER_REGISTER_TIMEOUT_S", minimum=0.1)
    """A worker that has not reported by then counts as failed. A cold disk and a heavy sitecustomize can take 20 s."""

    start_timeout_s: float = _setting(30.0, "UMBEL_START_TIMEOUT_S", minimum=0.1)
    """How long `init()` waits for the daemon that it started, which reports within 1 s unless the machine is
    swapping."""

    stop_timeout_s: float = _setting(5.0, "UMBEL_STOP_TIMEOUT_S")
    """How long a process has from the request to stop, or SIGTERM, until SIGKILL. Enough for atexit handlers that
    write a file."""

    lineage_bytes_max: int = _setting(1 << 30, "UMBEL_LINEAGE_BYTES_MAX")
    """What a process may keep of finished tasks' arguments, to compute their results again when they are lost. Ray's
    default; 0 keeps nothing, and what is lost stays lost."""

    idle_lease_s: float = _setting(0.5, "UMBEL_IDLE_LEASE_S")
    """How long an owner keeps a worker that it has no task for: longer than a program thinks between two rounds of
    tasks, shorter than another program would like to wait."""

    watchdog_s: float = _setting(10.0, "UMBEL_WATCHDOG_S")
    """After how long whoever waits for an object says on standard error what it waits for, once for each cause; 0 for
    never. Longer than a healthy step takes to begin, shorter than it takes to lose patience."""

    record_call_sites: bool = _setting(False, "UMBEL_RECORD_CALL_SITES")
    """Whether each `put` and `.remote()` notes the line that called it, for `umbel memory`, errors of a full store,
    `call_site` in listings of tasks, actors and objects, and `ObjectRef.call_site()`. Costs 1 to 2 µs for each object, and
    1 µs for each task that ends."""

    infeasible_timeout_s: float = _setting(0.0, "UMBEL_INFEASIBLE_TIMEOUT_S")
    """After how long tasks and actors fail that no node can ever run; 0 for never, since nodes may be added."""

    runtime_env_package_bytes_max: int = _setting(512 << 20, "UMBEL_RUNTIME_ENV_PACKAGE_BYTES_MAX")
    """How large a `working_dir` or one of `py_modules` may be, where it is made and on nodes that get it. Ray's limit."""

    runtime_env_cache_dir: str = _setting("", "UMBEL_RUNTIME_ENV_CACHE_DIR")
    """Where built environments are kept between sessions; empty for `umbel/environments` in the user's cache."""

    runtime_env_cache_bytes: int = _setting(10 << 30, "UMBEL_RUNTIME_ENV_CACHE_BYTES")
    """How much is kept of built environments that nobody uses. As in Ray: two or three environments with a
    large framework."""

    runtime_env_cache_days: float = _setting(30.0, "UMBEL_RUNTIME_ENV_CACHE_DAYS")
    """After how many days without use a built environment is removed: what is needed each month is built once."""

    task_events: bool = _setting(True, "UMBEL_TASK_EVENTS")
    """Whether tasks and actors that have ended are recorded, for `umbel.util.state`, `umbel list` and the timeline."""

    history_tasks_max: int = _setting(1_000_000, "UMBEL_HISTORY_TASKS_MAX")
    """How many ended tasks are kept; the oldest go first. A million take some 100 MB of disk."""

    history_age_max_s: float = _setting(0.0, "UMBEL_HISTORY_AGE_MAX_S")
    """How long after their end tasks are kept; 0 for as long as the session lasts."""

    history_bytes_max: int = _setting(1 << 30, "UMBEL_HISTORY_BYTES_MAX", minimum=1 << 20)
    """How much disk the history may take, about. The oldest goes first."""

    history_dir: str = _setting("", "UMBEL_HISTORY_DIR")
    """Where the history is kept after the session's end, as `<session>.db`; empty for nowhere: it is in the session's
    directory, and goes with it."""

    health_check_period_s: float = _setting(3.0, "UMBEL_HEALTH_CHECK_PERIOD_S", minimum=0.1)
    """How often a node tells the head of its cluster that it lives. The head's value counts for all. Ray's default."""

    health_check_timeout_s: float = _setting(10.0, "UMBEL_HEALTH_CHECK_TIMEOUT_S", minimum=0.1)
    """After what silence a node is suspected, and a node takes its connection to the head for broken. Ray's default."""

    health_check_failure_threshold: int = _setting(5, "UMBEL_HEALTH_CHECK_FAILURE_THRESHOLD", minimum=1)
    """For how many further periods a node may be silent until it is declared dead, and others' connections to it break. Ray's
    default."""

    node_reconnect_s: float = _setting(5.0, "UMBEL_NODE_RECONNECT_S", minimum=0.1)
    """After what time a node is declared dead whose connection to the head has broken. One that lives dials again at
    least once a second."""

    node_join_s: float = _setting(30.0, "UMBEL_NODE_JOIN_S", minimum=0.1)
    """For how long a node tries to join a cluster before it gives up: a head that starts at the same time is there by
    then."""

    autoscaler_period_s: float = _setting(5.0, "UMBEL_AUTOSCALER_PERIOD_S", minimum=0.05)
    """How often the autoscaler looks at what waits, and decides. Ray's default."""

    head_lost_s: float = _setting(60.0, "UMBEL_HEAD_LOST_S", minimum=0.1)
    """After what time without a connection to its head a node ends. Ray's default."""

    remote_reconnect_s: float = _setting(30.0, "UMBEL_REMOTE_RECONNECT_S", minimum=0.1, maximum=3600.0)
    """After what time without a connection a program with `init("umbel://...")` and its cluster give each other up. Ray's
    default."""

    idle_worker_s: float = _setting(2.0, "UMBEL_IDLE_WORKER_S")
    """How long a worker process that nobody leases is kept beyond one for each CPU. It costs memory, and starting
    another takes 20 ms; two seconds bridge the pauses of a busy program."""

    memory_monitor: bool = _setting(True, "UMBEL_MEMORY_MONITOR")
    """Whether the daemon kills the worker that is to blame when memory runs short. Else the system kills somebody."""

    memory_usage_threshold: float = _setting(0.95, "UMBEL_MEMORY_USAGE_THRESHOLD", minimum=0.1, maximum=1.0)
    """The share of the machine's memory, or of what limits it, above which it is short; no more than 2 GiB are kept
    free. Ray's default."""

    memory_limit_bytes: int = _setting(0, "UMBEL_MEMORY_LIMIT_BYTES")
    """What all processes of the session together may use, beside what the machine and control groups allow; 0 for no
    such limit."""

    memory_isolation: str = _setting("", "UMBEL_MEMORY_ISOLATION")
    """Holds workers to their `memory=` by control groups: 1 for groups below the daemon's own, or the directory of one
    that it may use; empty for not. Off by default: an ordinary process may make no groups."""

    task_oom_retries: int = _setting(10, "UMBEL_TASK_OOM_RETRIES", minimum=-1)
    """How often a task is tried again that was killed for its memory, -1 for no limit; apart from `max_retries`, except
    that a task without retries has none of these. Each at least doubles what it asks for, so ten lead from any size to
    the whole machine."""

    worker_recycle_bytes: int = _setting(0, "UMBEL_WORKER_RECYCLE_BYTES", minimum=-1)
    """A worker that holds more than this, and than the `memory=` of its task, with no task running is replaced; one
    that is kept busy gets no further tasks for that. -1 for never, 0 for one CPU's share of the node's memory, though
    at least 1 GiB: programs keep models in workers on purpose, and load them again for seconds."""

    worker_recycle_s: float = _setting(3600.0, "UMBEL_WORKER_RECYCLE_S")
    """A worker older than this is replaced once its running task has ended, with whatever it has leaked; 0 for never. A
    fork takes milliseconds, the imports of a large program seconds: once an hour is nothing."""

    def __init__(self, **values: Any) -> None:
        """The defaults but for `values`. Raises TypeError for an unknown name."""
        unknown = values.keys() - _SETTINGS.keys()
        if unknown:
            raise TypeError(f"Config has no settings {sorted(unknown)}; it has {', '.join(_SETTINGS)}")
        self.__dict__.update({name: setting.default for name, setting in _SETTINGS.items()} | values)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"Config.{name} cannot be set to {value!r}: a Config is frozen; make another one")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Config) and self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]  # nobody needs it

    def __repr__(self) -> str:
        changed = {name: value for name, value in self.__dict__.items() if value != _SETTINGS[name].default}
        return f"Config({', '.join(f'{name}={value!r}' for name, value in changed.items())})"

    def replace(self, **values: Any) -> Config:
        """Another one, with `values` changed."""
        return Config(**{**self.__dict__, **values})

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Config:
        """Reads `environment`, or the process's own. Raises InvalidOption for a variable of a wrong value."""
        environment = os.environ if environment is None else environment
        values: dict[str, Any] = {}  # Any: the settings have several types
        for name, setting in _SETTINGS.items():
            text = environment.get(setting.variable)
            if text is not None:
                values[name] = _READERS[type(setting.default)](setting, text.strip())
        return cls(**values)


_SETTINGS: Final = {name: value for name, value in vars(Config).items() if isinstance(value, _Setting)}

_TRUE = ("1", "true", "yes", "on")
_FALSE = ("0", "false", "no", "off", "")


def _read_bool(setting: _Setting, text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise _bad(setting, text, "1 or 0")


def _read_int(setting: _Setting, text: str) -> int:
    return int(_in_bounds(setting, text, int, "a whole number"))


def _read_float(setting: _Setting, text: str) -> float:
    return _in_bounds(setting, text, float, "a number")


def _read_str(_setting: _Setting, text: str) -> str:
    return text


_READERS: Mapping[type, Callable[[_Setting, str], object]] = {
    bool: _read_bool,
    int: _read_int,
    float: _read_float,
    str: _read_str,
}


def _in_bounds(setting: _Setting, text: str, read: Callable[[str], float], kind: str) -> float:
    allowed = f"{kind} >= {setting.minimum}"
    if setting.maximum != float("inf"):
        allowed += f" and <= {setting.maximum}"
    try:
        value = read(text)
    except ValueError:
        raise _bad(setting, text, allowed) from None
    if not setting.minimum <= value <= setting.maximum:  # a NaN is in no interval
        raise _bad(setting, text, allowed)
    return value


def _bad(setting: _Setting, text: str, allowed: str) -> exceptions.InvalidOption:
    return exceptions.InvalidOption(
        f"the environment variable {setting.variable} must be {allowed}, got {text!r}; unset it for the default of "
        f"{setting.default!r}",
        option=setting.variable,
    )
