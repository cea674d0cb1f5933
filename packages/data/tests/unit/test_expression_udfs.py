"""Functions of the user's in expressions."""

from __future__ import annotations

from typing import Any

import expression_tables as tables
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings

from umbel import cloudpickle
from umbel.data import expressions
from umbel.data._expressions import evaluate, typing, udfs
from umbel.data.expressions import col, lit, udf, when

TABLE = pa.table({"a": [1, 2, None], "b": [0, 4, 2], "s": ["x", None, "y"]})


@udf(return_dtype=pa.int64())
def doubled(x: pa.Array) -> pa.Array:
    return pc.multiply(x, 2)


@given(values=tables.values(tables.SMALL), layout=tables.layouts())
@settings(max_examples=20, deadline=None, database=None, derandomize=True)
def test_a_users_function_gets_and_gives_arrays(values: list[Any], layout: Any) -> None:
    table = tables.table(layout, a=pa.array(values, pa.int64()))
    assert tables.computed(doubled(col("a")) + 1, table) == tables.by_rows(lambda one: one * 2 + 1, values)


@pytest.mark.parametrize(
    ("function", "type_", "expected"),
    [
        (lambda x: np.array([0.5, 1.5, 2.5]), "float64", [0.5, 1.5, 2.5]),
        (lambda x: np.array([1, 2, 3]), "float32", [1.0, 2.0, 3.0]),
        (lambda x: ["a", None, "b"], "string", ["a", None, "b"]),
        (lambda x: np.array(["a", None, "b"], object), "string", ["a", None, "b"]),
        (lambda x: pa.chunked_array([[1], [2, 3]]), "int32", [1, 2, 3]),
        (lambda x: np.arange(6).reshape(3, 2), pa.list_(pa.int64()), [[0, 1], [2, 3], [4, 5]]),
        (lambda x: np.arange(6).reshape(3, 2), pa.fixed_shape_tensor(pa.int64(), [2]), [[0, 1], [2, 3], [4, 5]]),
    ],
)
def test_a_users_function_may_return_any_arrays(function: Any, type_: Any, expected: list[Any]) -> None:
    found = evaluate.evaluate(udf(type_)(function)(col("b")), TABLE)
    storage = found.storage if isinstance(found, pa.ExtensionArray) else found
    assert storage.to_pylist() == expected


@pytest.mark.parametrize(
    ("function", "error", "says"),
    [
        (lambda x: [1], expressions.ExpressionError, "returned 1 values for 3 rows"),
        (lambda x: 1, expressions.ExpressionError, "returned 1; it has to return one value for each row"),
        (lambda x: None, expressions.ExpressionError, "returned None"),
        (
            lambda x: ["a", "b", "c"],
            expressions.ExpressionError,
            "returned list, which is not the int64 that it declares",
        ),
        (lambda x: pa.array([0.5] * 3), expressions.ExpressionError, "returned double, which is not the int64"),
    ],
)
def test_what_a_users_function_must_not_return(function: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=rf"<lambda>\(col\('b'\)\): {says}"):
        evaluate.evaluate(udf("int64")(function)(col("b")), TABLE)


@pytest.mark.parametrize(
    "error", [LookupError("mine"), pa.ArrowInvalid("mine"), pa.ArrowNotImplementedError("mine")], ids=repr
)
def test_what_a_users_function_raises_comes_through_as_it_is(error: Exception) -> None:
    @udf("int64")
    def broken(x: pa.Array) -> pa.Array:
        raise error

    for expr in (broken(col("a")), broken(col("a")) + 1, when(col("a") > 1).then(broken(col("a")))):
        with pytest.raises(type(error)) as caught:
            evaluate.evaluate(expr, TABLE)
        assert caught.value is error


def test_a_users_function_is_not_called_for_types_nor_for_no_rows() -> None:
    calls: list[int] = []

    @udf("int64")
    def counted(x: pa.Array) -> pa.Array:
        calls.append(len(x))
        return x

    expr = counted(col("a"))
    assert typing.field_of(expr, TABLE.schema).type == pa.int64()
    assert evaluate.evaluate(expr, TABLE.slice(0, 0)).type == pa.int64()
    assert calls == []
    assert tables.computed(when(col("b") > 0).then(expr), TABLE) == [None, 2, None]
    assert calls == [2]  # only what is wanted


