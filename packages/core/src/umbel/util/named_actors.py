"""Which named actors are alive."""

from __future__ import annotations

from umbel._client import current


def list_named_actors(all_namespaces: bool = False) -> list[str] | list[dict[str, str]]:
    """Names of this namespace's live named actors; with `all_namespaces`, `{"name", "namespace"}` for each of all.
    Raises TypeError for anything but True or False."""
    if not isinstance(all_namespaces, bool):
        raise TypeError(
            f"all_namespaces must be True or False, got {all_namespaces!r} of type {type(all_namespaces).__name__}; "
            "omit it for the names of this namespace"
        )
    found: list[str] | list[dict[str, str]] = current.engine().list_named_actors(all_namespaces)
    return found
