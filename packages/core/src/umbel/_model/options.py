"""What `@umbel.remote(...)`, `@umbel.method(...)` and `.options(...)` accept, checked and with the defaults filled in.

Each option is a row of a table: its name, a function that checks a value and returns it in the form that is kept, and
for whom it exists. A value of None is the same as leaving the option out. The records are frozen and know nothing of the
function or class they are for; what depends on that (a generator, an async method) is left to the client. Named tuples
rather than frozen dataclasses, here and in what else `import umbel` loads: each of those, and `inspect` which they need,
would be milliseconds of every start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from umbel import exceptions
from umbel._model import resources as resource_model

NumReturns: TypeAlias = "int | Literal['streaming', 'dynamic'] | None"
RetryExceptions: TypeAlias = "bool | tuple[type[Exception], ...]"
ResourceSet: TypeAlias = resource_model.ResourceSet

TASK_MAX_RETRIES: Final = 3  # Ray's default; Config.task_max_retries changes it
TASK_CPU_UNITS: Final = resource_model.RESOURCE_UNIT  # one CPU: what a plain Python function can use
ACTOR_CPU_UNITS: Final = resource_model.RESOURCE_UNIT
GPU_TASK_MAX_CALLS: Final = 1  # only the end of its process gives back all of the memory that a driver holds on a GPU

# A node that has accelerators of a kind holds one of this resource, and every request takes this little of it: a way to
# say "on such a node" by means of resources alone.
ACCELERATOR_TYPE_PREFIX: Final = "accelerator_type:"
ACCELERATOR_TYPE_UNITS: Final = 10

_Given: TypeAlias = "dict[str, Any]"  # Any: the options have a type each


class InGroup(NamedTuple):
    """A scheduling strategy: in a placement group.

    group: its id in hex; "" for that of the task or actor which submits. bundle_index: -1 for any. captures: whether what
    is submitted from there runs in the group as well; None for as it is where that comes from.
    """

    group: str
    bundle_index: int = -1
    captures: bool | None = None


class TaskOptions(NamedTuple):
    """How a function runs as a task.

    resources: what one run needs. num_returns: None for one object, or a stream when the function is a generator.
    environment: the fields of runtime_env but `env_vars`, as JSON; "" for none. label_selectors: of which the node must meet
    one, the best first; see `node_labels`.
    """

    resources: ResourceSet
    num_returns: NumReturns = None
    max_retries: int = TASK_MAX_RETRIES
    retry_exceptions: RetryExceptions = False
    max_calls: int = 0
    name: str | None = None
    env_vars: tuple[tuple[str, str], ...] = ()
    environment: str = ""
    scheduling_strategy: object = None
    accelerator_type: str | None = None
    enable_task_events: bool = True
    labels: tuple[tuple[str, str], ...] = ()
    label_selectors: tuple[tuple[tuple[str, str], ...], ...] = ()
    generator_backpressure_num_objects: int = -1

    @property
    def runtime_env(self) -> dict[str, Any]:
        return _runtime_env(self.env_vars, self.environment)


class ActorOptions(NamedTuple):
    """How a class runs as an actor. enable_tensor_transport: None for whether a method has a transport.

    placement_resources: what a node must have free to take the actor. running_resources: what the actor then holds for
    life. They differ only by the default CPU, which is for placing alone.
    max_concurrency: None for 1, or 1000 for async methods.
    allow_out_of_order_execution: None for what suits the class.
    """

    placement_resources: ResourceSet
    running_resources: ResourceSet
    max_restarts: int = 0
    max_task_retries: int = 0
    max_concurrency: int | None = None
    concurrency_groups: Mapping[str, int] | None = None
    lifetime: Literal["detached", "non_detached"] | None = None
    name: str | None = None
    namespace: str | None = None
    get_if_exists: bool = False
    max_pending_calls: int = -1
    allow_out_of_order_execution: bool | None = None
    env_vars: tuple[tuple[str, str], ...] = ()
    environment: str = ""
    scheduling_strategy: object = None
    accelerator_type: str | None = None
    enable_task_events: bool = True
    labels: tuple[tuple[str, str], ...] = ()
    label_selectors: tuple[tuple[tuple[str, str], ...], ...] = ()
    generator_backpressure_num_objects: int = -1
    enable_tensor_transport: bool | None = None

    @property
    def runtime_env(self) -> dict[str, Any]:
        return _runtime_env(self.env_vars, self.environment)


class MethodOptions(NamedTuple):
    """How calls of one method of an actor run. None where the actor's own setting or the default of its kind holds."""

    num_returns: NumReturns = None
    max_task_retries: int | None = None
    retry_exceptions: RetryExceptions = False
    concurrency_group: str | None = None
    name: str | None = None
    enable_task_events: bool = True
    labels: tuple[tuple[str, str], ...] = ()
    generator_backpressure_num_objects: int | None = None
    tensor_transport: str | None = None  # in lower case; whether there is one of this name is not checked here


