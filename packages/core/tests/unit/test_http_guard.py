"""Who may ask a node something over HTTP."""

from __future__ import annotations

import pytest

from umbel._agent import http_guard
from umbel._base import tokens

SECRET = tokens.Token(tokens.Role.HEAD, bytes(32))
OTHER = tokens.Token(tokens.Role.HEAD, bytes(range(32)))


@pytest.mark.parametrize(
    "host", ["127.0.0.1:9000", "127.8.8.8", "localhost", "LOCALHOST:9000", "localhost.", "[::1]:9000", "[::1]", ""]
)
def test_this_machine_may_ask_at_a_loopback_address(host: str) -> None:
    assert http_guard.Guard("127.0.0.1", None).refusal({"Host": host}) is None
    assert http_guard.Guard("::1", None).refusal({"Host": host}) is None


@pytest.mark.parametrize(
    "host",
    ["evil.example:9000", "10.0.0.1", "localhost.evil.example", "127.0.0.1.evil.example", "[fd00::1]:9000", "[", "]"],
)
def test_a_name_that_somebody_lets_point_here_is_refused(host: str) -> None:
    refusal = http_guard.Guard("127.0.0.1", None).refusal({"Host": host})
    assert refusal is not None
    assert refusal[0] == 403


def test_another_address_has_names_that_are_not_known_here() -> None:
    assert http_guard.Guard("10.0.0.1", None).refusal({"Host": "node7.example:9000"}) is None


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1"])
def test_pages_of_browsers_are_refused(address: str) -> None:
    refusal = http_guard.Guard(address, None).refusal({"Host": "localhost", "Origin": "http://localhost:3000"})
    assert refusal is not None
    assert refusal[0] == 403


@pytest.mark.parametrize("role", tokens.Role)
def test_every_role_may_look(role: tokens.Role) -> None:
    guard = http_guard.Guard("10.0.0.1", SECRET.lowered(tokens.Role.NODE) if role < tokens.Role.NODE else SECRET)
    assert guard.refusal({"Authorization": f"Bearer {SECRET.lowered(role).as_text()}"}) is None


@pytest.mark.parametrize(
    "authorization",
    [
        "", "Bearer", "Bearer ", "Bearer x", f"Basic {SECRET.as_text()}", SECRET.as_text(),
        f"Bearer {OTHER.lowered(tokens.Role.READ).as_text()}", f"Bearer {SECRET.as_text()[:-1]}", "Bearer \xff.\xff.\xff",
    ],
)  # fmt: skip
def test_who_has_no_token_of_the_cluster_is_refused(authorization: str) -> None:
    refusal = http_guard.Guard("127.0.0.1", SECRET).refusal({"Host": "localhost", "Authorization": authorization})
    assert refusal is not None
    assert refusal[0] == 401
    assert SECRET.as_text()[13:] not in refusal[1]
