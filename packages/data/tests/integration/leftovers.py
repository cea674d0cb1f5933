"""What is not to be there any more once what a test made is gone."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from typing import Any

import umbel

WAIT_S = 20.0


def eventually(is_so: Callable[[], Any]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)  # other processes tell nobody


def check() -> None:
    """No thread of a run, and no task or actor that has a CPU."""
    gc.collect()
    eventually(lambda: [one for one in threading.enumerate() if one.name.startswith("umbel-data-")] == [])
    eventually(lambda: umbel.available_resources().get("CPU") == umbel.cluster_resources().get("CPU"))
