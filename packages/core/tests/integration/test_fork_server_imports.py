"""What the fork server imports for the sake of later workers."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import drivers
import pytest

import umbel
from umbel._client import start


@pytest.fixture(autouse=True)
def _session() -> Iterator[None]:
    umbel.init(num_cpus=1)
    yield
    umbel.shutdown()


class Beginning:
    def __init__(self) -> None:
        self._modules = set(sys.modules)

    def has(self, names: tuple[str, ...]) -> bool:
        return all(name in self._modules for name in names)


def test_later_workers_find_what_the_first_would_have_had_to_wait_for() -> None:
    actor = umbel.remote(num_cpus=0)(Beginning)
    kept = [actor.remote()]  # a worker that is there when the fork server has nothing to do

    def has_later_imports() -> bool:
        kept.append(actor.remote())
        found: bool = umbel.get(kept[-1].has.remote(start.LATER_IMPORTS))
        return found

    drivers.wait_until(has_later_imports, what="what later workers need")
