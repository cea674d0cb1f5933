"""Starting and ending a session: `init`, `shutdown`, and what `init` returns."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from umbel import exceptions
from umbel._base import config as configuration
from umbel._client import context, current, own_node

if TYPE_CHECKING:
    from umbel._client.job_config import JobConfig
    from umbel._client.logging_config import LoggingConfig

# Arguments that Ray's programs pass and that mean nothing here; accepted with one warning for all.
_RAY_ARGUMENTS = frozenset(
    (
        "include_dashboard", "dashboard_host", "dashboard_port", "configure_logging", "logging_format",
        "enable_resource_isolation", "cgroup_path", "system_reserved_cpu", "system_reserved_memory",
        "proxy_server_url", "_temp_dir", "_node_ip_address",
        "_plasma_directory",
        "_system_config", "_redis_username",
        "_redis_password", "_enable_object_reconstruction", "_driver_object_store_memory", "_skip_env_hook", "storage",
    )
)  # fmt: skip
# Of these, the ones that only switch off, or describe, what is not there anyway; not worth a warning.
_SILENT_ARGUMENTS = frozenset(("dashboard_host", "dashboard_port", "configure_logging", "_system_config"))

_SWITCHES = frozenset(("include_dashboard", "enable_resource_isolation"))  # worth one where they switch on
_INSTEAD = {
    "enable_resource_isolation": " (set UMBEL_MEMORY_ISOLATION=1 for control groups that hold workers to their memory=)"
}


REMOTE_SCHEME = "umbel://"


class Context(Mapping[str, Any]):
    """What `init` returns: a context manager that shuts down, and a mapping of `address_info`."""

    def __init__(self, address_info: dict[str, Any]) -> None:
        self.address_info = address_info
        self.dashboard_url = ""  # there is no dashboard yet

    def __getitem__(self, key: str) -> Any:
        return self.address_info[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.address_info)

    def __len__(self) -> int:
        return len(self.address_info)

    def __enter__(self) -> Context:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        shutdown()

    def disconnect(self) -> None:
        """The same as `umbel.shutdown()`."""
        shutdown()

    def __repr__(self) -> str:
        return f"Context({self.address_info!r})"


def init(
    address: str | None = None,
    *,
    num_cpus: float | None = None,
    num_gpus: float | None = None,
    resources: Mapping[str, float] | None = None,
    labels: Mapping[str, str] | None = None,
    object_store_memory: int | None = None,
    namespace: str | None = None,
    runtime_env: Mapping[str, Any] | None = None,
    job_config: JobConfig | None = None,
    ignore_reinit_error: bool = False,
    log_to_driver: bool | None = None,
    logging_level: int | str | None = None,
    logging_config: LoggingConfig | None = None,
    engine: str | None = None,
    scheduler: str | None = None,
    infeasible_timeout_s: float | None = None,
    object_spilling_directory: str | None = None,
    local_mode: bool = False,
    _metrics_export_port: int | None = None,
    _tracing_startup_hook: str | None = None,
    _node_name: str | None = None,
    _memory: int | None = None,
    **others: Any,
) -> Context:
    """Start a session in this process: with the node that runs here (`umbel start --head`), if there is one, else with a
    private node of its own, which ends with it.

    address: "auto" for the node that runs here, "local" for a private one, the name or directory of a node's session, or
    "umbel://host:port" for a cluster of which no node need run here, at the address of any of its nodes; by default
    UMBEL_ADDRESS, or as above. What describes a node (num_cpus, num_gpus, resources, labels,
    object_store_memory, scheduler, ...) cannot be given for one that runs.

    num_cpus: default the CPUs this process may use. num_gpus: default what is detected. object_store_memory: bytes of
    shared memory for objects, default 30 % of what is available. namespace: where this driver's named actors live,
    default one of its own. engine: "native" or "inline" (everything in this process, for debugging). scheduler: a
    scheduling policy, "hybrid" by default. infeasible_timeout_s: after how long tasks and actors fail that no node can
    ever run; by default they wait, for nodes may come, and a warning says why. object_spilling_directory: where values
    go when the store fills up, a path or a URL of fsspec's or pyarrow's; default the session directory. runtime_env:
    what all workers run in; tasks and actors inherit it. job_config: an umbel.job_config.JobConfig with this job's priority
    and weight among others of its nodes. logging_config: an umbel.LoggingConfig for the root logger of
    this process and of workers, which are left alone by default; logging_level: of the logger "umbel" alone.
    _metrics_export_port: serve metrics to Prometheus there, 0 for any free port; by default they are not served.
    _tracing_startup_hook: "module:function", called here and in each worker to set OpenTelemetry up; tasks and actor calls
    are then traced. _node_name: what lists call the node, default its address. _memory: bytes that the node has for what asks for
    memory=, default what is available. _system_config: as in Ray, of which only what concerns spilling means something here.

    Raises RuntimeError when a session runs already (unless `ignore_reinit_error`), ConnectionError for an address where
    nothing runs, or when several nodes run here and none is named, ValueError or TypeError for bad values, UmbelSystemError
    when the daemon does not start or refuses this program.
    """
    _check_flag("ignore_reinit_error", ignore_reinit_error, default=False)
    _check_flag("local_mode", local_mode, default=False)
    if log_to_driver is not None:
        _check_flag("log_to_driver", log_to_driver, default=True)
    _check_name("engine", engine)
    _check_name("scheduler", scheduler)
    _check_name("_node_name", _node_name)
    with current.lock():
        running = current.running_engine()
        if running is not None:
            if ignore_reinit_error:
                return Context(running.address_info)
            if running.session_context.kind == "worker":
                raise RuntimeError(
                    "umbel.init() was called in a task or actor, where a session runs already; leave the call out, or "
                    "pass ignore_reinit_error=True in code that runs on the driver too"
                )
            raise RuntimeError(
                "umbel.init() was called twice; call umbel.shutdown() first, or pass ignore_reinit_error=True "
                "to keep the "
                "running session"
            )
        config = configuration.Config.from_environment()
        if infeasible_timeout_s is not None:
            config = config.replace(infeasible_timeout_s=_checked_timeout(infeasible_timeout_s))
        if _metrics_export_port is not None:
            config = own_node.with_metrics_port(config, _metrics_export_port, option="_metrics_export_port")
            if (engine or config.engine) == "inline":
                raise exceptions.UnsupportedFeature(
                    "init(engine='inline', _metrics_export_port=...) is not there: the inline engine has no node that could "
                    "serve metrics; use the native engine"
                )
        ignored = _ignored_of(others, local_mode)
        config = own_node.with_spilling(config, object_spilling_directory, others.get("_system_config"), ignored)
        if ignored:
            warnings.warn(f"init() ignores {', '.join(ignored)}: Umbel has no such setting", stacklevel=2)
        job_facts: dict[str, Any] = {}
        if job_config is not None:
            job_facts = _checked_job_config(job_config).facts()
            namespace = namespace if namespace is not None else job_config.ray_namespace
            runtime_env = runtime_env if runtime_env is not None else job_config.runtime_env
        logging_values = None if logging_config is None else _configured_logging(logging_config)
        name = engine or config.engine
        of_node = {
            "num_cpus": num_cpus, "num_gpus": num_gpus, "resources": resources, "labels": labels,
            "object_store_memory": object_store_memory, "scheduler": scheduler,
            "infeasible_timeout_s": infeasible_timeout_s, "object_spilling_directory": object_spilling_directory,
            "_metrics_export_port": _metrics_export_port, "_node_name": _node_name,
        }  # fmt: skip
        node = _running_node(address, name, config, [name for name, value in of_node.items() if value is not None])
        if _memory is not None and node is not None:  # where Ray says nothing
            warnings.warn("init() ignores _memory: it is the running node's, see `umbel start --memory`", stacklevel=2)
        if namespace is not None and (not isinstance(namespace, str) or not namespace):
            raise TypeError(f"namespace must be a non-empty string, got {namespace!r}; omit it for one of its own")
        if config.metrics_export_port >= 0 and name == "native" and node is None:
            own_node.check_can_serve_metrics()
        if _tracing_startup_hook is not None:
            _run_tracing_hook(_tracing_startup_hook, name)
        with _begun(name if node is None else "") as extras:
            if logging_config is None or logging_level is not None:
                _set_log_level(logging_level, config.log_level)
            from umbel._plugins import registry

            catalog = registry.installed()
            registry.log_complaints()
            env_vars, environment = _environment(runtime_env)
            if environment:
                extras["environment"] = environment
            driver: dict[str, Any] = {
                "namespace": namespace or config.namespace or _anonymous_namespace(),
                "env_vars": env_vars,
                "log_to_driver": config.log_to_driver if log_to_driver is None else log_to_driver,
                "logging_config": logging_values,
                "tracing_startup_hook": _tracing_startup_hook,
                "config": config,
                **extras,
            }
            started: Any
            if node is not None and is_remote(node):
                from umbel._client import remote_driver

                started = remote_driver.attach(node, job_facts=job_facts, **driver)
                told = f"connected to {node}"
            elif node is not None:
                from umbel._client import attach

                started = attach.attach(node, job_facts=job_facts, **driver)
                told = f"connected to {node}"
            else:
                store_bytes = own_node.store_bytes(object_store_memory)
                totals, ids, found_labels = own_node.totals(
                    num_cpus, num_gpus, resources, store_bytes, config, memory=_memory
                )
                policy = scheduler or config.scheduler
                catalog.schedulers.find(policy)  # a name nobody provides fails here and not in the daemon
                started = catalog.engines.create(
                    name,
                    resources=totals,
                    labels={**found_labels, **own_node.labels_of(labels)},
                    object_store_memory=store_bytes,
                    scheduler=policy,
                    accelerator_ids=ids,
                    node_name=_node_name or "",
                    **driver,
                )
                told = f"started a private {name} session with {own_node.in_words(totals)}"
        if _tracing_startup_hook is not None:
            from umbel._client import tracing

            started.tracing = tracing.start(started)
        current.set_engine(started)
        _announce(told)
        return Context(started.address_info)


@contextlib.contextmanager
def _begun(engine: str) -> Iterator[dict[str, Any]]:
    """The process of the native engine's daemon, whose interpreter comes up while this one looks for plugins. It ends
    if there will be no session. Nothing for other engines."""
    if engine != "native":
        yield {}
        return
    from umbel._client import launch

    launching = launch.begin()
    try:
        yield {"launching": launching}
    except BaseException:
        launching.abandon()
        raise


def _anonymous_namespace() -> str:
    """In the form of a UUID, as Ray's are."""
    text = os.urandom(16).hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def _announce(told: str) -> None:
    import logging

    if logging.getLogger("umbel").isEnabledFor(logging.WARNING):
        with contextlib.suppress(OSError):  # closed, and its number given to another file
            sys.stderr.write(f"umbel: {told}\n")


