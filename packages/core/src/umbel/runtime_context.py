"""Where the calling code runs: `umbel.get_runtime_context()`."""

from umbel._client.context import RuntimeContext as RuntimeContext
from umbel._client.context import get_runtime_context as get_runtime_context

__all__ = ["RuntimeContext", "get_runtime_context"]
