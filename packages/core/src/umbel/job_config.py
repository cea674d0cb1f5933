"""What a driver says of its job: the class that may be passed as `job_config=`."""

from __future__ import annotations

from umbel._client.job_config import JobConfig as JobConfig

__all__ = ["JobConfig"]