def _check_flag(name: str, value: object, *, default: bool) -> None:
    if not isinstance(value, bool):
        raise TypeError(
            f"{name} must be True or False, got {value!r} of type {type(value).__name__}; omit it for {default}"
        )


def _check_name(name: str, value: object) -> None:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{name} must be a str, got {value!r} of type {type(value).__name__}; omit it for the default")


def _checked_timeout(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"infeasible_timeout_s must be a number of seconds, got {value!r}; omit it to wait for ever")
    if not 0 < value < float("inf"):
        raise ValueError(f"infeasible_timeout_s must be a number > 0, got {value!r}; omit it to wait for ever")
    return float(value)


def _checked_job_config(config: Any) -> JobConfig:
    from umbel._client.job_config import JobConfig

    if not isinstance(config, JobConfig):
        raise TypeError(
            f"job_config must be an umbel.job_config.JobConfig, got {config!r} of type {type(config).__name__}; for example "
            "JobConfig(priority=1)"
        )
    return config


def _configured_logging(config: Any) -> dict[str, object]:
    """Configure this process's logging; returns what workers need to do the same."""
    from umbel._client import logging_config

    if not isinstance(config, logging_config.LoggingConfig):
        raise TypeError(
            f"logging_config must be an umbel.LoggingConfig, got {config!r} of type {type(config).__name__}; for example "
            "umbel.LoggingConfig(encoding='JSON')"
        )
    logging_config.apply(config)
    return config.to_dict()


