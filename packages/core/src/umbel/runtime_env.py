"""Runtime environments as classes: what may be passed as `runtime_env=` besides a dictionary."""

from __future__ import annotations

from umbel._client.runtime_env import RuntimeEnv as RuntimeEnv
from umbel._client.runtime_env import RuntimeEnvConfig as RuntimeEnvConfig

__all__ = ["RuntimeEnv", "RuntimeEnvConfig"]