def task_options(
    decorator: Mapping[str, object], call: Mapping[str, object], *, default_max_retries: int = TASK_MAX_RETRIES
) -> TaskOptions:
    """The options of a task: those of the decorator, replaced by those of `.options(...)`.

    Raises InvalidOption (a ValueError) for an unknown name or a bad value, InvalidOptionType (a TypeError too) for a
    value of a wrong type, UnsupportedFeature for what this version does not have.
    """
    given = _checked("task", _TASK, decorator, call)
    amounts = _amounts(given)
    if resource_model.CPU not in amounts:
        amounts[resource_model.CPU] = TASK_CPU_UNITS
    _choose_group(given, "task", [amounts])
    max_calls = given.get("max_calls")
    if max_calls is None:
        max_calls = GPU_TASK_MAX_CALLS if amounts.get(resource_model.GPU) else 0
    return TaskOptions(
        resources=ResourceSet(amounts),
        num_returns=given.get("num_returns"),
        max_retries=given.get("max_retries", default_max_retries),
        retry_exceptions=given.get("retry_exceptions", False),
        max_calls=max_calls,
        generator_backpressure_num_objects=given.get("_generator_backpressure_num_objects", -1),
        **_common(given),
    )


def actor_options(decorator: Mapping[str, object], call: Mapping[str, object]) -> ActorOptions:
    """The options of an actor; as `task_options`."""
    given = _checked("actor", _ACTOR, decorator, call)
    if given.get("get_if_exists") and given.get("name") is None:
        raise exceptions.InvalidOption(
            "get_if_exists=True needs a name, got name=None; pass name='...', under which the actor is looked up",
            option="get_if_exists",
        )
    running = _amounts(given)
    if running.keys() <= {resource_model.MEMORY, resource_model.OBJECT_STORE_MEMORY}:
        placement = {**running, resource_model.CPU: ACTOR_CPU_UNITS}  # idle actors may then outnumber the CPUs
    else:
        running.setdefault(resource_model.CPU, ACTOR_CPU_UNITS)
        placement = running
    _choose_group(given, "actor", [running, placement])
    return ActorOptions(
        placement_resources=ResourceSet(placement),
        running_resources=ResourceSet(running),
        max_restarts=given.get("max_restarts", 0),
        max_task_retries=given.get("max_task_retries", 0),
        max_concurrency=given.get("max_concurrency"),
        concurrency_groups=given.get("concurrency_groups"),
        lifetime=given.get("lifetime"),
        namespace=given.get("namespace"),
        get_if_exists=given.get("get_if_exists", False),
        max_pending_calls=given.get("max_pending_calls") or -1,
        allow_out_of_order_execution=given.get("allow_out_of_order_execution"),
        generator_backpressure_num_objects=given.get("_actor_generator_backpressure_num_objects", -1),
        enable_tensor_transport=given.get("enable_tensor_transport"),
        **_common(given),
    )


def method_options(decorator: Mapping[str, object], call: Mapping[str, object]) -> MethodOptions:
    """The options of an actor's method: those of `@umbel.method`, replaced by those of `.options(...)`."""
    given = _checked("method", _METHOD, decorator, call)
    return MethodOptions(
        num_returns=given.get("num_returns"),
        max_task_retries=given.get("max_task_retries"),
        retry_exceptions=given.get("retry_exceptions", False),
        concurrency_group=given.get("concurrency_group"),
        name=given.get("name"),
        enable_task_events=given.get("enable_task_events", True),
        labels=given.get("_labels", ()),
        generator_backpressure_num_objects=given.get("_generator_backpressure_num_objects"),
        tensor_transport=given.get("tensor_transport"),
    )


def _common(given: _Given) -> _Given:
    env_vars, environment = given.get("runtime_env", ((), ""))
    return {
        "name": given.get("name"),
        "env_vars": env_vars,
        "environment": environment,
        "label_selectors": _selectors(given),  # may take the strategy away
        "scheduling_strategy": given.get("scheduling_strategy"),
        "accelerator_type": given.get("accelerator_type"),
        "enable_task_events": given.get("enable_task_events", True),
        "labels": given.get("_labels", ()),
    }


