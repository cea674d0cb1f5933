"""The commands of `umbel`, run as programs about the session that this process is connected to."""

from __future__ import annotations

import os
import subprocess
import sys

import umbel

TIMEOUT_S = 60


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "umbel.cli", *arguments, "--session", session_dir()]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=TIMEOUT_S)


def session_dir() -> str:
    context = umbel.get_runtime_context()
    return os.path.join(context.get_temp_dir(), context.get_session_name())
