"""What a runtime environment is made of: the fields of the dictionary, how two are merged, and what a plugin sees.

Four fields are the runtime's own; each of the others belongs to a plugin of its name. What travels keeps the two apart:

    {"env_vars": {...}, "hook": ..., "config": {...}, "built": {field: what the plugin has packed}}

Workers with the same "built" come from one fork server; what is not in it costs none.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, Protocol

from umbel import exceptions

ENV_VARS: Final = "env_vars"
HOOK: Final = "worker_process_setup_hook"
EXCLUDES: Final = "excludes"
CONFIG: Final = "config"
OWN_FIELDS: Final = (ENV_VARS, HOOK, EXCLUDES, CONFIG)

Environment = Mapping[str, Any]  # as it travels


class RuntimeEnvPacking(Protocol):
    """What a plugin may use while it packs a value, in the process that asks for the environment."""

    @property
    def env_vars(self) -> Mapping[str, str]:
        """Those of the same environment."""
        ...

    @property
    def excludes(self) -> Sequence[str]:
        """Patterns, as in `.gitignore`, of files that the user does not want packed."""
        ...

    def add_directory(self, path: str, *, into: str = "") -> str:
        """Copy a directory to where workers can read it. Returns a uri, the same for the same contents. into: the
        directory in the package that takes the contents; "" for the package itself."""
        ...

    def add_file(self, path: str) -> str:
        """The same for one file, which keeps its name."""
        ...

    def add_archive(self, path: str) -> str:
        """The same for what is in a zip file."""
        ...


class RuntimeEnvBuild(Protocol):
    """What a plugin may use while it builds, in a process of its own on the node. It may block."""

    def run(self, command: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: str | None = None) -> None:
        """Run a program to its end; its output goes into the log, and into the error if it fails. env: variables on top
        of the node's. Raises RuntimeEnvSetupError."""
        ...

    def tell(self, text: str) -> None:
        """Say what is being done, for `umbel explain`."""
        ...

    def cached(self, key: str, make: Callable[[str], None]) -> str:
        """The directory kept under this key, made by `make(path)` if there is none. Nobody removes it while a worker of
        this environment lives. key: text that says all that decides the contents."""
        ...

    def path_of(self, uri: str) -> str:
        """Where a package is. Raises RuntimeEnvSetupError when it is gone."""
        ...

    @property
    def workers(self) -> WorkerSetup:
        """How the workers will be started, to be changed."""
        ...

    @property
    def session_directories(self) -> tuple[str, ...]:
        """Directories that workers must see at the same paths."""
        ...


class WorkerSetup:
    """How the workers of an environment are started."""

    def __init__(self) -> None:
        self.env_vars: dict[str, str] = {}  # those that the user gives go before them
        self.cwd: str | None = None
        self.import_paths: list[str] = []  # in front of all others
        self.package_paths: list[str] = []  # in front of the driver's own installed packages
        self.interpreter: list[str] = []  # a command that runs Python; empty for the driver's own
        self.has_own_packages = False  # the interpreter's packages are used, and none of the driver's
        self.around: list[str] = []  # a command that runs the command behind it, elsewhere perhaps
        self.is_isolated = False  # what runs there has none of our open files and sees no files but session_directories


def check_own(field: str, value: Any) -> Any:
    """A field of the runtime's own but `env_vars`, as JSON. Raises InvalidOption, InvalidOptionType."""
    return {HOOK: _hook, EXCLUDES: _excludes, CONFIG: _config}[field](value)


def wrong(field: str, allowed: str, value: object, advice: str) -> exceptions.InvalidOption:
    """The error for a value that is not allowed."""
    text = f"runtime_env[{field!r}] must be {allowed}, got {value!r:.300}"
    if isinstance(value, (str, int, float, Mapping, list, tuple)) and not isinstance(value, bool):
        return exceptions.InvalidOption(f"{text}; {advice}", option="runtime_env")
    return exceptions.InvalidOptionType(f"{text} of type {type(value).__name__}; {advice}", option="runtime_env")


def _excludes(value: Any) -> list[str]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(one, str) for one in value):
        raise wrong(EXCLUDES, "a list of patterns as in .gitignore", value, "for example ['data/', '*.ckpt']")
    return list(value)


def _hook(value: Any) -> Any:
    """A function travels as its name in a module, if it is given so, or pickled."""
    if isinstance(value, str):
        if "." not in value or not all(part.isidentifier() for part in value.split(".")):
            raise wrong(HOOK, "a function or 'module.function'", value, "name an importable function")
        return value
    if isinstance(value, Mapping) and value.keys() == {"pickled"}:
        return dict(value)
    if not callable(value):
        raise wrong(HOOK, "a function or 'module.function'", value, "it is called without arguments")
    import base64

    import cloudpickle

    return {"pickled": base64.b64encode(cloudpickle.dumps(value)).decode()}


def _config(value: Any) -> dict[str, Any]:
    keys = ("setup_timeout_seconds", "eager_install", "log_files")
    if not isinstance(value, Mapping):
        raise wrong(CONFIG, "a dict or RuntimeEnvConfig", value, f"its keys are {', '.join(keys)}")
    unknown = sorted(set(value) - set(keys), key=str)
    if unknown:
        raise exceptions.InvalidOption(
            f"runtime_env['config'] has no key {unknown[0]!r}; allowed are {', '.join(keys)}", option="runtime_env"
        )
    timeout = value.get("setup_timeout_seconds")
    is_number = isinstance(timeout, (int, float)) and not isinstance(timeout, bool)
    if timeout is not None and not (is_number and (timeout > 0 or timeout == -1)):
        raise wrong("config']['setup_timeout_seconds", "seconds > 0, or -1 for no limit", timeout, "omit it for 600")
    eager = value.get("eager_install")
    if eager is not None and not isinstance(eager, bool):
        raise wrong("config']['eager_install", "True or False", eager, "omit it for True")
    if value.get("log_files"):
        raise exceptions.UnsupportedFeature(
            "runtime_env['config']['log_files'] is not there: the output of a failed build is in the error"
        )
    return {name: value[name] for name in keys[:2] if value.get(name) is not None}


def merged(parent: Environment, child: Environment, conflicts: Callable[[str], Collection[str]]) -> dict[str, Any]:
    """What a child with `child` gets whose parent has `parent`: variables of both, and of the other fields the child's
    own where it has them. What the child asks for displaces what it would inherit and cannot be combined with.

    conflicts: the fields that cannot be in one environment with a field.
    """
    env_vars = {**parent.get("env_vars", {}), **child.get("env_vars", {})}
    own = child.get("built", {})
    displaced = {other for field in own for other in conflicts(field)}
    built = {field: value for field, value in parent.get("built", {}).items() if field not in displaced} | dict(own)
    found: dict[str, Any] = {"env_vars": env_vars, "built": built}
    for name in ("hook", "config"):
        found[name] = child.get(name) or parent.get(name)
    return {name: value for name, value in found.items() if value}


def as_option(env: Environment | None) -> dict[str, Any]:
    """What travels, written as the option `runtime_env` is."""
    env = env or {}
    found = {"env_vars": dict(env.get("env_vars") or {}), **(env.get("built") or {})}
    found[HOOK], found[CONFIG] = env.get("hook"), env.get("config")
    return {name: value for name, value in found.items() if value}
