"""Functions of the user's as parts of expressions.

Such a function gets a whole Arrow array for each expression, the value of a literal and everything else as it was
given, and returns as many values as there are rows: an array of Arrow's or NumPy's, a pandas Series or a list. A
class is instantiated where it is used, once in each process: what travels is the class and its arguments.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import inspect
import pickle
import threading
import uuid
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pyarrow as pa

from umbel.data._blocks import owning
from umbel.data._expressions import errors, nodes
from umbel.data._expressions.promotion import Operand, Value

INSTANCES_MAX: Final = (
    64  # of callable classes in one process, models among them; the one that is unused longest goes first
)


@dataclasses.dataclass(frozen=True, slots=True)
class Spec:
    """A callable class and what it is made from. token: the same for the same arguments, where that can be told."""

    cls: type
    token: str
    args: tuple[object, ...] = dataclasses.field(compare=False)
    kwargs: dict[str, object] = dataclasses.field(compare=False)

    def __call__(self, *args: object, **kwargs: object) -> object:
        return _INSTANCES.of(self)(*args, **kwargs)


def spec_of(cls: type, args: tuple[object, ...], kwargs: dict[str, object]) -> Spec:
    import hashlib  # few have such a class, and all load this module

    try:
        token = hashlib.sha256(pickle.dumps((args, sorted(kwargs.items())))).hexdigest()
    except Exception:  # whatever an argument's own pickling raises: it is then known by this call alone
        token = uuid.uuid4().hex
    return Spec(cls, token, args, kwargs)


class _Instances:
    def __init__(self) -> None:
        self._lock = threading.RLock()  # a constructor may itself evaluate an expression
        self._made: collections.OrderedDict[Spec, Callable[..., object]] = collections.OrderedDict()

    def of(self, spec: Spec) -> Callable[..., object]:
        with self._lock:  # held while it is made: a second thread wants this one, and not a second model
            found = self._made.get(spec)
            if found is None:
                found = self._made[spec] = spec.cls(*spec.args, **spec.kwargs)
                if len(self._made) > INSTANCES_MAX:
                    self._made.popitem(last=False)
            self._made.move_to_end(spec)
        return found


# Of the process: tasks that run in it one after the other share what was costly to make.
_INSTANCES: Final = _Instances()


def name_of(function: Callable[..., object]) -> str:
    named = function.cls if isinstance(function, Spec) else function
    return str(getattr(named, "__name__", type(named).__name__))


def call_node(
    function: Callable[..., object],
    return_type: pa.DataType,
    args: tuple[object, ...],
    kwargs: dict[str, object],
    *,
    node_of: Callable[[object], nodes.Node | None],
) -> nodes.UdfCall:
    """node_of: the node of an argument that is an expression, None for any other."""
    found: list[nodes.Node] = []
    places: list[int | nodes.Fixed] = []
    for value in (*args, *kwargs.values()):
        node = node_of(value)
        if node is None:
            places.append(nodes.Fixed(value, _identity(value)))
        else:
            places.append(len(found))
            found.append(node)
    if not found:
        raise TypeError(f"{name_of(function)}() takes at least one expression, such as col('x'); got {args!r}")
    return nodes.UdfCall(function, return_type, tuple(found), tuple(places), tuple(kwargs))


def _identity(value: object) -> str:
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return repr(value)
    return f"{type(value).__qualname__}@{id(value):x}"


def result(node: nodes.UdfCall, args: list[Operand]) -> object:
    """What the function returns. Raises what it raises."""
    given = [_argument(args[place].value) if isinstance(place, int) else place.value for place in node.places]
    plain = len(given) - len(node.keywords)
    keywords = dict(zip(node.keywords, given[plain:], strict=True))
    # What the function still holds, a buffer of its own perhaps, is copied: the column shares the array's memory.
    return owning.owned_batch({"": node.function(*given[:plain], **keywords)}, is_of_generator=False)[""]


def checked(returned: object, type_: pa.DataType, row_count: int) -> Value:
    """As an array. Raises Problem for what is not `row_count` values of that type."""
    if inspect.isawaitable(returned) or inspect.isgenerator(returned):
        raise _wrong("returned a coroutine or generator; write a plain function, or use map_batches()")
    array = _as_array(returned, type_)
    if len(array) != row_count:
        raise _wrong(f"returned {len(array)} values for {row_count} rows; it has to return one for each row")
    return array


def _argument(value: Value) -> object:
    if isinstance(value, pa.Scalar):
        return value.as_py()
    return value.combine_chunks() if isinstance(value, pa.ChunkedArray) else value


def _as_array(result: Any, type_: pa.DataType) -> Value:
    try:
        if isinstance(result, pa.Scalar) or np.isscalar(result) or result is None:
            raise _wrong(f"returned {result!r}; it has to return one value for each row")
        if isinstance(result, pa.Array | pa.ChunkedArray):
            return result if result.type.equals(type_) else result.cast(type_)
        if isinstance(result, np.ndarray) and isinstance(type_, pa.FixedShapeTensorType):
            return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(result)).cast(type_)
        if isinstance(result, np.ndarray) and result.ndim == 1 and result.dtype.kind in "biufmM":
            # NumPy marks no missing values; nan stays nan.
            return pa.array(result).cast(type_)
        if isinstance(result, np.ndarray) and result.ndim > 1:
            result = list(result)
        return pa.array(result, type_)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        got = getattr(result, "type", None) or getattr(result, "dtype", None) or type(result).__name__
        raise _wrong(f"returned {got}, which is not the {type_} that it declares: {error}") from error


def _wrong(message: str) -> errors.Problem:
    return errors.Problem(message, errors.ExpressionError)


def decorator(
    return_type: pa.DataType, *, wrap: Callable[[nodes.Node], object], node_of: Callable[[object], nodes.Node | None]
) -> Callable[[Any], Any]:
    """What `@udf(...)` gives: functions become makers of expressions, classes become makers of those."""

    def expression(function: Callable[..., object], args: tuple[object, ...], kwargs: dict[str, object]) -> object:
        return wrap(call_node(function, return_type, args, kwargs, node_of=node_of))

    def decorate(function: Any) -> Any:
        if not callable(function):
            raise TypeError(f"@udf(...) goes above a function or a class with __call__, got {function!r}")
        if not isinstance(function, type):
            if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
                raise TypeError(
                    f"{name_of(function)} is async or a generator; write a plain function, or use map_batches()"
                )

            @functools.wraps(function)
            def make(*args: object, **kwargs: object) -> object:
                return expression(function, args, kwargs)

            return make
        if not any("__call__" in vars(base) for base in function.__mro__):
            raise TypeError(f"{function.__name__} has no __call__; give it one, which gets and returns arrays")

        @functools.wraps(function, updated=())
        def make_instance(*args: object, **kwargs: object) -> Callable[..., object]:
            spec = spec_of(function, args, kwargs)
            return lambda *given, **named: expression(spec, given, named)

        return make_instance

    return decorate
