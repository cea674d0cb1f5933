"""What `UMBEL_PLUGINS` allows: `a,b` only these plugins, `-a` all but this one, `-*` none. Built-ins are always on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from umbel import exceptions
from umbel._plugins import discovery

VARIABLE = "UMBEL_PLUGINS"
_NONE = "-*"


class Selection(NamedTuple):
    """Names are those of plugins (the entry point's) or of distributions. allowed: empty for all."""

    allowed: frozenset[str] = frozenset()
    blocked: frozenset[str] = frozenset()
    allows_none: bool = False

    @classmethod
    def parse(cls, text: str) -> Selection:
        """Raises PluginError when the text contradicts itself."""
        words = [word for word in (part.strip() for part in text.split(",")) if word]
        blocked = frozenset(word[1:].strip() for word in words if word.startswith("-") and word != _NONE)
        allowed = frozenset(word for word in words if not word.startswith("-"))
        allows_none = _NONE in words
        if "" in blocked or "*" in allowed or allowed & blocked or (allows_none and allowed):
            raise exceptions.PluginError(
                f"{VARIABLE} must be names to allow ('a,b'), names to block ('-a,-b') or '-*' to block all, "
                f"got {text!r}; unset it to allow all"
            )
        return cls(allowed, blocked, allows_none)

    def reason_against(self, plugin: discovery.FoundPlugin) -> str:
        """Why a plugin is off; empty when it is on."""
        names = {plugin.name, plugin.distribution}
        if self.allows_none:
            return f"{VARIABLE}={_NONE} blocks all plugins"
        if names & self.blocked:
            return f"{VARIABLE} blocks it; remove {'-' + sorted(names & self.blocked)[0]!r} to use it"
        if self.allowed and not names & self.allowed:
            return f"{VARIABLE} allows only {', '.join(sorted(self.allowed))}; add {plugin.name!r} to use it"
        return ""

    def unknown(self, plugins: Iterable[discovery.FoundPlugin]) -> list[str]:
        """Names in it that nothing installed has, sorted."""
        known = {name for plugin in plugins for name in (plugin.name, plugin.distribution)}
        return sorted((self.allowed | self.blocked) - known)
