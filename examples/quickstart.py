"""Umbel in one program: Python's own standard library, read in parallel.

    python examples/quickstart.py

Tasks parse every module of the library and stream what they find. Its tests are left out: some files there are meant not to
parse, and not every system installs them. An actor folds the findings into an index while they arrive. More tasks rank the
modules by who imports them, over arrays that pass from task to task by reference. Then one process does all of it again
without Umbel, to check the answer and to compare the speed.
"""

from __future__ import annotations

import argparse
import ast
import sysconfig
import time
from array import array
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from rich.columns import Columns
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import umbel

LIBRARY = Path(sysconfig.get_path("stdlib"))
NOT_THE_LIBRARY = {"site-packages", "dist-packages", "test", "tests", "idle_test"}  # what is installed, and the tests
LONGEST = 5  # functions to show
DAMPING = 0.85  # of PageRank: the chance to follow an import rather than to jump anywhere
ROUNDS = 30  # of PageRank: the ranks no longer move in the digits shown


class Findings(TypedDict):
    """What one file says about itself."""

    module: str
    imports: list[str]
    functions: list[tuple[int, str]]  # the longest ones: (lines, name)


class Graph(NamedTuple):
    """Who imports whom. The importers of module i are `importers[first[i]:first[i + 1]]`."""

    names: list[str]
    first: array[int]
    importers: array[int]
    imports_count: array[int]


# ------------------------------------------------------------------ the work itself: plain functions, nothing of Umbel


def find_files(limit: int | None) -> list[Path]:
    """The library's files, the largest first, so that no large one is left for the end."""
    files = [path for path in LIBRARY.rglob("*.py") if not NOT_THE_LIBRARY & set(path.relative_to(LIBRARY).parts)]
    return sorted(files, key=lambda path: (-path.stat().st_size, path))[:limit]


