"""Opening a control storage by its URL, whichever plugin provides it."""

from __future__ import annotations

from typing import cast

from umbel import exceptions, spi
from umbel._plugins import registry

TIMEOUT_S = 5.0  # for one answer: a server that restarts, or a disk that is busy, takes seconds


def open_storage(url: str, *, cluster_id: str | None = None, timeout_s: float = TIMEOUT_S) -> spi.ControlStorage:
    """A new connection to what the URL's scheme names. The rest is as `spi.ControlStorageDescriptor` has it."""
    storages = registry.installed().control_storages
    scheme, separator, _ = url.partition("://")
    if not separator or scheme not in storages.names():
        got = f"{scheme}://" if separator else "one without ://"  # the rest may be a password
        raise exceptions.InvalidOption(
            f"a control storage must be a URL that begins with one of {', '.join(storages.names())}, got {got}; for a file "
            "write sqlite:///path, for another kind install its plugin",
            option="url",
        )
    return cast(spi.ControlStorage, storages.create(scheme, url, cluster_id=cluster_id, timeout_s=timeout_s))
