"""What stands in the URL of a control storage."""

from __future__ import annotations

import urllib.parse
from collections.abc import Collection, Mapping

from umbel import exceptions


def options_of(url: str, allowed: Collection[str] | None) -> dict[str, str]:
    """What stands behind the question mark. allowed: None for anything. Raises InvalidOption for other names than those
    allowed, and for one twice."""
    pairs = urllib.parse.parse_qsl(urllib.parse.urlsplit(url).query, keep_blank_values=True)
    options = dict(pairs)
    unknown = [] if allowed is None else sorted(set(options) - set(allowed))
    if unknown or len(options) < len(pairs):
        what = f"has the unknown option {unknown[0]!r}" if unknown else "has an option twice"
        raise invalid(url, f"{what}; known are: {', '.join(sorted(allowed or ())) or 'none'}")
    return options


def without_options(url: str, names: Collection[str]) -> str:
    """The same without some options, for a library that reads the others itself."""
    parts = urllib.parse.urlsplit(url)
    pairs = urllib.parse.parse_qsl(parts.query, keep_blank_values=True)
    return parts._replace(query=urllib.parse.urlencode([pair for pair in pairs if pair[0] not in names])).geturl()


def is_on(url: str, options: Mapping[str, str], name: str, *, default: bool) -> bool:
    """An option that is "yes" or "no"."""
    text = options.get(name, "yes" if default else "no")
    if text not in ("yes", "no"):
        raise invalid(url, f"has {name}={text}; write {name}=yes or {name}=no")
    return text == "yes"


def shown(url: str) -> str:
    """The URL without its credentials and options, for messages."""
    parts = urllib.parse.urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def invalid(url: str, what: str) -> exceptions.InvalidOption:
    return exceptions.InvalidOption(f"the control storage {shown(url)} {what}", option="url")
