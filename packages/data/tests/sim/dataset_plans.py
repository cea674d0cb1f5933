"""Plans by chance, and what they give: rows are numbers, and each stage does something to rows that plain Python can repeat."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from umbel.data._engine import stages
from umbel.testing.simulation.chance import Chance

ROW_BYTES = 10
STAGES_MAX = 6
BLOCK_ROWS_MAX = 6  # that a task ends a block at
BOTH = 2  # sides that a join keeps rows of
SOURCE_ROWS = 1_000_003  # more than a source has

Rows = list[int]


class Plan:
    """A plan with what its stages do. functions: of a stage, rows to rows. is_shared: a stage has two consumers. is_by_part: it
    ends with a write, each task of which has one part of the read."""

    def __init__(self, chance: Chance) -> None:
        self.chance = chance
        self.functions: dict[stages.Stage, Callable[[Rows], Rows]] = {}
        self.source_rows: dict[stages.Stage, list[Rows]] = {}
        self.joins: dict[stages.Stage, int] = {}  # -> the input whose rows it keeps, see `matched`
        self.is_shared = self.is_by_part = False
        self._source_count = 0
        self._stage_count = 0
        self.last = self._made()

    def _name(self, kind: str) -> str:
        self._stage_count += 1
        return f"{kind}{self._stage_count}"

    def _made(self) -> stages.Stage:
        chance = self.chance
        stage = self._source()
        for _ in range(chance.below(STAGES_MAX)):
            stage = self._behind(stage)
        kind = chance.below(10)
        if kind == 9:
            return stages.Split(input=stage, count=1 + chance.below(3), is_equal=chance.happens(50))
        if kind == 8 and all(isinstance(one, _BY_PART) for one in stages.ordered(stage)):
            return self._written(stage)
        return stage

    def _written(self, stage: stages.Stage) -> stages.Stage:
        self.is_by_part = True
        compute = stages.TaskPool(self.chance.choose((None, 1, 2)))
        made = stages.Write(
            name=self._name("write"), input=self._by_part(stage), write=_unused, by_part=True, compute=compute
        )
        self.functions[made] = _keep
        return made

    def _by_part(self, stage: stages.Stage) -> stages.Stage:
        if isinstance(stage, stages.Map):
            made = dataclasses.replace(stage, input=self._by_part(stage.input), by_part=True)
            self.functions[made] = self.functions[stage]
            return made
        parts = self.source_rows[stage]
        skipped = frozenset(number for number in range(len(parts)) if self.chance.happens(30))
        source: stages.Stage = dataclasses.replace(stage, skipped=skipped)  # type: ignore[type-var]
        self.source_rows[source] = parts
        return source

    def of_part(self, stage: stages.Stage, number: int) -> Rows:
        """What a chain of maps makes of one part."""
        if isinstance(stage, (stages.Map, stages.Write)):
            return self.functions[stage](self.of_part(stage.input, number))
        return self.source_rows[stage][number]

    def _behind(self, stage: stages.Stage) -> stages.Stage:
        chance = self.chance
        kind = chance.weighted((10, 2, 2, 2, 3, 2))
        if kind == 1:
            return stages.Limit(input=stage, row_count=chance.below(40), name=self._name("limit"))
        if kind == 2:
            other = self._source() if chance.happens(70) else self._shared(stage)
            return stages.Union(inputs=(stage, self._map(other)), name=self._name("union"))
        if kind == 3:
            other = self._map(self._shared(stage), keeps_count=chance.happens(90))
            return stages.Zip(
                inputs=(stage, other), combine=_unused, name=self._name("zip"), is_steady=chance.happens(20),
                bundle_bytes=ROW_BYTES * chance.choose((1, 6, 20)),
            )  # fmt: skip
        if kind in (4, 5):
            return self._exchange(stage, is_sort=kind == 4)
        return self._map(stage)

    def _shared(self, stage: stages.Stage) -> stages.Stage:
        self.is_shared = True
        return stage

    def _source(self) -> stages.Stage:
        chance = self.chance
        self._source_count += 1
        first = self._source_count * SOURCE_ROWS
        parts: list[Rows] = []
        for _ in range(chance.below(12) if chance.happens(75) else chance.below(60)):
            count = chance.below(12) if chance.happens(90) else 0
            parts.append(list(range(first, first + count)))
            first += count
        if chance.happens(30):
            blocks = [stages.Block(_unused, metadata(rows)) for rows in parts]
            source: stages.Stage = stages.Input(name=self._name("input"), blocks=blocks)
        else:
            is_known = chance.happens(50)
            made = [
                stages.ReadPart(_unused, size_bytes=len(rows) * ROW_BYTES if is_known else None, row_count=None)
                for rows in parts
            ]
            source = stages.Read(
                name=self._name("read"), parts=made, resources=self._resources(), can_repeat=chance.happens(70),
                block_bytes=BLOCK_ROWS_MAX * ROW_BYTES,
            )  # fmt: skip
        self.source_rows[source] = parts
        return source

    def _resources(self) -> stages.Resources:
        chance = self.chance
        return stages.Resources(num_cpus=chance.choose((1.0, 1.0, 0.5, 0.0)))

    def _map(self, stage: stages.Stage, *, keeps_count: bool = False) -> stages.Stage:
        chance = self.chance
        compute: stages.Compute = stages.TaskPool(chance.choose((None, 1, 2)))
        resources = self._resources()
        if chance.happens(35):
            least = chance.below(2)
            compute = stages.ActorPool(
                min_size=least, max_size=max(1, least) + chance.below(3), tasks_per_actor=1 + chance.below(2)
            )
            resources = stages.Resources(
                num_cpus=chance.choose((1.0, 0.5, 0.0)), num_gpus=chance.choose((0.0, 0.0, 1.0))
            )
        made = stages.Map(
            name=self._name("map"), input=stage, transforms=(), compute=compute, resources=resources,
            bundle_rows=chance.choose((None, None, 4, 9)), bundle_bytes=ROW_BYTES * chance.choose((1, 6, 20)),
            is_steady=chance.happens(20), can_repeat=chance.happens(30), block_bytes=BLOCK_ROWS_MAX * ROW_BYTES,
        )  # fmt: skip
        divisor = 2 + chance.below(4)
        self.functions[made] = chance.choose((_keep, _doubled, _without(divisor))) if not keeps_count else _keep
        return made

    def _exchange(self, stage: stages.Stage, *, is_sort: bool) -> stages.Stage:
        chance = self.chance
        count = chance.choose((None, None, 1, 2, 3))
        inputs = (stage,)
        is_by_place = not is_sort and chance.happens(30)
        if not is_sort and not is_by_place and chance.happens(40):
            inputs = (stage, self._source())
        kept = chance.below(3) if len(inputs) == 2 and chance.happens(80) else None
        made = stages.Exchange(
            name=self._name("sort" if is_sort else "exchange"), inputs=inputs, partition=(_unused,) * len(inputs),
            reduce=_unused, partition_count=count, partition_bytes=ROW_BYTES * chance.choose((5, 30)),
            partition_count_max=4, sample=_unused if is_sort else None,
            boundaries=_unused if is_sort or is_by_place else None,
            bundle_bytes=ROW_BYTES * chance.choose((5, 30)), block_bytes=BLOCK_ROWS_MAX * ROW_BYTES,
            can_repeat=chance.happens(50), whole=(1 - kept,) if kept in (0, 1) and chance.happens(80) else (),
            apart=((_unused, _unused),) if kept == BOTH and chance.happens(80) else (),
            broadcast_bytes=ROW_BYTES * chance.choose((0, 10, 1_000)), is_steady=chance.happens(30),
        )  # fmt: skip
        if kept is not None:
            self.joins[made] = kept
        return made

    def result(self, counts: dict[str, int], stage: stages.Stage | None = None) -> Rows | None:
        """All rows in order; None if it must fail. counts: of exchanges' partitions, by name."""
        stage = self.last if stage is None else stage
        of_inputs = [self.result(counts, one) for one in stage.inputs]
        if any(rows is None for rows in of_inputs):
            return None
        rows = [one or [] for one in of_inputs]
        if isinstance(stage, (stages.Input, stages.Read)):
            parts = enumerate(self.source_rows[stage])
            return [row for number, part in parts if number not in stage.skipped for row in part]
        if isinstance(stage, (stages.Map, stages.Write)):
            return self.functions[stage](rows[0])
        if isinstance(stage, stages.Limit):
            return rows[0][: stage.row_count]
        if isinstance(stage, stages.Union):
            return [row for some in rows for row in some]
        if isinstance(stage, stages.Zip):
            if len({len(some) for some in rows}) > 1:
                return None
            return [zipped(pair) for pair in zip(*rows, strict=True)]
        if isinstance(stage, stages.Exchange):
            everything = [row for some in rows for row in some]
            if is_by_place(stage):
                return everything
            if stage.sample is not None:
                return sorted(everything)
            count = counts.get(stage.name, 1) or 1
            if stage in self.joins:
                found = matched(rows, self.joins[stage])
                return [row for at in range(count) for row in found if key(row) % count == at]
            return [row for at in range(count) for row in sorted(everything) if row % count == at]
        return rows[0]


