"""Processes that the daemon forks for one thing, of which they use nothing else."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn


def run(serve: Callable[[], None], *kept: int) -> NoReturn:
    """Serve and end, in a process just forked. kept: descriptors; what else is open, but for the standard streams, belongs to
    the daemon."""
    code = 1
    try:
        first = 3
        for fd in sorted(kept):
            os.closerange(first, fd)
            first = fd + 1
        os.closerange(first, os.sysconf("SC_OPEN_MAX"))
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        serve()
        code = 0
    except BaseException:
        import traceback

        with contextlib.suppress(OSError):
            traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stderr.flush()
        os._exit(code)
