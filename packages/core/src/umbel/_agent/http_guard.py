"""Who may ask a node something over HTTP.

A browser on this machine asks whatever a page tells it to: at a name that the page's owner lets point here (`Host`), or as a
page of another place (`Origin`). Neither is a scraper. Where the node has a token, whoever asks needs that of the role `read`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import TYPE_CHECKING

from umbel import exceptions

if TYPE_CHECKING:
    from umbel._base import tokens

_BEARER = "Bearer "
_LOCAL = "localhost"


class Guard:
    """For a server that listens at `host`, an address. token: None for a node that no other machine may ask anything."""

    def __init__(self, host: str, token: tokens.Token | None) -> None:
        self._is_local = ipaddress.ip_address(host).is_loopback
        self._token = token

    def refusal(self, headers: Mapping[str, str]) -> tuple[int, str] | None:
        """(status, why) of a request with these headers; None for one that may pass."""
        if headers.get("Origin"):
            return 403, "pages of browsers may not ask; leave the header Origin out"
        named = headers.get("Host", "")
        if self._is_local and not _is_local(named):
            return 403, f"this is asked of {_LOCAL} or a loopback address, not of {named!r}"
        if self._token is None or self._is_known(headers.get("Authorization", "")):
            return None
        return (
            401,
            "a token of the role 'read' is needed, as `umbel token` prints it: Authorization: Bearer umbel1.read....",
        )

    def _is_known(self, authorization: str) -> bool:
        from umbel._base import tokens

        if not authorization.startswith(_BEARER) or self._token is None:
            return False
        try:
            shown = tokens.parse(authorization.removeprefix(_BEARER).strip(), source="a request")
        except exceptions.AuthenticationError:
            return False
        lowest = tokens.Role.READ
        return shown.lowered(lowest) == self._token.lowered(lowest)


def _is_local(named: str) -> bool:
    """Whether a header Host names this machine to itself; whoever sends none is no browser."""
    if not named:
        return True
    host = named[1:].partition("]")[0] if named.startswith("[") else named.partition(":")[0]
    try:
        return host.lower().rstrip(".") == _LOCAL or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
