"""The built-in backends of collectives pass the suite that outside ones have to pass."""

from __future__ import annotations

import pytest

from umbel import spi
from umbel._plugins import builtin
from umbel.testing.conformance import CollectiveConformance
from umbel.util.collective import framed, shared_memory

BACKENDS = {descriptor.name: descriptor for descriptor in builtin.umbel_collectives()}


@pytest.mark.slow
class TestSharedMemory(CollectiveConformance):
    """With slots so small that every slot is used again and again."""

    descriptor = BACKENDS["shm"]

    @pytest.fixture(autouse=True)
    def _small_slots(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(shared_memory, "SLOT_BYTES", 64 << 10)


@pytest.mark.slow
@pytest.mark.torch
class TestGloo(CollectiveConformance):
    descriptor = BACKENDS["gloo"]


@pytest.mark.slow
class TestFrames(CollectiveConformance):
    """What "shm" is where ranks are on several machines."""

    descriptor = spi.CollectiveDescriptor("shm", framed.FramedGroup, summary="in frames")
