"""What is seen of a run while it goes on: lines on a terminal, and why it does not move."""

from __future__ import annotations

import html
import os
import pty
import re
import subprocess
import sys
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

PROGRAM = """
import logging, sys, time
import umbel
from umbel import data

def slow(row):
    time.sleep(0.2)
    return row

umbel.init(num_cpus=2, log_to_driver=False, object_store_memory=200 << 20)
data.DataContext.get_current().enable_progress_bars = sys.argv[1] == "on"
ds = data.range(12, override_num_blocks=6).map(slow)
ds.set_name("slow ones")
assert ds.count() and len(ds.take_all()) == 12
"""


def seen(mode: str) -> str:
    """What a terminal gets on standard error."""
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, mode], stderr=theirs, env={**os.environ, "TERM": "xterm"}
        )
        os.close(theirs)
        text = b""
        while True:
            try:
                some = os.read(ours, 1 << 16)
            except OSError:  # the other end is closed
                break
            if not some:
                break
            text += some
        assert process.wait(60) == 0
    finally:
        os.close(ours)
    return text.decode()


def test_a_terminal_shows_a_line_for_each_stage() -> None:
    text = seen("on")
    assert re.search(r"slow ones: \d+ rows, .* in \d\.\d s", text)
    assert re.search(r"ReadRange->Map\(slow\)\s+[█░]{12}\s+\d+%  \d+ rows", text)
    assert text.count("\x1b[2A") >= 2, "it is drawn over"
    assert "100%  12 rows" in text.split("\x1b[2A")[-1], "the last lines stay"


def test_lines_can_be_switched_off() -> None:
    assert "\x1b[" not in seen("off")


def test_nothing_is_drawn_into_files() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, "on"], capture_output=True, check=True, timeout=60)
    assert b"slow ones" not in done.stderr


def test_a_notebook_shows_a_line_for_each_stage_in_one_place() -> None:
    """In a kernel of Jupyter's, which tells us what a notebook would show."""
    pytest.importorskip("ipykernel")
    manager = pytest.importorskip("jupyter_client.manager").KernelManager(transport="ipc")
    manager.start_kernel()
    client = manager.client()
    client.start_channels()
    told: list[Any] = []
    try:
        client.wait_for_ready(timeout=60)
        program = f"import sys; sys.argv = ['', 'on']\n{PROGRAM}\numbel.shutdown()"
        reply = client.execute_interactive(program, timeout=60, output_hook=told.append)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert reply["content"]["status"] == "ok", reply["content"]
    shown = [one for one in told if one["msg_type"].endswith("display_data")]
    assert [one["msg_type"] for one in shown] == ["display_data"] + ["update_display_data"] * (len(shown) - 1)
    assert len(shown) > 2 and len({one["content"]["transient"]["display_id"] for one in shown}) == 1
    last = shown[-1]["content"]["data"]
    assert re.fullmatch(
        r"slow ones: 12 rows, 96 B, in \d\.\d s\nReadRange->Map\(slow\)  █{12}  100%  12 rows  96 B", last["text/plain"]
    )
    assert last["text/html"] == f"<pre>{html.escape(last['text/plain'])}</pre>"


STALL = """
import logging, sys, time
import umbel
from umbel import data
from umbel.data._engine import executor, reports
from umbel.data._plan import running

def never(row):
    return row

logging.basicConfig(stream=sys.stderr, format="%(message)s")
umbel.init(num_cpus=1, log_to_driver=False, object_store_memory=200 << 20)
ds = data.range(4, override_num_blocks=1).map(never, num_gpus=1)
plan = running.staged(ds._node, ds.context)
(stream,) = executor.stream(plan, reports.RunOptions(stall_s=0.5))
try:
    stream.next_view(6.0)
except TimeoutError:
    pass
print(stream.stats()["stages"][-1]["waits_for"])
stream.close()
"""


def test_a_run_that_does_not_move_says_why_once() -> None:
    done = subprocess.run([sys.executable, "-c", STALL], capture_output=True, check=True, timeout=90, text=True)
    told = [line for line in done.stderr.splitlines() if line.startswith("no block was made")]
    assert told and len({line.partition(". Of the oldest")[0] for line in told}) == len(told), "each reason once"
    assert "Map(never): " in told[-1]
    assert told[-1].endswith("Of the oldest task: needs {GPU: 1}, but this node has {GPU: 0} in all")
    assert done.stdout.strip() in ("tasks", "resources"), "statistics tell it at any time"


FAILING = """
import threading
import umbel
from umbel import data

seen = []

def fails(row):
    if row["id"] == 11:
        raise ValueError("eleven")
    return row

def slow(row):
    import time
    time.sleep(0.1)
    return row

umbel.init(num_cpus=2, log_to_driver=False, object_store_memory=200 << 20)
ds = data.range(12, override_num_blocks=6).map(slow)
done = threading.Event()
thread = threading.Thread(target=lambda: (ds.materialize(), done.set()))
thread.start()
while not done.wait(0.05):
    try:
        seen.append(ds.stats()["state"])
    except ValueError:  # it has not begun
        pass
thread.join()
failing = data.range(12, override_num_blocks=6).map(fails)
try:
    failing.materialize()
except ValueError:
    pass
print(seen[-1] in ("running", "ended") and "running" in seen, ds._latest.stats()["state"], failing.stats()["state"])
"""


def test_statistics_are_there_while_a_run_goes_on_and_when_it_failed() -> None:
    done = subprocess.run([sys.executable, "-c", FAILING], capture_output=True, check=True, timeout=60, text=True)
    assert done.stdout.strip() == "True ended failed"