def _selectors(given: _Given) -> tuple[tuple[tuple[str, str], ...], ...]:
    """What is asked of the node's labels, by all options that do."""
    strategy: Any = given.get("scheduling_strategy")
    by_labels = hasattr(strategy, "hard")
    if not (by_labels or given.get("label_selector") or given.get("fallback_strategy")):
        return ()
    from umbel._model import node_labels

    hard: node_labels.Selector = ()
    soft: node_labels.Selector = ()
    if by_labels:
        hard, soft = node_labels.of_operators(strategy.hard), node_labels.of_operators(strategy.soft)
        given["scheduling_strategy"] = "DEFAULT"
    return node_labels.in_order(given.get("label_selector", ()), given.get("fallback_strategy", ()), hard, soft)


def _amounts(given: _Given) -> dict[str, int]:
    """Units by resource name, of what was given explicitly; zeros are kept."""
    amounts: dict[str, int] = dict(given.get("resources", {}))
    for resource, option in resource_model.OPTION_OF.items():
        if option in given:
            amounts[resource] = given[option]
    if "accelerator_type" in given:
        amounts[ACCELERATOR_TYPE_PREFIX + given["accelerator_type"]] = ACCELERATOR_TYPE_UNITS
    return amounts


def _runtime_env(env_vars: tuple[tuple[str, str], ...], environment: str) -> dict[str, Any]:
    found: dict[str, Any] = {"env_vars": dict(env_vars)} if env_vars else {}
    if environment:
        import json

        found.update(json.loads(environment))
    return found


# ---------------------------------------------------------------------------------------------------------------------
# Which options there are.

_Check: TypeAlias = "Callable[[str, Any], Any]"  # (option, value not None) -> the form that is kept; Any: a type each


class _Option(NamedTuple):
    check: _Check
    only_in: Literal["decorator", "call"] | None = None


def _checked(
    kind: str, table: Mapping[str, _Option], decorator: Mapping[str, object], call: Mapping[str, object]
) -> _Given:
    for place, options in (("decorator", decorator), ("call", call)):
        for name in options:
            option = table.get(name)
            if option is None:
                raise _unknown(kind, name, options[name])
            if option.only_in not in (None, place):
                raise _misplaced(kind, name, options[name], option.only_in)
    merged = {**decorator, **call}
    given = {name: table[name].check(name, value) for name, value in merged.items() if value is not None}
    if merged.get(_GROUP, given) is None:
        given[_GROUP] = None  # "in no group", which is not the same as to leave it out
    return given


def _unknown(kind: str, name: str, value: object) -> exceptions.InvalidOption:
    others = [other for other, table in _TABLES.items() if name in table]
    if others:
        advice = f"it is an option of {' and '.join(other + 's' for other in others)}; leave it out here"
    else:
        import difflib

        close = difflib.get_close_matches(name, _TABLES[kind], n=3)
        public = ", ".join(sorted(option for option in _TABLES[kind] if not option.startswith("_")))
        advice = f"did you mean {' or '.join(close)}?" if close else f"allowed are {public}"
    return exceptions.InvalidOption(f"{kind}s have no option {name!r}, got {name}={value!r}; {advice}", option=name)


def _misplaced(kind: str, name: str, value: object, place: str | None) -> exceptions.InvalidOption:
    where = {"task": "@umbel.remote", "actor": "@umbel.remote", "method": "@umbel.method"}[kind]
    text = f"must be set in {where}(...)" if place == "decorator" else "must be set in .options(...)"
    other = ".options(...)" if place == "decorator" else f"{where}(...)"
    return exceptions.InvalidOption(f"{name} {text}, got {name}={value!r} in {other}; move it there", option=name)


# ---------------------------------------------------------------------------------------------------------------------
# Checks. Each is called with the option's name and a value that is not None.


def _wrong_value(option: str, allowed: str, value: object, advice: str) -> exceptions.InvalidOption:
    return exceptions.InvalidOption(f"{option} must be {allowed}, got {value!r}; {advice}", option=option)


def _wrong_type(option: str, allowed: str, value: object, advice: str) -> exceptions.InvalidOptionType:
    return exceptions.InvalidOptionType(
        f"{option} must be {allowed}, got {value!r} of type {type(value).__name__}; {advice}", option=option
    )


def _units(advice: str) -> _Check:
    return lambda option, value: resource_model.units_of(value, what=option, advice=advice)


