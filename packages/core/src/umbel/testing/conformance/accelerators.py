"""What an accelerator manager must do, on a machine with such devices or without."""

from __future__ import annotations

import os

import pytest

from umbel import spi
from umbel._plugins import accelerators
from umbel.testing.conformance import suite

# What every node has anyhow; a manager that claimed one of them would change what tasks without devices may use.
RESERVED_RESOURCES = ("CPU", "memory", "object_store_memory")


class AcceleratorConformance(suite.Suite[spi.AcceleratorManager]):
    """Subclass it and set `descriptor`."""

    kind = "accelerator"
    descriptor_type = spi.AcceleratorDescriptor
    protocol = spi.AcceleratorManager

    @pytest.fixture
    def manager(self, monkeypatch: pytest.MonkeyPatch) -> spi.AcceleratorManager:
        """One in an environment that limits nothing, which is as before after the test."""
        made = self.make()
        if made.visible_devices_variable is not None:
            monkeypatch.setenv(made.visible_devices_variable, "")  # so that what the test sets is undone
            monkeypatch.delenv(made.visible_devices_variable)
        return made

    # what is here

    def test_resource_is_named_and_its_own(self, manager: spi.AcceleratorManager) -> None:
        assert isinstance(manager.resource_name, str)
        assert manager.resource_name.strip() == manager.resource_name != ""
        assert manager.resource_name not in RESERVED_RESOURCES

    def test_count_is_a_number_that_stays(self, manager: spi.AcceleratorManager) -> None:
        count = manager.detect_count()
        assert type(count) is int
        assert count >= 0
        assert manager.detect_count() == self.make().detect_count() == count

    def test_type_is_known_only_of_devices(self, manager: spi.AcceleratorManager) -> None:
        kind = manager.detect_type()
        assert kind is None or (isinstance(kind, str) and kind.strip() == kind != "")
        assert kind is None or manager.detect_count() > 0

    def test_labels_and_extra_resources_are_of_the_right_types(self, manager: spi.AcceleratorManager) -> None:
        assert all(isinstance(key, str) and isinstance(value, str) for key, value in manager.labels().items())
        spi.ResourceSet.from_floats(manager.extra_resources())
        assert manager.resource_name not in manager.extra_resources()

    def test_a_machine_without_devices_gets_nothing(self, manager: spi.AcceleratorManager) -> None:
        if manager.detect_count():
            pytest.skip("this machine has such devices")
        assert (dict(manager.labels()), dict(manager.extra_resources())) == ({}, {})
        assert accelerators.take_stock([("here", manager)]) == ()

    def test_a_machine_with_devices_offers_them(self, manager: spi.AcceleratorManager) -> None:
        if not manager.detect_count():
            pytest.skip("this machine has no such devices")
        (found,) = accelerators.take_stock([("here", manager)])
        assert found.resources()[manager.resource_name] == manager.detect_count()

    # what may be asked for

    @pytest.mark.parametrize("quantity", [0, 1, 2])
    def test_whole_devices_can_be_had(self, manager: spi.AcceleratorManager, quantity: int) -> None:
        assert manager.validate_quantity(quantity) is None

    @pytest.mark.parametrize("quantity", [0.25, 1.5, 3, 1000])
    def test_a_refusal_says_why(self, manager: spi.AcceleratorManager, quantity: float) -> None:
        refusal = manager.validate_quantity(quantity)
        assert refusal is None or (isinstance(refusal, str) and len(refusal) > 10)

    # what a process sees

    def test_nothing_is_limited_by_default(self, manager: spi.AcceleratorManager) -> None:
        assert manager.get_visible_ids() is None

    @pytest.mark.parametrize("ids", [["0"], ["2", "0"], []])
    def test_visible_ids_are_those_that_were_set(self, manager: spi.AcceleratorManager, ids: list[str]) -> None:
        if manager.visible_devices_variable is None:
            pytest.skip("these devices cannot be hidden")
        manager.set_visible_ids(ids)
        assert manager.get_visible_ids() == ids
        assert self.make().get_visible_ids() == ids
        assert manager.visible_devices_variable in os.environ  # what a process inherits that is started now

    def test_setting_ids_without_a_variable_does_nothing(self, manager: spi.AcceleratorManager) -> None:
        if manager.visible_devices_variable is not None:
            pytest.skip("these devices can be hidden")
        before = dict(os.environ)
        manager.set_visible_ids(["0"])
        assert dict(os.environ) == before

    def test_count_is_of_the_machine_whatever_is_visible(self, manager: spi.AcceleratorManager) -> None:
        count = manager.detect_count()
        manager.set_visible_ids([])
        assert self.make().detect_count() == count
