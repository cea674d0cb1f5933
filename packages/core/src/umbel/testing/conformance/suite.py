"""What the suites share: making the thing from its descriptor, as the runtime does."""

from __future__ import annotations

from typing import Any, ClassVar, Generic, TypeVar

import pytest

from umbel import spi
from umbel._plugins import providers

T = TypeVar("T")


def make(kind: str, descriptor: spi.Descriptor[Any], protocol: type, *args: object, **options: object) -> object:
    """Raises PluginError when the descriptor or what it makes is not what the runtime takes."""
    registry = providers.Registry(kind, type(descriptor), protocol)
    registry.add(providers.Provider(descriptor, "the plugin under test"))
    return registry.create(descriptor.name, *args, **options)


class Suite(Generic[T]):
    """T: the kind of thing. descriptor: set by the class that subclasses a suite; what the plugin's hook returns."""

    kind: ClassVar[str]
    descriptor_type: ClassVar[type[spi.Descriptor[Any]]]  # Any: one for each kind
    protocol: ClassVar[type]
    descriptor: ClassVar[spi.Descriptor[Any]]

    def make(self, *args: object, **options: object) -> T:
        """A new one."""
        if getattr(self, "descriptor", None) is None:
            pytest.fail(f"{type(self).__name__} must set `descriptor` to the {self.kind} descriptor of your hook")
        made: Any = make(self.kind, self.descriptor, self.protocol, *args, **options)
        return made  # type: ignore[no-any-return]  # `make` has checked it against the protocol

    def test_descriptor_is_accepted(self) -> None:
        assert providers.descriptor_fault(self.descriptor, self.descriptor_type) == ""

    def test_descriptor_has_a_summary_of_one_line(self) -> None:
        assert self.descriptor.summary.strip()
        assert "\n" not in self.descriptor.summary
