"""A read that is tried again after errors that are known to pass, such as those of a busy object store."""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger("umbel.data")

ATTEMPTS_MAX: Final = 10  # together about two minutes, after which it is no passing error
WAIT_S_MAX: Final = 32.0


@dataclass(frozen=True)
class Retried:
    """read: gives the same tables each time. patterns: texts or regular expressions, of which the error has one. wait_s: before
    the second attempt, and before each further one twice as long, a random part of it less."""

    read: Callable[[], Iterable[pa.Table]]
    patterns: tuple[str, ...]
    wait_s: float = 0.5

    def __call__(self) -> Iterator[pa.Table]:
        given = 0
        for attempt in range(1, ATTEMPTS_MAX + 1):
            try:
                for number, table in enumerate(self.read()):
                    if number >= given:
                        given += 1
                        yield table
            except Exception as error:
                if attempt == ATTEMPTS_MAX or not self._is_passing(error):
                    raise
                logger.warning("a read is tried again, after attempt %d of %d: %s", attempt, ATTEMPTS_MAX, error)
            else:
                return
            longest_s = min(self.wait_s * 2 ** (attempt - 1), WAIT_S_MAX)
            time.sleep(longest_s * random.uniform(0.5, 1.0))  # so that tasks do not come together again

    def _is_passing(self, error: BaseException | None) -> bool:
        while error is not None:
            if any(_is_in(one, str(error)) for one in self.patterns):
                return True
            error = error.__cause__
        return False


def _is_in(pattern: str, text: str) -> bool:
    if pattern in text:
        return True
    try:
        return re.search(pattern, text) is not None
    except re.error:  # a text that is no expression
        return False
