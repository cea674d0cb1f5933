"""What is known of a block without having it."""

from __future__ import annotations

import dataclasses
import pickle

import pytest

from umbel.data import block


def test_metadata_travels_and_does_not_change() -> None:
    known = block.BlockMetadata(num_rows=3, size_bytes=24, input_files=("a.csv",), exec_stats={"wall_s": 0.5})
    assert pickle.loads(pickle.dumps(known)) == known
    assert block.BlockMetadata() == block.BlockMetadata(num_rows=None, size_bytes=None, input_files=(), exec_stats=None)
    with pytest.raises(dataclasses.FrozenInstanceError):
        known.num_rows = 4  # type: ignore[misc]
