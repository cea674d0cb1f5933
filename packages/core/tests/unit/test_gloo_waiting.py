"""What waits for Gloo can be interrupted anywhere, and then goes on."""

from __future__ import annotations

import sys
import threading
from types import FrameType
from typing import Any

import pytest

from umbel.util.collective import gloo

SOON_S = 5.0


class InterruptAt:
    """Within it, the instruction of that number that Python carries out in called code is interrupted."""

    def __init__(self, number: int) -> None:
        self._left = number

    def __enter__(self) -> InterruptAt:
        sys.settrace(self._trace)
        return self

    def __exit__(self, *exception: object) -> None:
        sys.settrace(None)

    def _trace(self, frame: FrameType, event: str, _argument: object) -> Any:
        frame.f_trace_opcodes = True
        if event == "opcode" and frame.f_code.co_name != "__exit__":
            self._left -= 1
            if not self._left:
                raise KeyboardInterrupt
        return self._trace


def test_call_in_a_thread_can_be_waited_for_again_wherever_the_wait_was_interrupted() -> None:
    interrupted = 0
    while True:
        gate = threading.Lock()
        gate.acquire()
        call = gloo._InThread(gate.acquire)
        try:
            with InterruptAt(interrupted + 1):
                call.is_over()
        except KeyboardInterrupt:
            interrupted += 1
            gate.release()
            found: list[bool] = []
            again = threading.Thread(
                target=lambda call=call: found.append(call.is_over() or call.is_over()), daemon=True
            )
            again.start()
            again.join(SOON_S)
            assert found == [True], f"interrupted at instruction {interrupted}"
            assert call.result() is True
        else:
            gate.release()
            break
    assert interrupted > 10


@pytest.mark.parametrize("times", [1, 2])
def test_event_that_was_set_is_set(times: int) -> None:
    event = gloo._Event()
    assert not event.wait(0)
    for _ in range(times):
        event.set()
    assert event.wait(0)
    assert event.wait(0)
