"""The frames between owners and workers: a pickled list of tuples, many messages in one.

Only users' processes open them. A daemon does not even load this module.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

from umbel._wire import frames

_dumps = pickle.dumps
_pack = frames.HEADER.pack


def encode(messages: Sequence[tuple[Any, ...]]) -> bytes:
    """One frame that holds all `messages`, in order."""
    payload = _dumps(messages, 5)
    return _pack(len(payload)) + payload


decode = pickle.loads  # the peer is authenticated by file mode and credentials before any frame is opened
