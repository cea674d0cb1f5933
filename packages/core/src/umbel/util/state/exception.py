"""Errors of the state functions."""

from __future__ import annotations

from umbel import exceptions

__all__ = ["DataSourceUnavailable", "ServerUnavailable", "UmbelStateApiException"]


class UmbelStateApiException(exceptions.UmbelError):
    """A listing could not be made, or would not be complete."""


class ServerUnavailable(UmbelStateApiException):
    """No session answers."""


class DataSourceUnavailable(UmbelStateApiException):
    """A part of the session does not answer."""