def _gpu_units(option: str, value: object) -> int:
    return resource_model.gpu_units_of(value, what=option, advice="omit it for the default of 0")


def _custom(option: str, value: object) -> dict[str, int]:
    return resource_model.custom_units(value, what=option)


def _count(allowed: str, advice: str, *, minimum: int, refused: Iterable[int] = ()) -> _Check:
    """A whole number >= minimum and none of `refused`."""

    def check(option: str, value: Any) -> int:
        if type(value) is not int:
            if isinstance(value, (bool, str, bytes, float)) or not hasattr(value, "__index__"):
                raise _wrong_type(option, allowed, value, advice)
            value = value.__index__()  # a numpy integer
        if value < minimum or value in refused:
            raise _wrong_value(option, allowed, value, advice)
        return int(value)

    return check


def _flag(default: object) -> _Check:
    def check(option: str, value: object) -> bool:
        if not isinstance(value, bool):
            raise _wrong_type(option, "True or False", value, f"omit it for the default of {default!r}")
        return value

    return check


def _text(advice: str) -> _Check:
    def check(option: str, value: object) -> str:
        if not isinstance(value, str):
            raise _wrong_type(option, "a non-empty str", value, advice)
        if not value:
            raise _wrong_value(option, "a non-empty str", value, advice)
        return value

    return check


def _num_returns(option: str, value: object) -> object:
    if value in ("streaming", "dynamic"):
        return value
    allowed = 'a whole number >= 0, "streaming" or "dynamic"'
    return _count(allowed, "omit it for the default of 1, or of a stream for generators", minimum=0)(option, value)


def _retry_exceptions(option: str, value: object) -> RetryExceptions:
    advice = "omit it to retry none; True retries all"
    allowed = "True, False or a list of Exception classes"
    if isinstance(value, bool):
        return value
    if not isinstance(value, (list, tuple)):
        raise _wrong_type(option, allowed, value, advice)
    for one in value:
        if not (isinstance(one, type) and issubclass(one, Exception)):
            raise _wrong_type(option, allowed, value, f"{one!r} is none; {advice}")
    return tuple(value)


def _str_pairs(option: str, value: object) -> tuple[tuple[str, str], ...]:
    """A dict of str to str, in a canonical order."""
    advice = "write {'name': 'value'}"
    if not isinstance(value, Mapping):
        raise _wrong_type(option, "a dict of str to str", value, advice)
    for key, item in value.items():
        if not (isinstance(key, str) and isinstance(item, str)):
            raise _wrong_type(option, "a dict of str to str", value, f"convert {key!r}: {item!r} with str()")
        if not key:
            raise _wrong_value(option, "a dict without empty names", value, advice)
    return tuple(sorted(value.items()))


def _environment(option: str, value: object) -> tuple[tuple[tuple[str, str], ...], str]:
    """The option runtime_env: its variables, and its other fields, which have been checked, as JSON."""
    if not isinstance(value, Mapping):
        raise _wrong_type(option, "a dict", value, "write {'env_vars': {'NAME': 'value'}}")
    others = {key: item for key, item in value.items() if key != "env_vars" and item is not None}
    if not others:
        return _env_vars(option, value), ""
    import json

    return _env_vars(option, value), json.dumps(others, sort_keys=True)


