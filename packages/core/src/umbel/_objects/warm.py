"""What is kept warm for reuse: freed segments with their pages, and idle mappings of other processes' segments.

Pure bookkeeping. Both kinds are bounded; what has waited longest leaves first, and is returned to be given back.
"""

from __future__ import annotations

import collections

from umbel._objects import segments

MAPPING_COUNT_MAX = 4096  # idle mappings; the kernel allows a process 65,530 of all kinds


class WarmPool:
    """Freed segments of this process."""

    def __init__(self, bytes_max: int) -> None:
        self.size_bytes = 0
        self._bytes_max = bytes_max
        self._by_age: collections.OrderedDict[int, segments.OwnSegment] = collections.OrderedDict()
        self._by_class: dict[int, dict[int, segments.OwnSegment]] = {}

    def add(self, segment: segments.OwnSegment, now_s: float) -> list[segments.OwnSegment]:
        """Returns what the pool has no room for: older segments, or this one if it is larger than the pool."""
        if segment.backed_bytes > self._bytes_max:
            return [segment]
        segment.state = segments.State.WARM
        segment.idle_since_s = now_s
        self._by_age[segment.number] = segment
        self._by_class.setdefault(segment.class_bytes, {})[segment.number] = segment
        self.size_bytes += segment.backed_bytes
        return self.shrink(self.size_bytes - self._bytes_max)

    def take(self, size_class: int) -> segments.OwnSegment | None:
        """A segment of this class: the last one freed, whose pages are likeliest to be in the processor's cache."""
        of_class = self._by_class.get(size_class)
        if not of_class:
            return None
        segment = of_class[next(reversed(of_class))]
        self._discard(segment)
        return segment

    def shrink(self, size_bytes: int) -> list[segments.OwnSegment]:
        """Takes out at least `size_bytes`, or all there is."""
        leaving = []
        while size_bytes > 0 and self._by_age:
            segment = next(iter(self._by_age.values()))
            self._discard(segment)
            size_bytes -= segment.backed_bytes
            leaving.append(segment)
        return leaving

    def expire(self, until_s: float) -> list[segments.OwnSegment]:
        """Takes out what has been there since `until_s` or earlier."""
        leaving = []
        while self._by_age:
            segment = next(iter(self._by_age.values()))
            if segment.idle_since_s > until_s:
                break
            self._discard(segment)
            leaving.append(segment)
        return leaving

    def oldest_s(self) -> float | None:
        """Since when the segment that has waited longest has been here."""
        return next((segment.idle_since_s for segment in self._by_age.values()), None)

    def _discard(self, segment: segments.OwnSegment) -> None:
        del self._by_age[segment.number]
        of_class = self._by_class[segment.class_bytes]
        del of_class[segment.number]
        if not of_class:
            del self._by_class[segment.class_bytes]
        self.size_bytes -= segment.backed_bytes


class MappedSegments:
    """Segments of other processes that are mapped here: those in use, and idle ones within the bounds."""

    def __init__(self, idle_bytes_max: int) -> None:
        self._idle_bytes_max = idle_bytes_max
        self._idle_bytes = 0
        self._by_key: dict[tuple[str, int], segments.ForeignSegment] = {}
        self._idle: collections.OrderedDict[tuple[str, int], segments.ForeignSegment] = collections.OrderedDict()

    def __len__(self) -> int:
        return len(self._by_key)

    def size_bytes(self) -> int:
        return sum(segment.mapping.size_bytes for segment in self._by_key.values())

    def viewed(self) -> list[segments.ForeignSegment]:
        return [segment for segment in self._by_key.values() if segment.views]

    def hold(self, key: tuple[str, int], size_bytes: int) -> segments.ForeignSegment | None:
        """The segment with one view more, if it is mapped as far as `size_bytes`: it may have grown since then."""
        segment = self._by_key.get(key)
        if segment is None or segment.mapping.size_bytes < size_bytes:
            return None
        if not segment.views:
            self._wake(segment)
        segment.views += 1
        return segment

    def add(self, segment: segments.ForeignSegment) -> None:
        """Adds a segment with its first view. Views of a shorter mapping that it replaces go on with theirs."""
        shorter = self._by_key.get(segment.key)
        if shorter is not None and not shorter.views:
            self._wake(shorter)
        self._by_key[segment.key] = segment
        segment.views = 1

    def let_go(self, segment: segments.ForeignSegment, now_s: float) -> list[segments.ForeignSegment]:
        """The last view is gone. Returns what there is no room for."""
        if self._by_key.get(segment.key) is not segment:
            return []  # replaced by a longer mapping
        segment.idle_since_s = now_s
        self._idle[segment.key] = segment
        self._idle_bytes += segment.mapping.size_bytes
        leaving = []
        while self._idle_bytes > self._idle_bytes_max or len(self._idle) > MAPPING_COUNT_MAX:
            leaving.append(self._drop(next(iter(self._idle.values()))))
        return leaving

    def expire(self, until_s: float) -> list[segments.ForeignSegment]:
        """Takes out what has been idle since `until_s` or earlier."""
        leaving = []
        while self._idle and (segment := next(iter(self._idle.values()))).idle_since_s <= until_s:
            leaving.append(self._drop(segment))
        return leaving

    def oldest_s(self) -> float | None:
        """Since when the mapping that has been idle longest has been so."""
        return next((segment.idle_since_s for segment in self._idle.values()), None)

    def forget(self, key: tuple[str, int]) -> list[segments.ForeignSegment]:
        """Takes out one segment if it is idle."""
        segment = self._idle.get(key)
        return [] if segment is None else [self._drop(segment)]

    def _drop(self, segment: segments.ForeignSegment) -> segments.ForeignSegment:
        self._wake(segment)
        del self._by_key[segment.key]
        return segment

    def _wake(self, segment: segments.ForeignSegment) -> None:
        del self._idle[segment.key]
        self._idle_bytes -= segment.mapping.size_bytes
