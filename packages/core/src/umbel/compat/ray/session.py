"""What `ray` itself has that differs: `init` looks at Ray's environment variables, and the version is Ray's."""

from __future__ import annotations

from typing import Any

import umbel
from umbel._client import session
from umbel.compat.ray import environment, naming

__version__ = naming.COMPATIBLE_VERSION
RAY_CLIENT = "ray://"


def install() -> None:
    """Give our classes the attributes that have Ray in their name."""
    setattr(umbel.ActorHandle, "_ray_actor_id", umbel.ActorHandle._umbel_actor_id)  # noqa: B010 - not for type checkers


def init(address: str | None = None, **options: Any) -> Any:
    """`umbel.init`, after looking at Ray's environment variables once more. address: also "ray://host:port", with the port of an
    Umbel node."""
    environment.translate()
    if isinstance(address, str) and address.startswith(RAY_CLIENT):
        address = session.REMOTE_SCHEME + address.removeprefix(RAY_CLIENT)
    return umbel.init(address, **options)


__all__ = ["__version__", "init"]
