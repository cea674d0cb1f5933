"""The methods under .str, .dt, .list, .struct, .map and .arr are Python's where Python has them."""

from __future__ import annotations

import datetime
import inspect
import re
from collections.abc import Callable
from typing import Any

import expression_tables as tables
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umbel.data import expressions
from umbel.data._expressions import functions, namespaces, parse, typing
from umbel.data.expressions import col, lit

S = col("s")
LIKE_PYTHON: dict[str, tuple[expressions.Expr, Callable[[str], Any]]] = {
    "len": (S.str.len(), len),
    "byte_len": (S.str.byte_len(), lambda text: len(text.encode())),
    "is_ascii": (S.str.is_ascii(), str.isascii),
    "is_alpha": (S.str.is_alpha(), str.isalpha),
    "is_alnum": (S.str.is_alnum(), str.isalnum),
    "is_digit": (S.str.is_digit(), str.isdigit),
    "is_decimal": (S.str.is_decimal(), str.isdecimal),
    "is_numeric": (S.str.is_numeric(), str.isnumeric),
    "is_space": (S.str.is_space(), str.isspace),
    "is_lower": (S.str.is_lower(), str.islower),
    "is_upper": (S.str.is_upper(), str.isupper),
    "is_title": (S.str.is_title(), str.istitle),
    "starts_with": (S.str.starts_with("a"), lambda text: text.startswith("a")),
    "ends_with": (S.str.ends_with("ß"), lambda text: text.endswith("ß")),
    "contains": (S.str.contains("ab"), lambda text: "ab" in text),
    "contains_case": (S.str.contains("AB", ignore_case=True), lambda text: "ab" in text.lower()),
    "match": (S.str.match("_a%"), lambda text: re.fullmatch(".a.*", text, re.DOTALL) is not None),
    "match_regex": (
        S.str.match_regex("^a.*b$"),
        lambda text: re.search("^a.*b$", text) is not None and "\n" not in text,
    ),
    "find": (S.str.find("b"), lambda text: text.find("b")),
    "find_wide": (S.str.find("ß"), lambda text: text.find("ß")),
    "find_regex": (
        S.str.find_regex("[bB]"),
        lambda text: min([place for place in map(text.find, "bB") if place >= 0], default=-1),
    ),
    "count": (S.str.count("a"), lambda text: text.count("a")),
    "count_regex": (S.str.count_regex("[ab]"), lambda text: text.count("a") + text.count("b")),
    "reverse": (S.str.reverse(), lambda text: text[::-1]),
    "replace": (S.str.replace("a", "ßx"), lambda text: text.replace("a", "ßx")),
    "replace_once": (S.str.replace("a", "", max_replacements=1), lambda text: text.replace("a", "", 1)),
    "replace_regex": (S.str.replace_regex("([ab])", r"<\1>"), lambda text: re.sub("([ab])", r"<\1>", text)),
    "replace_slice": (S.str.replace_slice(1, 2, "--"), lambda text: text[:1] + "--" + text[2:]),
    "split": (S.str.split(","), lambda text: text.split(",")),
    "split_once": (S.str.split(",", max_splits=1), lambda text: text.split(",", 1)),
    "split_last": (S.str.split(",", max_splits=1, reverse=True), lambda text: text.rsplit(",", 1)),
    "split_regex": (S.str.split_regex("[,a]"), lambda text: re.split("[,a]", text)),
    "repeat": (S.str.repeat(3), lambda text: text * 3),
    "lpad": (S.str.lpad(6, "*"), lambda text: text.rjust(6, "*")),
    "rpad": (S.str.rpad(6, "*"), lambda text: text.ljust(6, "*")),
    "pad": (S.str.pad(6, "*", "left"), lambda text: text.rjust(6, "*")),
    "center": (S.str.center(7).str.len(), lambda text: max(7, len(text))),
    "strip": (S.str.strip(), str.strip),
    "lstrip": (S.str.lstrip(), str.lstrip),
    "rstrip": (S.str.rstrip(), str.rstrip),
    "strip_characters": (S.str.strip("aß"), lambda text: text.strip("aß")),
    "lstrip_characters": (S.str.lstrip("aß"), lambda text: text.lstrip("aß")),
    "rstrip_characters": (S.str.rstrip("aß"), lambda text: text.rstrip("aß")),
}