def _run_tracing_hook(hook: Any, engine: str) -> None:
    """Call it, before anything starts. Raises what it raises, and what is wrong with its name."""
    if not isinstance(hook, str):
        raise TypeError(
            f"_tracing_startup_hook must be a str 'module:function', got {hook!r}; omit it to trace nothing"
        )
    module, _, function = hook.partition(":")
    if not module or not function or module == "__main__":
        raise ValueError(
            f"_tracing_startup_hook must be 'module:function' in a module that workers can import, got {hook!r}; omit it "
            "to trace nothing"
        )
    if engine not in ("native", "inline"):
        raise exceptions.UnsupportedFeature(
            f"init(_tracing_startup_hook=...) is not there for the engine {engine!r}, only for native and inline"
        )
    try:
        from umbel._client import tracing
    except ImportError as error:
        raise ImportError(
            f'tracing needs the package opentelemetry-api ({error}); run: pip install "umbel[otel]", or leave '
            "_tracing_startup_hook out",
            name=error.name,
        ) from error
    tracing.find_hook(hook)()


def _ignored_of(others: Mapping[str, Any], local_mode: bool) -> list[str]:
    """What of the arguments means nothing here, as the warning names it. Raises UnsupportedFeature, and RuntimeError for
    unknown ones."""
    if local_mode:
        raise exceptions.UnsupportedFeature(
            "init(local_mode=True) is not there; use init(engine='inline'), which runs everything in this "
            "process with the "
            "semantics of the real runtime"
        )
    unknown = sorted(set(others) - _RAY_ARGUMENTS)
    if unknown:
        import inspect

        known = ", ".join(p for p in inspect.signature(init).parameters if p != "others")
        raise RuntimeError(f"init() got unknown arguments {unknown}; it takes {known}")
    return [
        name + _INSTEAD.get(name, "")
        for name in sorted(others)
        if name not in _SILENT_ARGUMENTS and others[name] is not None and not (name in _SWITCHES and not others[name])
    ]


