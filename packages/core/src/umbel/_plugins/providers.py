"""What plugins provide, by kind and name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeAlias

from umbel import exceptions, spi
from umbel._plugins import discovery

AnyDescriptor: TypeAlias = "spi.Descriptor[Any]"  # Any: what factories make differs from kind to kind

_NAME = re.compile(r"[a-z][a-z0-9_-]*")


class Provider(NamedTuple):
    """A descriptor and where it comes from."""

    descriptor: AnyDescriptor
    origin: str


class Registry:
    """All providers of one kind. Filled once, while plugins are loaded, and only read afterwards.

    Two providers of one name do not hinder the others: it is an error to choose that name, or to use them all.
    """

    def __init__(self, kind: str, descriptor_type: type[AnyDescriptor], protocol: type | None) -> None:
        """kind: what one is called in messages. protocol: what a factory has to make; None when not checked here."""
        self.kind = kind
        self.descriptor_type = descriptor_type
        self._protocol = protocol
        self._providers: dict[str, list[Provider]] = {}

    def __iter__(self) -> Iterator[Provider]:
        """All of them, sorted by name. Raises PluginConflict."""
        self.check_conflicts()
        return iter([self._providers[name][0] for name in self.names()])

    def names(self) -> list[str]:
        return sorted(self._providers)

    def add(self, provider: Provider) -> None:
        self._providers.setdefault(provider.descriptor.name, []).append(provider)

    def conflicts(self) -> dict[str, list[Provider]]:
        return {name: found for name, found in sorted(self._providers.items()) if len(found) > 1}

    def check_conflicts(self) -> None:
        """Raises PluginConflict for the first name that two plugins provide."""
        for name in self.conflicts():
            self.find(name)

    def find(self, name: str) -> Provider:
        """Raises PluginError when there is none of this name, PluginConflict when there are two."""
        found = self._providers.get(name, [])
        if not found:
            raise exceptions.PluginError(
                f"{self.kind} must be one of {', '.join(self.names()) or '(none is installed)'}, got {name!r}; install "
                "the plugin that provides it, or look at `umbel plugins list` for why it is off",
                plugin=name,
            )
        if len(found) > 1:
            origins = " and ".join(provider.origin for provider in found)
            raise exceptions.PluginConflict(
                f"two plugins provide a {self.kind} called {name!r}: {origins}; uninstall one, or block one by "
                "UMBEL_PLUGINS=-NAME",
                plugin=name,
            )
        return found[0]

    def factory(self, name: str) -> Callable[..., object]:
        """What makes the thing, imported if need be. Raises PluginError, PluginConflict."""
        provider = self.find(name)
        factory: object = provider.descriptor.factory
        if isinstance(factory, str):
            try:
                factory = discovery.resolve(factory)
            except Exception as error:
                raise _broken(self.kind, provider, f"importing {factory!r} failed: {describe(error)}") from error
        if not callable(factory):
            raise _broken(self.kind, provider, f"its factory must be callable, got {factory!r}")
        return factory

    def create(self, name: str, *args: object, **options: object) -> object:
        """A new one. Raises PluginError, PluginConflict, and what the factory raises of Umbel's own errors."""
        factory = self.factory(name)
        provider = self.find(name)
        try:
            made = factory(*args, **options)
        except exceptions.UmbelError:
            raise
        except Exception as error:
            raise _broken(self.kind, provider, f"its factory raised {describe(error)}") from error
        if self._protocol is not None and not isinstance(made, self._protocol):
            missing = missing_members(made, self._protocol)
            raise _broken(self.kind, provider, f"{made!r} lacks {', '.join(missing)} of spi.{self._protocol.__name__}")
        return made


def descriptor_fault(descriptor: object, expected: type[AnyDescriptor]) -> str:
    """Why something that a hook returned cannot be used; empty when it can."""
    if not isinstance(descriptor, expected):
        return f"must be of type spi.{expected.__name__}, got {descriptor!r}"
    name = descriptor.name
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        return f"has the name {name!r}; use lower-case letters, digits, '-' and '_', beginning with a letter"
    if descriptor.spi_version not in spi.SPI_VERSIONS_ACCEPTED:
        accepted = " or ".join(str(version) for version in spi.SPI_VERSIONS_ACCEPTED)
        return (
            f"{name!r} is for version {descriptor.spi_version!r} of umbel.spi, here it is version {accepted}; install "
            "versions of Umbel and the plugin that fit"
        )
    factory: object = descriptor.factory
    if not isinstance(factory, str) and not callable(factory):
        return f"{name!r} has the factory {factory!r}; give a callable or 'module:attribute'"
    return ""


def missing_members(made: object, protocol: type) -> list[str]:
    """Names of the Protocol that an object lacks."""
    names = [name for base in protocol.__mro__ if base is not object for name in vars(base) if not name.startswith("_")]
    return sorted({name for name in names if not hasattr(made, name)})


def describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _broken(kind: str, provider: Provider, what: str) -> exceptions.PluginError:
    name = provider.descriptor.name
    return exceptions.PluginError(
        f"{kind} {name!r} of {provider.origin} cannot be used: {what}; choose another one, or repair or uninstall it",
        plugin=name,
    )
