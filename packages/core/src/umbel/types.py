"""What annotations of Ray's programs import: `umbel.types.ObjectRef[int]` is a reference to an integer."""

from __future__ import annotations

from umbel._client.refs import ObjectRef as ObjectRef

__all__ = ["ObjectRef"]
