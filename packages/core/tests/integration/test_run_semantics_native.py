"""What workers log of the code they run, as the driver's output shows it."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest


def run(program: str, *wanted: str, **environment: str) -> str:
    """What a driver with this program writes to its standard error; it ends when all of `wanted` has come."""
    source = "import time, umbel\numbel.init(num_cpus=2)\n" + textwrap.dedent(program) + "\ninput()\numbel.shutdown()\n"
    driver = subprocess.Popen(
        [sys.executable, "-c", source],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    assert driver.stderr is not None and driver.stdin is not None
    told = ""
    while not all(one in told for one in wanted):
        line = driver.stderr.readline()
        assert line, f"the driver ended without telling of {wanted}:\n{told}"
        told += line
    driver.stdin.write("\n")
    driver.stdin.close()
    told += driver.stderr.read()
    assert driver.wait() == 0, told
    return told


@pytest.mark.parametrize("call", ["umbel.get(slow.remote())", "umbel.wait([slow.remote()])"])
def test_a_coroutine_that_blocks_the_loop_is_told_once(call: str) -> None:
    told = run(
        f"""
        @umbel.remote
        def slow():
            time.sleep(0.05)

        class Blocks:
            async def block(self):
                {call}

        actor = umbel.remote(Blocks).remote()
        for _ in range(3):
            umbel.get(actor.block.remote())
    """,
        "write 'await ref'",
    )
    assert told.count("write 'await ref'") == 1
    assert "actor Blocks" in told


def test_blocking_elsewhere_is_not_told() -> None:
    told = run("""
        @umbel.remote
        def slow():
            time.sleep(0.05)
            return 1

        class Waits:
            def __init__(self):
                umbel.get(slow.remote())

            def in_a_thread(self):
                return umbel.get(slow.remote())

            async def awaits(self):
                return await slow.remote()

        actor = umbel.remote(Waits).remote()
        assert umbel.get([actor.in_a_thread.remote(), actor.awaits.remote()]) == [1, 1]
    """)
    assert "await ref" not in told


def test_a_worker_tells_of_what_its_code_left_unread_and_what_came_after_the_last_result() -> None:
    run(
        """
        def fail():
            raise ValueError("inside")

        @umbel.remote
        def outer():
            ref = umbel.remote(max_retries=0)(fail).remote()
            umbel.wait([ref])

        @umbel.remote(num_returns=2)
        def items():
            yield from range(3)

        umbel.get(outer.remote())
        assert umbel.get(items.remote()) == [0, 1]
    """,
        "ValueError: inside",
        "items yields more than num_returns=2",
    )


@pytest.mark.parametrize("environment", [{}, {"UMBEL_IGNORE_UNHANDLED_ERRORS": "1"}])
def test_unread_errors_at_the_end_or_when_unwanted_are_not_told(environment: dict[str, str]) -> None:
    drop = "del ref; umbel.put(None)" if environment else ""
    told = run(
        f"""
        @umbel.remote(max_retries=0)
        def fail():
            raise ValueError("not told")

        ref = fail.remote()
        umbel.wait([ref])
        {drop}
    """,
        **environment,
    )
    assert "not told" not in told


def test_a_timeout_says_what_only_the_node_knows() -> None:
    run("""
        @umbel.remote(num_cpus=1_000)
        def huge():
            pass

        @umbel.remote
        def late():
            time.sleep(60)

        def told(ref):
            try:
                umbel.get(ref, timeout=0.2)
            except umbel.exceptions.GetTimeoutError as error:
                return str(error)

        text = told(huge.remote())
        assert "but this node has" in text, text
        ref = late.remote()
        while "running" not in umbel.explain(ref):
            umbel.wait([ref], timeout=0.01)
        text = told(ref)
        assert "late, is running on worker" in text and "it is at <string>:" in text, text
    """)