def test_a_users_function_may_return_a_series() -> None:
    pandas = pytest.importorskip("pandas")

    @udf("float64")
    def halved(x: pa.Array) -> Any:
        return pandas.Series(x.to_pandas()) / 2

    assert tables.computed(halved(col("b")), TABLE) == [0.0, 2.0, 1.0]


def test_other_arguments_come_as_they_are() -> None:
    seen: list[Any] = []

    @udf("int64")
    def scaled(x: pa.Array, factor: int, *, shift: pa.Array, names: list[str]) -> pa.Array:
        seen.append((factor, names))
        return pc.add(pc.multiply(x, factor), shift)

    expr = scaled(col("b"), lit(3), shift=col("b"), names=["n"])
    assert tables.computed(expr, TABLE) == [0, 16, 8]
    assert seen == [(3, ["n"])]
    assert repr(expr) == "scaled(col('b'), lit(3), shift=col('b'), names=['n'])"
    with pytest.raises(TypeError, match="takes at least one expression"):
        scaled(3)


class Counted:
    made = 0


@udf(return_dtype="int64")
class Shifted:
    def __init__(self, by: int, *, extra: list[int] | None = None) -> None:
        Counted.made += 1
        self.by = by + sum(extra or [])

    def __call__(self, x: pa.Array) -> pa.Array:
        return pc.add(x, self.by)


def test_a_class_is_instantiated_once_for_each_set_of_arguments() -> None:
    Counted.made = 0
    exprs = [Shifted(1)(col("b")), Shifted(1)(col("b")) + 0, Shifted(2, extra=[3])(col("b")), Shifted(True)(col("b"))]
    assert Counted.made == 0  # here; it is made where it is used
    for _ in range(2):
        found = [tables.computed(expr, TABLE) for expr in exprs]
    assert found == [[1, 5, 3], [1, 5, 3], [5, 9, 7], [1, 5, 3]]
    assert Counted.made == 3  # 1 and True are not the same
    assert exprs[0].structurally_equals(Shifted(1)(col("b")))
    assert not exprs[0].structurally_equals(Shifted(4)(col("b")))


def test_instances_are_bounded() -> None:
    Counted.made = 0
    for by in range(1000, 1000 + udfs.INSTANCES_MAX + 1):
        tables.computed(Shifted(by)(col("b")), TABLE)
    tables.computed(Shifted(1000 + udfs.INSTANCES_MAX)(col("b")), TABLE)
    assert Counted.made == udfs.INSTANCES_MAX + 1
    tables.computed(Shifted(1000)(col("b")), TABLE)  # it went first
    assert Counted.made == udfs.INSTANCES_MAX + 2


def test_a_class_travels_with_its_arguments_and_stays_one() -> None:
    expr = Shifted(40)(col("b"))
    copies = [cloudpickle.loads(cloudpickle.dumps(expr)) for _ in range(2)]
    Counted.made = 0
    assert [tables.computed(copy, TABLE) for copy in copies] == [[40, 44, 42]] * 2


@pytest.mark.parametrize("wrong", [3, type("NoCall", (), {})])
def test_what_cannot_be_called_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"@udf|no __call__"):
        udf("int64")(wrong)


def test_coroutines_and_generators_are_refused_where_they_are_written() -> None:
    async def slow(x: pa.Array) -> pa.Array:
        return x

    with pytest.raises(TypeError, match="write a plain function"):
        udf("int64")(slow)


class Filled:
    """Gives out the same array again and again."""

    def __init__(self) -> None:
        self.buffer = np.zeros(2, np.int64)

    def __call__(self, values: pa.Array) -> Any:
        self.buffer[:] = values.to_numpy()
        return self.buffer


def test_a_buffer_of_a_function_may_be_used_again() -> None:
    expr = udf(return_dtype=pa.int64())(Filled)()(col("a"))
    first, second = (evaluate.evaluate(expr, pa.table({"a": values})) for values in ([1, 2], [3, 4]))
    assert (first.to_pylist(), second.to_pylist()) == ([1, 2], [3, 4])