def _running_node(address: Any, engine: str, config: configuration.Config, of_node: list[str]) -> str | None:
    """The directory of the node that `init` is to connect to; None for one of its own. of_node: what was given of the
    arguments that describe one."""
    if address is not None and not isinstance(address, str):
        raise TypeError(
            f"address must be a str or None, got {address!r} of type {type(address).__name__}; omit it for the node that "
            "runs here, if any, else a private one"
        )
    if engine != "native":
        if address not in (None, "", "local"):
            raise ValueError(f"engine={engine!r} runs in this process, but address={address!r} names a node; omit one")
        return None
    if address not in (None, "", "local"):
        _check_left_to_node(address, of_node)
    wanted = (config.address if address in (None, "", "auto") else "") or address or ""
    if wanted.startswith("ray://"):
        raise ValueError(
            f"address={wanted!r} is of Ray's client, which Umbel has not; name any node of the cluster that listens, as "
            f"{REMOTE_SCHEME}{wanted.removeprefix('ray://')}, with the port by which it listens"
        )
    if is_remote(wanted):
        _check_left_to_node(wanted, of_node)
        return wanted
    from umbel._client import running_nodes

    found = running_nodes.find(wanted)
    if found is not None:
        _check_left_to_node(found, of_node)
    return found


def is_remote(address: str) -> bool:
    """Whether this is a cluster of which no node need run here."""
    return address.startswith(REMOTE_SCHEME)


def _check_left_to_node(node: str, given: list[str]) -> None:
    if given:
        raise ValueError(
            f"{', '.join(given)}: this belongs to the node that starts, but init() connects to the running {node!r}; omit "
            "it, or pass address='local' for a private node"
        )


def _environment(runtime_env: Any) -> tuple[dict[str, str], str]:
    """The variables, and the other fields as JSON."""
    if not runtime_env:
        return {}, ""
    from umbel._client import remote_function
    from umbel._model import options

    checked = options.task_options(remote_function.with_environment({"runtime_env": runtime_env}), {})
    return dict(checked.env_vars), checked.environment


def _set_log_level(given: Any, configured: str) -> None:
    import logging

    allowed = "a number, DEBUG, INFO, WARNING, ERROR or CRITICAL"
    if given is None:
        level: Any = int(configured) if configured.isdigit() else configured
        what, advice = "the environment variable UMBEL_LOG_LEVEL", "unset it for the default"
    else:
        level, what, advice = given, "logging_level", "omit it for the default"
    if isinstance(level, bool) or not isinstance(level, (int, str)):
        raise TypeError(f"{what} must be {allowed}, got {level!r} of type {type(level).__name__}; {advice}")
    if isinstance(level, str) and not isinstance(logging.getLevelName(level.upper()), int):
        raise exceptions.InvalidOption(f"{what} must be {allowed}, got {level!r}; {advice}", option=what.split()[-1])
    logging.getLogger("umbel").setLevel(level.upper() if isinstance(level, str) else level)


def shutdown(*, wait_for_processes: bool = False, _exiting_interpreter: bool = False) -> None:
    """End the session of this process and everything it started. Idempotent.

    wait_for_processes: accepted for Ray's sake; this always waits, which takes milliseconds. Raises RuntimeError in a
    task or actor, to which the session does not belong.
    """
    _check_flag("wait_for_processes", wait_for_processes, default=False)
    with current.lock():
        running = current.running_engine()
        if running is None:
            return
        if running.session_context.kind == "worker" and not _exiting_interpreter:
            raise RuntimeError(
                "umbel.shutdown() was called in a task or actor; the session belongs to the driver, which may "
                "end it. Return "
                "from the task, or leave the actor with umbel.actor.exit_actor()"
            )
        current.set_engine(None)
        running.shutdown()


def is_initialized() -> bool:
    """Whether a session runs in this process. Never starts one."""
    return current.is_initialized()


def _at_exit() -> None:
    shutdown(_exiting_interpreter=True)


def get_runtime_context() -> context.RuntimeContext:
    return context.get_runtime_context()


atexit.register(_at_exit)
current.set_auto_init(lambda: (init(), None)[1])
