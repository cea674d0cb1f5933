"""Amounts of resources: exact, canonical, never below zero."""

from __future__ import annotations

import fractions
import pickle

import pytest

from umbel import exceptions
from umbel._model import resources
from umbel._model.resources import ResourceSet


def test_amounts_are_counted_in_whole_units() -> None:
    one = ResourceSet.from_floats({"GPU": 0.25, "CPU": 2, "memory": 10**12})
    assert dict(one) == {"CPU": 20_000, "GPU": 2_500, "memory": 10**16}
    assert one.to_floats() == {"CPU": 2.0, "GPU": 0.25, "memory": 1e12}


def test_order_of_writing_and_zeros_do_not_matter() -> None:
    one, other = ResourceSet.from_floats({"b": 1, "a": 2, "c": 0}), ResourceSet.from_floats({"a": 2, "b": 1})
    assert one == other
    assert hash(one) == hash(other)
    assert list(one) == ["a", "b"]
    assert repr(one) == "ResourceSet(a: 2, b: 1)"


def test_empty_set_is_empty_and_fits_everywhere() -> None:
    assert resources.EMPTY.is_empty
    assert resources.EMPTY.fits_in(resources.EMPTY)
    assert ResourceSet({"CPU": 0}) == resources.EMPTY


def test_tenths_add_up_exactly() -> None:
    tenth, total = ResourceSet.from_floats({"CPU": 0.1}), resources.EMPTY
    for _ in range(10):
        total = total + tenth
    assert total == ResourceSet.from_floats({"CPU": 1})


def test_float_noise_is_not_taken_for_precision() -> None:
    assert ResourceSet.from_floats({"CPU": 0.1 + 0.2}) == ResourceSet.from_floats({"CPU": 0.3})


def test_numbers_of_other_kinds_are_taken() -> None:
    assert resources.units_of(fractions.Fraction(1, 4), what="num_cpus") == 2_500
    with pytest.raises(exceptions.InvalidOptionType, match="num_cpus must be a number >= 0, got True of type bool"):
        resources.units_of(True, what="num_cpus")


def test_adding_and_subtracting_undo_each_other_and_change_neither() -> None:
    one, other = ResourceSet({"CPU": 5, "x": 1}), ResourceSet({"CPU": 2, "y": 3})
    assert one + other == ResourceSet({"CPU": 7, "x": 1, "y": 3})
    assert (one + other) - other == one
    assert dict(one) == {"CPU": 5, "x": 1}
    assert one - resources.EMPTY is one


def test_taking_more_than_there_is_breaks_an_invariant() -> None:
    with pytest.raises(exceptions.InternalError, match="CPU") as info:
        ResourceSet({"CPU": 5}).subtract(ResourceSet({"CPU": 6}))
    assert info.value.ids == {"resource": "CPU", "units": "-1"}


@pytest.mark.parametrize(
    ("need", "free", "fits"),
    [
        ({"CPU": 1}, {"CPU": 1}, True),
        ({"CPU": 2}, {"CPU": 1}, False),
        ({"x": 1}, {"CPU": 1}, False),
        ({"CPU": 1}, {"CPU": 1, "x": 1}, True),
    ],
)
def test_a_set_fits_where_there_is_as_much_of_everything(
    need: dict[str, int], free: dict[str, int], fits: bool
) -> None:
    assert ResourceSet(need).fits_in(ResourceSet(free)) is fits


def test_pickling_keeps_the_set() -> None:
    one = ResourceSet.from_floats({"CPU": 1.5, "x": 2})
    assert pickle.loads(pickle.dumps(one)) == one


@pytest.mark.parametrize("bad", [-1, -0.5, float("nan"), float("inf"), -float("inf"), 0.00001, 1e-7, 1e-9, 1.00005])
def test_wrong_amount_is_refused_with_its_name_and_value(bad: float) -> None:
    with pytest.raises(exceptions.InvalidOption) as info:
        ResourceSet.from_floats({"widgets": bad})
    assert "widgets" in str(info.value)
    assert repr(bad) in str(info.value)


@pytest.mark.parametrize("bad", ["1", None, [1], {}, 1j, b"1"])
def test_amount_of_a_wrong_type_is_a_value_and_a_type_error(bad: object) -> None:
    for kind in (ValueError, TypeError):
        with pytest.raises(kind) as info:
            ResourceSet.from_floats({"widgets": bad})  # type: ignore[dict-item]  # that is the point
        assert repr(bad) in str(info.value)


def test_gpus_above_one_must_be_whole() -> None:
    assert resources.gpu_units_of(0.5) == 5_000
    assert resources.gpu_units_of(3.0) == 30_000
    for call in (lambda: resources.gpu_units_of(1.5), lambda: ResourceSet.from_floats({"GPU": 1.5})):
        with pytest.raises(ValueError, match=r"whole number, got 1\.5"):
            call()


@pytest.mark.parametrize("name", ["CPU", "GPU", "memory", "object_store_memory"])
def test_custom_resources_must_not_name_what_has_an_option(name: str) -> None:
    with pytest.raises(ValueError, match=f"use {resources.OPTION_OF[name]}=1"):
        resources.custom_units({name: 1})


@pytest.mark.parametrize("bad", [{"": 1}, {5: 1}, {"x": -1}, {"x": "1"}, [], "CPU", 1])
def test_wrong_custom_resources_are_refused(bad: object) -> None:
    with pytest.raises(ValueError, match="resources"):
        resources.custom_units(bad)
