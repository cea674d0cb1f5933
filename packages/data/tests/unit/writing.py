"""What the tests of sinks share: a whole write, as it goes on a driver and in tasks."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from umbel.data import datasink
from umbel.data._sinks import base


def write(sink: datasink.Datasink[Any], *tasks: Sequence[pa.Table], schema: pa.Schema | None = None) -> Any:
    """Each of `tasks` has the blocks of one task, to which the sink travels."""
    sink.on_write_start(schema)
    if not sink.should_write:
        return None
    travelled = pickle.dumps(sink)
    results = [
        base.write_task(pickle.loads(travelled), blocks, datasink.WriteContext(index))
        for index, blocks in enumerate(tasks)
    ]
    result: Any = datasink.WriteResult.combine(*(pickle.loads(pickle.dumps(result)) for result in results))
    sink.on_write_complete(result)
    return result