@pytest.mark.parametrize("name", LIKE_PYTHON)
@given(
    values=tables.values(tables.TEXTS),
    layout=tables.layouts(),
    kind=st.sampled_from(["string", "large_string", "dictionary"]),
)
@settings(max_examples=20, deadline=None, database=None, derandomize=True)
def test_strings_are_as_in_python(name: str, values: list[Any], layout: Any, kind: str) -> None:
    expr, function = LIKE_PYTHON[name]
    column = pa.array(values, pa.string())
    column = column.dictionary_encode() if kind == "dictionary" else column.cast(kind)
    assert tables.computed(expr, tables.table(layout, s=column)) == tables.by_rows(function, values)


SLICE_ENDS = st.none() | st.integers(-9, 9)
STEPS = st.none() | st.integers(-3, 3).filter(bool)


@given(values=tables.values(tables.TEXTS), start=SLICE_ENDS, stop=SLICE_ENDS, step=STEPS, layout=tables.layouts())
@settings(max_examples=80, deadline=None, database=None, derandomize=True)
def test_slices_of_strings_are_as_in_python(values: list[Any], start: Any, stop: Any, step: Any, layout: Any) -> None:
    table = tables.table(layout, s=pa.array(values, pa.string()))
    expected = tables.by_rows(lambda text: text[start:stop:step], values)
    assert tables.computed(S.str.slice(start, stop, step), table) == expected


def test_case_is_unicodes_simple_mapping() -> None:
    table = pa.table({"s": ["straße ÄB", "éA b", "", None]})
    assert tables.computed(S.str.upper(), table) == ["STRAẞE ÄB", "ÉA B", "", None]
    assert tables.computed(S.str.lower(), table) == ["straße äb", "éa b", "", None]
    assert tables.computed(S.str.capitalize(), table) == ["Straße äb", "Éa b", "", None]
    assert tables.computed(S.str.title(), table) == ["Straße Äb", "Éa B", "", None]
    assert tables.computed(S.str.swapcase(), table) == ["STRAẞE äb", "Éa B", "", None]
    assert tables.computed(S.str.is_printable(), pa.table({"s": ["a\n", "a b"]})) == [False, True]


def test_white_space_splits_as_python_does_but_at_the_ends() -> None:
    table = pa.table({"s": ["a  b\tc", "a", None]})
    assert tables.computed(S.str.split_whitespace(), table) == [["a", "b", "c"], ["a"], None]
    assert tables.computed(S.str.split_whitespace(max_splits=1), table) == [["a", "b\tc"], ["a"], None]


def test_extract_gives_named_groups_or_null() -> None:
    table = pa.table({"s": ["2024-05", "x", None]})
    year = S.str.extract(r"(?P<year>\d+)-(?P<month>\d+)").struct["year"]
    assert tables.computed(year, table) == ["2024", None, None]


@pytest.mark.parametrize(
    "make",
    [
        lambda: S.str.match_regex("("),
        lambda: S.str.lpad(-1),
        lambda: S.str.lpad(3, "ab"),
        lambda: S.str.repeat(-1),
        lambda: S.str.slice(0, 5, 0),
        lambda: S.str.split(""),
        lambda: S.str.pad(3, side="top"),
        lambda: S.dt.floor("fortnight"),
        lambda: S.dt.strftime("%f"),
        lambda: S.list.sort("upwards"),
        lambda: S.list.sort(null_placement="middle"),
        lambda: S.list[::0],
    ],
)
def test_wrong_options_are_refused_where_they_are_written(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"got|must not be 0"):
        make()


@pytest.mark.parametrize(
    "make",
    [
        lambda: S.str.contains(1),
        lambda: S.str.slice("a"),
        lambda: S.list["a"],
        lambda: S.str.lpad(True),
        lambda: S.dt.floor(1),
    ],
)
def test_options_of_wrong_types_are_refused_where_they_are_written(make: Callable[[], object]) -> None:
    with pytest.raises(TypeError, match="must be"):
        make()


MOMENTS = st.datetimes(datetime.datetime(1900, 1, 1), datetime.datetime(2200, 1, 1))
UNITS = st.sampled_from(["s", "ms", "us"])