def read(path: Path) -> Findings:
    """Parse one file."""
    parts = path.relative_to(LIBRARY).with_suffix("").parts
    package = parts[:-1]
    module = ".".join(package if parts[-1] == "__init__" else parts)
    imports: set[str] = set()
    functions: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            imports.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            origin = ".".join([*base, node.module] if node.module else base)
            imports.update(f"{origin}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            functions.append(((node.end_lineno or node.lineno) - node.lineno + 1, f"{module}.{node.name}"))
    return Findings(module=module, imports=sorted(imports), functions=longest(functions))


def longest(functions: list[tuple[int, str]]) -> list[tuple[int, str]]:
    return sorted(functions, reverse=True)[:LONGEST]


def build_graph(imports: dict[str, list[str]]) -> Graph:
    """The imports between modules that were read, as flat arrays."""
    names = sorted(imports)
    number = {name: index for index, name in enumerate(names)}
    importers: list[set[int]] = [set() for _ in names]
    for name, targets in imports.items():
        for imported in targets:
            target = imported
            while target and target not in number:  # `os.path.join` is a name in `os`
                target = target.rpartition(".")[0]
            if target and target != name:
                importers[number[target]].add(number[name])
    first, imports_count = array("l", [0]), array("l", bytes(array("l").itemsize * len(names)))
    for group in importers:
        first.append(first[-1] + len(group))
        for index in group:
            imports_count[index] += 1
    return Graph(names, first, array("l", chain.from_iterable(map(sorted, importers))), imports_count)


def rank(graph: Graph, ranks: array[float], start: int, stop: int) -> array[float]:
    """One round of PageRank for the modules `start` to `stop`."""
    count = len(graph.names)
    stranded = sum(ranks[index] for index in range(count) if not graph.imports_count[index])  # they import nothing
    floor = (1 - DAMPING + DAMPING * stranded) / count
    return array(
        "d",
        (
            floor
            + DAMPING
            * sum(
                ranks[importer] / graph.imports_count[importer]
                for importer in graph.importers[graph.first[module] : graph.first[module + 1]]
            )
            for module in range(start, stop)
        ),
    )


class Index:
    """The findings so far. Also an actor, further down."""

    def __init__(self) -> None:
        self.imports: dict[str, list[str]] = {}
        self.functions: list[tuple[int, str]] = []

    def add(self, findings: Findings) -> None:
        self.imports[findings["module"]] = findings["imports"]
        self.functions = longest(self.functions + findings["functions"])

    def all_imports(self) -> dict[str, list[str]]:
        return self.imports

    def longest_functions(self) -> list[tuple[int, str]]:
        return self.functions


# ---------------------------------------------------------------------- the same in parallel: tasks, actors and objects


@umbel.remote(num_returns="streaming")
def read_each(paths: list[Path]) -> Iterator[Findings]:
    """A generator task: each finding is on its way before the next file is opened."""
    for path in paths:
        yield read(path)


@umbel.remote
def graph_of_index() -> Graph:
    """Asks the actor by its name. The graph goes to the tasks that need it; what the driver holds is a reference."""
    index = umbel.get_actor("index")
    return build_graph(umbel.get(index.all_imports.remote()))


@umbel.remote
def rank_part(graph: Graph, ranks: array[float], part: int, parts: int) -> array[float]:
    count = len(graph.names)
    return rank(graph, ranks, count * part // parts, count * (part + 1) // parts)


@umbel.remote
def join(*parts: array[float]) -> array[float]:
    return array("d", chain.from_iterable(parts))


def run_parallel(files: list[Path], width: int, console: Console) -> tuple[list[str], array[float], Index]:
    """`width` readers at a time, one index, and ranks that pass from task to task without coming back here."""
    index: Any = umbel.remote(Index).options(name="index", num_cpus=0).remote()
    folded = []
    readers = [read_each.remote(files[offset::width]) for offset in range(width)]
    with progress(console) as bar:
        reading = bar.add_task("reading", total=len(files))
        try:
            while readers:
                ready, _ = umbel.wait(readers)  # a reader is ready when it has another finding, or has ended
                for reader in ready:
                    try:
                        finding = next(reader)
                    except StopIteration:
                        readers.remove(reader)
                    else:
                        folded.append(index.add.remote(finding))  # by reference, from the task straight to the actor
                        bar.advance(reading)
        except KeyboardInterrupt:
            for reader in readers:
                umbel.cancel(reader)
            raise

        umbel.get(folded)  # now the index is whole
        graph = graph_of_index.remote()
        names = umbel.get(graph).names
        ranks = umbel.put(array("d", [1 / len(names)]) * len(names))
        for _ in bar.track(range(ROUNDS), description="ranking"):
            ranks = join.remote(*(rank_part.remote(graph, ranks, part, width) for part in range(width)))
        result = umbel.get(ranks)

    copy = Index()
    copy.imports, copy.functions = umbel.get([index.all_imports.remote(), index.longest_functions.remote()])
    umbel.kill(index)
    return names, result, copy


def run_serial(files: list[Path], console: Console) -> tuple[list[str], array[float], Index]:
    """One process, no Umbel."""
    index = Index()
    with progress(console) as bar:
        for path in bar.track(files, description="alone"):
            index.add(read(path))
    graph = build_graph(index.imports)
    ranks = array("d", [1 / len(graph.names)]) * len(graph.names)
    for _ in range(ROUNDS):
        ranks = rank(graph, ranks, 0, len(graph.names))
    return graph.names, ranks, index


# -------------------------------------------------------------------------------------------------------- what is shown


def progress(console: Console) -> Progress:
    columns = TextColumn("{task.description:>8}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    return Progress(*columns, console=console)


def tables(names: list[str], ranks: array[float], functions: list[tuple[int, str]]) -> Columns:
    central = Table("module", "rank", title="Most relied upon")
    for value, name in sorted(zip(ranks, names, strict=True), reverse=True)[: 2 * LONGEST]:
        central.add_row(name, f"{value:.4f}")
    long = Table("function", "lines", title="Longest functions")
    for lines, name in functions:
        long.add_row(name, str(lines))
    return Columns([central, long], padding=(0, 4))


def main() -> None:
    parser = argparse.ArgumentParser(description="Read Python's standard library in parallel, and check the result.")
    parser.add_argument("--files", type=int, help="only so many files, the largest ones")
    parser.add_argument("--engine", choices=["native", "inline"], default="native", help="inline: all in this process")
    arguments = parser.parse_args()
    if arguments.files is not None and arguments.files < 1:
        parser.error(f"--files must be at least 1, got {arguments.files}")
    console = Console()

    files = find_files(arguments.files)
    size_bytes = sum(len(path.read_bytes()) for path in files)  # also makes the first run as warm as the second
    began = time.perf_counter()
    with umbel.init(engine=arguments.engine):
        width = int(umbel.cluster_resources()["CPU"])
        started = time.perf_counter()
        names, ranks, index = run_parallel(files, width, console)
        ended = time.perf_counter()
    parallel_s = ended - started

    started_alone = time.perf_counter()
    expected = run_serial(files, console)
    serial_s = time.perf_counter() - started_alone

    console.print(tables(names, ranks, index.functions))
    if (names, ranks, index.imports, index.functions) != (*expected[:2], expected[2].imports, expected[2].functions):
        raise SystemExit("the parallel run and the serial run do not agree; please report this")
    console.print(
        f"{len(files)} files, {size_bytes / 1e6:.1f} MB, {len(names)} modules; both runs agree.\n"
        f"One process:     {serial_s:5.2f} s, {len(files) / serial_s:5,.0f} files/s\n"
        f"Umbel, {width:2} CPUs:  {parallel_s:5.2f} s, {len(files) / parallel_s:5,.0f} files/s, "
        f"[bold]{serial_s / parallel_s:.2f} times as fast[/bold]\n"
        f"Umbel's start:   {started - began:5.2f} s"
    )


if __name__ == "__main__":
    main()