_BY_PART = (stages.Input, stages.Read, stages.Map)


def is_by_place(stage: stages.Exchange) -> bool:
    """It divides its rows in their order."""
    return stage.boundaries is not None and stage.sample is None


def metadata(rows: Sequence[int]) -> stages.Metadata:
    return stages.Metadata(len(rows), len(rows) * ROW_BYTES)


def key(row: int) -> int:
    """What a join compares."""
    return row % 7


def matched(sides: Sequence[Rows], kept: int) -> Rows:
    """The rows of one side that have their like on the other; of both, all of the first, and of the second those without."""
    if kept == BOTH:
        return [*sides[0], *alone(sides)]
    keys = {key(row) for row in sides[1 - kept]}
    return [row for row in sides[kept] if key(row) in keys]


def alone(sides: Sequence[Rows]) -> Rows:
    """The rows of the second side that have not their like on the first."""
    keys = {key(row) for row in sides[0]}
    return [row for row in sides[1] if key(row) not in keys]


def zipped(pair: Sequence[int]) -> int:
    return (pair[0] * 31 + pair[1]) % (1 << 61)


def _keep(rows: Rows) -> Rows:
    return list(rows)


def _doubled(rows: Rows) -> Rows:
    return [row for row in rows for _ in range(2)]


def _without(divisor: int) -> Callable[[Rows], Rows]:
    return lambda rows: [row for row in rows if row % divisor]


def _unused(*_arguments: Any) -> Any:
    raise AssertionError("the simulated world runs nothing")