@given(values=tables.values(MOMENTS), unit=UNITS, layout=tables.layouts())
@settings(max_examples=40, deadline=None, database=None, derandomize=True)
def test_parts_of_timestamps_are_as_in_python(values: list[Any], unit: str, layout: Any) -> None:
    precision = {"s": 1_000_000, "ms": 1000, "us": 1}[unit]
    values = [
        None if one is None else one.replace(microsecond=one.microsecond // precision * precision) for one in values
    ]
    table = tables.table(layout, t=pa.array(values, pa.timestamp(unit)))
    t = col("t").dt
    for expr, function in (
        (t.year(), lambda one: one.year),
        (t.quarter(), lambda one: (one.month + 2) // 3),
        (t.month(), lambda one: one.month),
        (t.day(), lambda one: one.day),
        (t.day_of_week(), lambda one: one.weekday()),
        (t.day_of_year(), lambda one: one.timetuple().tm_yday),
        (t.hour(), lambda one: one.hour),
        (t.minute(), lambda one: one.minute),
        (t.second(), lambda one: one.second),
        (t.date(), lambda one: one.date()),
        (t.strftime("%Y-%m-%d %H:%M:%S"), lambda one: one.strftime("%Y-%m-%d %H:%M:%S")),
        (t.floor("hour"), lambda one: one.replace(minute=0, second=0, microsecond=0)),
        (t.floor("month"), lambda one: datetime.datetime(one.year, one.month, 1)),
        (
            t.floor("week"),
            lambda one: datetime.datetime.combine(one.date() - datetime.timedelta(one.weekday()), datetime.time()),
        ),
    ):
        assert tables.computed(expr, table) == tables.by_rows(function, values), expr


def test_dates_times_and_zones_have_their_parts() -> None:
    at = datetime.datetime(2024, 2, 29, 23, 30, 15, 250_000)
    table = pa.table(
        {
            "d": [at.date()],
            "d64": pa.array([at.date()], pa.date64()),
            "z": pa.array([at], pa.timestamp("us", "Asia/Tokyo")),
            "x": pa.array([at.time()], pa.time64("us")),
            "n": pa.nulls(1),
        }
    )
    for expr, expected in (
        (col("d").dt.year(), 2024),
        (col("d64").dt.day(), 29),
        (col("d").dt.hour(), 0),
        (col("z").dt.hour(), 8),  # pyarrow reads a datetime without a zone as UTC's
        (col("z").dt.date(), datetime.date(2024, 3, 1)),
        (col("z").dt.strftime("%d %H:%M:%S"), "01 08:30:15"),
        (col("x").dt.second(), 15),
        (col("n").dt.year(), None),
        (col("d").dt.floor("month"), datetime.date(2024, 2, 1)),
        (col("d").dt.strftime("%d.%m.%Y"), "29.02.2024"),
    ):
        assert tables.computed(expr, table) == [expected], expr
    before_1970 = pa.table({"t": pa.array([-1], pa.timestamp("ms", "UTC"))})
    assert tables.computed(col("t").dt.strftime("%Y %S"), before_1970) == ["1969 59"]
    at_utc = datetime.datetime(2024, 2, 29, 23, 30, 15, 250_000)
    plain = pa.table({"t": pa.array([at_utc], pa.timestamp("us"))})
    assert tables.computed(col("t").dt.ceil("day"), plain) == [datetime.datetime(2024, 3, 1)]
    assert tables.computed(col("t").dt.round("second"), plain) == [at_utc.replace(microsecond=0)]


def test_zones_are_rounded_by_their_clocks_on_the_day_they_are_set_back() -> None:
    """In Berlin, 02:30 came twice on that day: at 00:30 and at 01:30 UTC."""
    zone = pa.timestamp("ms", "Europe/Berlin")
    utc = [datetime.datetime(2024, 10, 27, hour, 30, 15, 250_000, datetime.timezone.utc) for hour in (0, 1, 12)]
    table = pa.table({"z": pa.array(utc, zone)})

    def moments(expr: expressions.Expr) -> list[str]:
        return tables.computed(expr.cast(pa.timestamp("ms", "UTC")).dt.strftime("%d %H:%M"), table)

    z = col("z").dt
    assert moments(z.floor("hour")) == ["27 00:00", "27 01:00", "27 12:00"]
    assert moments(z.ceil("hour")) == ["27 01:00", "27 02:00", "27 13:00"]
    assert moments(z.floor("day")) == ["26 22:00"] * 3
    assert moments(z.ceil("day")) == ["27 23:00"] * 3
    assert tables.computed(z.strftime("%H:%M:%S"), table) == ["02:30:15", "02:30:15", "13:30:15"]
    assert typing.field_of(z.floor("day"), table.schema).type == zone


LISTS = st.lists(st.none() | tables.SMALL, max_size=4)


def list_table(values: list[Any], layout: Any, kind: str) -> pa.Table:
    type_ = pa.large_list(pa.int64()) if kind == "large" else pa.list_(pa.int64())
    return tables.table(layout, l=pa.array(values, type_))


@given(
    values=tables.values(LISTS),
    start=SLICE_ENDS,
    stop=SLICE_ENDS,
    step=STEPS,
    index=st.integers(-4, 4),
    layout=tables.layouts(),
    kind=st.sampled_from(["plain", "large"]),
)
@settings(max_examples=100, deadline=None, database=None, derandomize=True)
def test_lists_are_as_in_python(
    values: list[Any], start: Any, stop: Any, step: Any, index: int, layout: Any, kind: str
) -> None:
    table = list_table(values, layout, kind)
    of = col("l").list
    assert tables.computed(of.len(), table) == tables.by_rows(len, values)
    assert tables.computed(of[start:stop:step], table) == tables.by_rows(lambda one: one[start:stop:step], values)
    expected = tables.by_rows(lambda one: one[index] if -len(one) <= index < len(one) else None, values)
    assert tables.computed(of[index], table) == expected

    def in_order(one: list[Any]) -> list[Any]:
        numbers = sorted(value for value in one if value is not None)
        return [*numbers, *[None] * (len(one) - len(numbers))]

    def downwards(one: list[Any]) -> list[Any]:
        numbers = sorted((value for value in one if value is not None), reverse=True)
        return [*[None] * (len(one) - len(numbers)), *numbers]

    assert tables.computed(of.sort(), table) == tables.by_rows(in_order, values)
    assert tables.computed(of.sort("descending", "at_start"), table) == tables.by_rows(downwards, values)


@given(
    values=tables.values(st.lists(st.none() | st.lists(tables.SMALL, max_size=3), max_size=3)), layout=tables.layouts()
)
@settings(max_examples=40, deadline=None, database=None, derandomize=True)
def test_flatten_joins_the_lists_of_each_list(values: list[Any], layout: Any) -> None:
    table = tables.table(layout, l=pa.array(values, pa.list_(pa.list_(pa.int64()))))
    expected = tables.by_rows(lambda outer: [value for inner in outer if inner is not None for value in inner], values)
    assert tables.computed(col("l").list.flatten(), table) == expected


def test_what_a_null_list_hides_is_not_seen() -> None:
    hidden = pa.ListArray.from_arrays([0, 2, 3], pa.array([[9], [8], [7]]), mask=pa.array([True, False]))
    table = pa.table({"l": hidden})
    assert tables.computed(col("l").list.flatten(), table) == [None, [7]]
    assert tables.computed(col("l").list[0:5], table) == [None, [[7]]]
    assert tables.computed(col("l").list.len(), table) == [None, 1]


@given(values=tables.values(st.lists(tables.SMALL, min_size=2, max_size=2)), layout=tables.layouts())
@settings(max_examples=20, deadline=None, database=None, derandomize=True)
def test_lists_of_one_size_are_lists(values: list[Any], layout: Any) -> None:
    table = tables.table(layout, l=pa.array(values, pa.list_(pa.int64(), 2)))
    assert tables.computed(col("l").arr.to_list(), table) == values
    assert tables.computed(col("l").list[-1], table) == tables.by_rows(lambda one: one[-1], values)


def test_tensors_become_lists() -> None:
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(np.arange(8).reshape(2, 2, 2))
    table = pa.table({"t": tensors.slice(1)})
    assert tables.computed(col("t").arr.to_list(), table) == [[4, 5, 6, 7]]


@given(
    values=tables.values(st.fixed_dictionaries({"a": st.none() | tables.SMALL, "b": tables.TEXTS})),
    layout=tables.layouts(),
)
@settings(max_examples=20, deadline=None, database=None, derandomize=True)
def test_fields_of_structs(values: list[Any], layout: Any) -> None:
    table = tables.table(layout, s=pa.array(values, pa.struct([("a", pa.int64()), ("b", pa.string())])))
    assert tables.computed(S.struct["a"], table) == tables.by_rows(lambda one: one["a"], values)
    assert tables.computed(S.struct.field("b"), table) == tables.by_rows(lambda one: one["b"], values)
    assert tables.computed(S.struct[-1], table) == tables.by_rows(lambda one: one["b"], values)


def test_a_field_that_is_not_there_is_refused_with_those_near_it() -> None:
    schema = pa.schema([("s", pa.struct([("name", pa.string())]))])
    with pytest.raises(expressions.UnknownColumnError, match="there is no field 'nane'; did you mean 'name'"):
        typing.field_of(S.struct["nane"], schema)
    with pytest.raises(expressions.ExpressionTypeError, match="none of index 3"):
        typing.field_of(S.struct[3], schema)


@given(
    values=tables.values(st.dictionaries(tables.TEXTS, st.none() | tables.SMALL, max_size=3)), layout=tables.layouts()
)
@settings(max_examples=30, deadline=None, database=None, derandomize=True)
def test_maps(values: list[Any], layout: Any) -> None:
    entries = [None if one is None else list(one.items()) for one in values]
    table = tables.table(layout, m=pa.array(entries, pa.map_(pa.string(), pa.int64())))
    assert tables.computed(col("m").map.keys(), table) == tables.by_rows(lambda one: list(one), values)
    assert tables.computed(col("m").map.values(), table) == tables.by_rows(lambda one: list(one.values()), values)
    assert tables.computed(col("m").map.get("a"), table) == tables.by_rows(lambda one: one.get("a"), values)


@pytest.mark.parametrize(
    ("expr", "says"),
    [
        (col("i").str.upper(), r"\.str\.upper\(\) takes strings, got int64"),
        (col("i").dt.year(), r"\.dt\.year\(\) takes timestamps and dates, got int64"),
        (col("x").dt.year(), r"\.dt\.year\(\) takes timestamps and dates, got time32"),
        (col("i").dt.hour(), r"\.dt\.hour\(\) takes timestamps and times, got int64"),
        (col("i").dt.strftime("%Y"), "takes timestamps and dates, got int64"),
        (col("i").dt.floor("day"), "takes timestamps, dates and times, got int64"),
        (col("i").list.len(), r"\.list\.len\(\) takes lists, got int64"),
        (col("l").list.flatten(), "takes lists of lists, got list<item: int64>"),
        (col("i").struct["a"], "takes structs, got int64"),
        (col("i").map.keys(), "takes maps, got int64"),
        (col("m").map.get(1), r"takes a key of string, got 1"),
        (col("l").arr.to_list(), "takes lists of one size, got list"),
    ],
    ids=repr,
)
def test_methods_of_other_types_are_refused_before_anything_runs(expr: expressions.Expr, says: str) -> None:
    schema = pa.schema(
        [("i", pa.int64()), ("l", pa.list_(pa.int64())), ("x", pa.time32("s")), ("m", pa.map_(pa.string(), pa.int64()))]
    )
    with pytest.raises(expressions.ExpressionTypeError, match=says):
        typing.field_of(expr, schema)


EXAMPLES: dict[str, tuple[Any, ...]] = {  # arguments for methods that want some
    "starts_with": ("a",),
    "ends_with": ("a",),
    "contains": ("a",),
    "match": ("a%",),
    "match_regex": ("a+",),
    "find": ("a",),
    "find_regex": ("a+",),
    "count": ("a",),
    "count_regex": ("a+",),
    "replace": ("a", "b"),
    "replace_regex": ("a+", "b"),
    "replace_slice": (0, 1, "b"),
    "split": ("a",),
    "split_regex": ("a+",),
    "extract": ("(?P<x>a)",),
    "repeat": (2,),
    "center": (5, "*"),
    "lpad": (5, "*"),
    "rpad": (5, "*"),
    "pad": (5, "*", "left"),
    "strftime": ("%Y",),
    "floor": ("day",),
    "ceil": ("day",),
    "round": ("day",),
    "get": (0,),
    "field": ("a",),
    "field_by_index": (0,),
}


@pytest.mark.parametrize("name", ["str", "dt", "list", "struct", "map", "arr"])
def test_every_method_names_a_function_and_prints_as_it_is_read(name: str) -> None:
    kind = type(getattr(col("x"), name))
    methods = [method for method, _ in inspect.getmembers(kind, inspect.isfunction) if not method.startswith("_")]
    made = [getattr(getattr(col("x"), name), method)(*EXAMPLES.get(method, ())) for method in methods]
    assert {expr.node.function for expr in made} <= set(functions.FUNCTIONS)
    for expr in made:
        assert parse.parse(repr(expr)).structurally_equals(expr), expr
    named = {function for function in functions.FUNCTIONS if function.startswith(f"{name}.")}
    assert named == {expr.node.function for expr in made}


def test_methods_of_a_value_are_those_of_one_row() -> None:
    assert tables.computed(lit("ab").str.upper(), pa.table({"x": [1, 2]})) == ["AB", "AB"]
    assert tables.computed(lit([3, 1]).list.sort(), pa.table({"x": [1, 2]})) == [[1, 3], [1, 3]]
    assert isinstance(col("x").str, namespaces.StringNamespace)
