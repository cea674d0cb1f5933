"""What waits in a worker to be run, taken by others than the main thread.

The main thread takes the first one whenever it likes, and no lock: the queue may shrink between any two instructions. So
nothing here iterates over it, and what was there a moment ago may be gone. Lock held.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from umbel._client import links
from umbel._worker import execute


def of(queue: deque[Any], link: links.Link) -> list[execute.Execution]:
    """Those that this process has sent."""
    return [job for job in list(queue) if type(job) is execute.Execution and job.link is link]


def withdraw(queue: deque[Any], job: execute.Execution) -> bool:
    """Whether it was there, and so never runs."""
    try:
        queue.remove(job)
    except ValueError:
        return False
    return True


def take_back(queue: deque[Any], link: links.Link, count: int) -> list[int]:
    """Up to `count` plain tasks of this process, the last ones first. Returns their numbers, in order."""
    kept: list[Any] = []
    taken: list[int] = []
    while len(taken) < count:
        try:
            job = queue.pop()
        except IndexError:
            break
        if type(job) is execute.Execution and job.link is link and not job.template.method:
            taken.append(job.seq)
        else:
            kept.append(job)
    queue.extend(reversed(kept))
    taken.reverse()
    return taken