def _env_vars(option: str, value: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    what = f"{option}['env_vars']"
    pairs = _str_pairs(what, value.get("env_vars") or {})
    for name, text in pairs:
        if "=" in name or "\0" in name or "\0" in text:
            raise _wrong_value(
                what, "without '=' in names and without NUL", {name: text}, "the system cannot hold such a variable"
            )
    return pairs


def _lifetime(option: str, value: object) -> object:
    if value in ("detached", "non_detached"):
        return value
    wrong = _wrong_value if isinstance(value, str) else _wrong_type
    raise wrong(option, '"detached" or "non_detached"', value, "omit it for an actor that lives as long as its handles")


def _groups(option: str, value: object) -> dict[str, int]:
    advice = "write {'io': 2}, the number of calls of each group that may run at once"
    if isinstance(value, (list, tuple)) and not value:
        return {}
    if not isinstance(value, Mapping):
        raise _wrong_type(option, "a dict of whole numbers >= 1 by name", value, advice)
    name = _text(advice)
    count = _count("a whole number >= 1", advice, minimum=1)
    return {name(f"a name in {option}", key): count(f"{option}[{key!r}]", item) for key, item in value.items()}


def _strategy(option: str, value: object) -> object:
    advice = 'use "DEFAULT", "SPREAD", a PlacementGroupSchedulingStrategy or a NodeAffinitySchedulingStrategy'
    allowed = '"DEFAULT", "SPREAD" or a strategy of umbel.util.scheduling_strategies'
    if isinstance(value, str):
        if value in ("DEFAULT", "SPREAD"):
            return value
        raise _wrong_value(option, allowed, value, advice)
    if hasattr(value, "node_id") and hasattr(value, "soft"):
        return value
    if hasattr(value, "placement_group"):
        if value.placement_group is not None:
            _placement_group(f"{option}.placement_group", value.placement_group)
        return value
    if hasattr(value, "hard") and hasattr(value, "soft"):
        return value
    raise _wrong_type(option, allowed, value, advice)


def _selector(option: str, value: object) -> tuple[tuple[str, str], ...]:
    pairs = _str_pairs(option, value)
    if not pairs:
        return ()
    from umbel._model import node_labels

    return node_labels.checked(option, dict(pairs))


def _fallbacks(option: str, value: object) -> tuple[tuple[tuple[str, str], ...], ...]:
    advice = "write [{'label_selector': {...}}]"
    if not isinstance(value, (list, tuple)) or not all(isinstance(one, Mapping) for one in value):
        raise _wrong_type(option, "a list of dicts", value, advice)
    for one in value:
        if set(one) - {"label_selector"}:
            raise _wrong_value(option, "a list of dicts with 'label_selector' and nothing else", value, advice)
    return tuple(_selector(f"{option}[{index}]", one.get("label_selector") or {}) for index, one in enumerate(value))


_GROUP: Final = "placement_group"
_INDEX: Final = "placement_group_bundle_index"
_CAPTURE: Final = "placement_group_capture_child_tasks"


def _placement_group(option: str, value: Any) -> Any:
    if not (value == "default" or (hasattr(value, "bundle_specs") and hasattr(value, "id"))):
        raise _wrong_type(option, "a PlacementGroup", value, "make one with umbel.util.placement_group(), or omit it")
    return value


def _choose_group(given: _Given, what: str, wanted: Iterable[Mapping[str, int]]) -> None:
    """Make one strategy of the options that are about placement groups. wanted: what has to fit into a bundle."""
    strategy: Any = given.get("scheduling_strategy")
    group = given.pop(_GROUP, "default")
    index, captures = given.pop(_INDEX, -1), given.pop(_CAPTURE, None)
    if hasattr(strategy, "placement_group"):
        group, index = strategy.placement_group, strategy.placement_group_bundle_index
        captures = strategy.placement_group_capture_child_tasks
        check = _COMMON[_INDEX].check
        check(_INDEX, index)
    elif strategy is not None:
        if group not in ("default", None):
            raise exceptions.InvalidOption(
                f"placement_group and scheduling_strategy were both given, got {group!r} and {strategy!r}; name the group in "
                "a PlacementGroupSchedulingStrategy",
                option=_GROUP,
            )
        return
    if group == "default":
        if index != -1 or captures is not None:
            given["scheduling_strategy"] = InGroup("", index, captures)
        return
    if group is None or group.is_empty:
        if index != -1:
            raise no_group(index)
        given["scheduling_strategy"] = "DEFAULT"
        return
    chosen = InGroup(group.id.hex(), index, captures)
    check_bundles(f"the {what}", chosen, group._bundle_amounts(), wanted)
    given["scheduling_strategy"] = chosen


def no_group(index: int) -> exceptions.InvalidOption:
    """The error of a bundle of no group."""
    return exceptions.InvalidOption(
        f"{_INDEX} must be -1 where there is no placement group, got {index!r}; name the group in a "
        "PlacementGroupSchedulingStrategy",
        option=_INDEX,
    )


def check_bundles(
    what: str, group: InGroup, bundles: Sequence[ResourceSet], wanted: Iterable[Mapping[str, int]]
) -> None:
    """Raises InvalidOption when there is no such bundle in a group, or none that what asks for it fits into."""
    if group.bundle_index >= len(bundles):
        raise exceptions.InvalidOption(
            f"{_INDEX} must be -1 or below {len(bundles)}, the number of bundles of the placement group, got "
            f"{group.bundle_index!r}; omit it for any bundle",
            option=_INDEX,
        )
    meant = bundles if group.bundle_index < 0 else [bundles[group.bundle_index]]
    for amounts in wanted:
        if not any(ResourceSet(amounts).fits_in(bundle) for bundle in meant):
            need, has = ResourceSet(amounts).to_floats(), [bundle.to_floats() for bundle in meant]
            where = "any bundle" if group.bundle_index < 0 else f"bundle {group.bundle_index}"
            raise exceptions.InvalidOption(
                f"{what} needs {need}, which does not fit into {where} of the placement "
                f"group, {has}; ask for less, or make the group with more",
                option="scheduling_strategy",
            )


def _tensor_transport(option: str, value: object) -> str | None:
    name = _text("omit it for the object store")(option, value).lower()
    return None if name == "object_store" else str(name)


_WINDOW: Final = _count("-1 for no limit or a whole number >= 1", "omit it for no limit", minimum=-1, refused=(0,))


def _per_yield(option: str, value: object) -> None:
    if _count("a whole number >= 1", "omit it for the default of 1", minimum=1)(option, value) != 1:
        raise exceptions.UnsupportedFeature(
            f"{option}={value!r} is not supported: this version of Umbel makes one object of each yield; leave it out"
        )


_COMMON: Final[Mapping[str, _Option]] = {
    "num_cpus": _Option(_units("omit it for the default of 1")),
    "num_gpus": _Option(_gpu_units),
    "memory": _Option(_units("omit it for no reservation, or write bytes")),
    "resources": _Option(_custom),
    "accelerator_type": _Option(_text("omit it to run on any")),
    "name": _Option(_text("omit it for no name")),
    "runtime_env": _Option(_environment),
    "scheduling_strategy": _Option(_strategy),
    "label_selector": _Option(_selector),
    "fallback_strategy": _Option(_fallbacks),
    _GROUP: _Option(_placement_group),
    _INDEX: _Option(_count("a whole number >= -1", "omit it for any bundle", minimum=-1)),
    _CAPTURE: _Option(_flag(None)),
    "enable_task_events": _Option(_flag(True)),
    "_labels": _Option(_str_pairs),
}

_ENDLESS: Final = "a whole number >= -1"
_STREAM: Final[Mapping[str, _Option]] = {
    "num_returns": _Option(_num_returns),
    "retry_exceptions": _Option(_retry_exceptions),
    "_generator_backpressure_num_objects": _Option(_WINDOW),
    "_num_objects_per_yield": _Option(_per_yield),
}

_TASK: Final[Mapping[str, _Option]] = {
    **_COMMON,
    **_STREAM,
    "max_retries": _Option(_count(_ENDLESS, "omit it for the default of 3; -1 retries for ever", minimum=-1)),
    "max_calls": _Option(_count("a whole number >= 0", "omit it for no limit", minimum=0), only_in="decorator"),
}

_ACTOR: Final[Mapping[str, _Option]] = {
    **_COMMON,
    "object_store_memory": _Option(_units("omit it for no reservation, or write bytes")),
    "max_restarts": _Option(_count(_ENDLESS, "omit it for the default of 0; -1 restarts for ever", minimum=-1)),
    "max_task_retries": _Option(_count(_ENDLESS, "omit it for the default of 0; -1 retries for ever", minimum=-1)),
    "max_concurrency": _Option(_count("a whole number >= 1", "omit it for 1, or 1000 with async methods", minimum=1)),
    "concurrency_groups": _Option(_groups, only_in="decorator"),
    "lifetime": _Option(_lifetime),
    "namespace": _Option(_text("omit it for the namespace of the job")),
    "get_if_exists": _Option(_flag(False)),
    "max_pending_calls": _Option(
        _count("-1 or 0 for no limit, or a whole number >= 1", "omit it for no limit", minimum=-1)
    ),
    "allow_out_of_order_execution": _Option(_flag("what suits the class")),
    "enable_tensor_transport": _Option(_flag("whether a method has a tensor_transport")),
    "_actor_generator_backpressure_num_objects": _Option(_WINDOW),
}

_METHOD: Final[Mapping[str, _Option]] = {
    **_STREAM,
    "max_task_retries": _Option(_count(_ENDLESS, "omit it for the actor's own; -1 retries for ever", minimum=-1)),
    "concurrency_group": _Option(_text("omit it for the default group")),
    "name": _Option(_text("omit it for the method's name"), only_in="call"),
    "enable_task_events": _Option(_flag(True)),
    "tensor_transport": _Option(_tensor_transport),
    "_labels": _Option(_str_pairs, only_in="call"),
}

_TABLES: Final[Mapping[str, Mapping[str, _Option]]] = {"task": _TASK, "actor": _ACTOR, "method": _METHOD}
