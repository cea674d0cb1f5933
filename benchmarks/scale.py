"""What a cluster's control costs, and how that grows with its nodes: the production control store and protocol, simulated nodes.

    python benchmarks/scale.py                                     # 100 and 2,000 nodes; 4 minutes of CPU
    python benchmarks/scale.py --nodes 20 --nodes 60 --actors 400 --groups 40 --tasks 20000 --keys 400     # some seconds

All is in one process for each number of nodes, without sockets and daemons: see `scale_cluster` and `scale_tasks`. What is
printed is CPU time of the head's one thread (for tasks, of the owner and of its node), so others on the machine count little:
per event, in all of its messages, and the median and the 99th percentile of what the head does for one message of those that
the event consists of. What the kernel takes for each frame comes to that, and the storage. Exit status 1 when the head and the
nodes do not agree in the end about who is where.
--json writes all that was measured to a file; --profile prints what the head did in each part.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # see benchmarks/__init__.py

from benchmarks import scale_tasks
from benchmarks.scale_cluster import Cluster, Driver
from umbel._agent.ledger import CPU, UNIT
from umbel._control import nodes as control_nodes

NODES = (100, 2_000)
NAMED_EACH = 10  # so many actors have no name for each that has one
BY_THE_WAY = ("beat", "tick")  # what is said and done all the time, of which there are rows of their own
TASKS_S = {"of 10 ms": 0.01, "of 1 us": 1e-6}
DEATHS = 5
JOINS_EACH, JOINS_S = 10, 0.1  # so many nodes join in that time
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
PARTS = ("members", "keys", "actors", "groups", "deaths", "autoscaler", "tasks")


@dataclasses.dataclass
class Row:
    """count: of events. event_us: what one takes in all, at the head or where `what` says. p50_us, p99_us: of the answers."""

    what: str
    count: int
    event_us: float
    p50_us: float | None
    p99_us: float | None
    note: str = ""


@dataclasses.dataclass
class Report:
    nodes: int
    rows: list[Row]
    memory_mib: dict[str, float]
    profiles: dict[str, str]
    faults: list[str]


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """arguments: None for the program's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, action="append", help="once for each number; the default is 100 and 2,000")
    parser.add_argument("--actors", type=int, default=40_000)
    parser.add_argument("--groups", type=int, default=1_000, help="placement groups, of two bundles each")
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--keys", type=int, default=10_000)
    parser.add_argument("--drivers", type=int, default=20)
    parser.add_argument("--window", type=int, default=100, help="actors and groups that are being made at once")
    parser.add_argument("--leases", type=int, default=2_000, help="that the cluster has room for")
    parser.add_argument("--seconds", type=float, default=120.0, help="after so many, a part goes on to what follows it")
    parser.add_argument("--part", choices=PARTS, action="append", help="once for each; the default is all")
    parser.add_argument("--json", help="a file to write everything to; - for standard output, without the table")
    parser.add_argument(
        "--profile", type=int, default=0, metavar="LINES", help="of each part; what is measured is slower"
    )
    return parser.parse_args(arguments)


def main() -> int:
    chosen = options()
    counts = chosen.nodes or list(NODES)
    if len(counts) == 1:
        reports = [dataclasses.asdict(Run(counts[0], chosen).report())]
    else:  # each in a process of its own, so that memory is its own
        reports = [_elsewhere(count, chosen) for count in counts]
    if chosen.json == "-":
        print(json.dumps(reports))
    else:
        if chosen.json:
            Path(chosen.json).write_text(json.dumps(reports, indent=1), encoding="utf-8")
        _print(reports)
    return 1 if any(one["faults"] for one in reports) else 0


def _elsewhere(count: int, chosen: argparse.Namespace) -> dict[str, Any]:
    options = [f"--{name}={getattr(chosen, name)}" for name in
               ("actors", "groups", "tasks", "keys", "drivers", "window", "leases", "seconds", "profile")]  # fmt: skip
    parts = [f"--part={one}" for one in chosen.part or ()]
    command = [sys.executable, __file__, f"--nodes={count}", *options, *parts, "--json=-"]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if not done.stdout:
        raise SystemExit(f"the run with {count} nodes ended with the status {done.returncode}")
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found[0]


class Run:
    """One number of nodes."""

    def __init__(self, count: int, chosen: argparse.Namespace) -> None:
        self._chosen = chosen
        self._parts = chosen.part or PARTS
        self._count = count
        self._rows: list[Row] = []
        self._memory: dict[str, float] = {}
        self._profiles: dict[str, str] = {}
        self._faults: list[str] = []
        self._cluster = Cluster()
        self._drivers: list[Driver] = []
        self._actors: list[tuple[Driver, str, str]] = []  # with their creators and names

    def report(self) -> Report:
        self._note_memory("before")
        self._part("joins", self._join)
        self._drivers = [
            Driver(self._cluster, self._cluster.nodes[number % self._count]) for number in range(self._chosen.drivers)
        ]
        self._cluster.network.run()
        parts: dict[str, list[tuple[str, Callable[[], None]]]] = {
            "members": [("beats", self._beat_all), ("beats of a few", self._beat_few)],
            "keys": [("keys", self._keys)],
            "actors": [("actors", self._create), ("look-ups", self._look_up), ("kills", self._kill)],
            "groups": [("groups", self._make_groups)],
            "deaths": [("deaths", self._die)],
            "autoscaler": [("plan", self._plan)],
            "tasks": [("tasks", self._tasks)],
        }
        for name in self._parts:
            for title, do in parts[name]:
                self._part(title, do)
        return Report(self._count, self._rows, self._memory, self._profiles, self._faults)

    # ---- measuring ----

    def _part(self, title: str, do: Callable[[], None]) -> None:
        # What is there of a whole cluster, in this one process, is not looked through on the time of whoever makes a little.
        gc.collect()
        gc.freeze()
        began_s, meter = time.monotonic(), self._cluster.meter
        meter.begin()
        if self._chosen.profile:
            meter.begin_profile()
        do()
        if self._chosen.profile:
            self._profiles[title] = meter.end_profile(self._chosen.profile)
        self._note_memory(title)
        self._faults += [f"after {title}: {one}" for one in self._cluster.faults()]
        self._cluster.wrong.clear()
        self._cluster.head.faults.clear()
        print(f"{self._count} nodes: {title}, {time.monotonic() - began_s:.1f} s", file=sys.stderr, flush=True)

    def _note_memory(self, title: str) -> None:
        """Resident, of this process: the head's and all nodes' together."""
        if sys.platform.startswith("linux"):
            pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
            self._memory[title] = round(pages * PAGE_BYTES / 2**20, 1)

    def _row(self, what: str, count: int, answers: Iterable[str], note: str = "") -> None:
        """Of all that the head did since `begin`. answers: the messages of which the percentiles are."""
        answers, taken = [*answers], self._cluster.meter.taken_s
        others = [kind for kind in BY_THE_WAY if kind not in answers]
        total_s = sum(
            sum(one) for kind, one in taken.items() if kind not in others and not kind.startswith("at a node")
        )
        self._add(what, count, total_s, [one for kind in answers for one in taken.get(kind, ())], note)

    def _add(self, what: str, count: int, total_s: float, samples: Sequence[float], note: str = "") -> None:
        in_order = sorted(samples)
        p50_us, p99_us = (_us(in_order[int(len(in_order) * share)]) if in_order else None for share in (0.5, 0.99))
        self._rows.append(Row(what, count, _us(total_s / max(count, 1)), p50_us, p99_us, note))

    def _until(self) -> float:
        return time.monotonic() + float(self._chosen.seconds)

    def _must(self, what: str, *, holds: bool) -> None:
        if not holds:
            self._faults.append(what)

    # ---- members ----

    def _join(self) -> None:
        # None is ever full, so nothing waits for another one's end.
        cpus = self._chosen.actors + 2 * self._chosen.groups
        network = self._cluster.network
        for number in range(self._count):
            self._cluster.join(cpus)
            if number % JOINS_EACH == 0:
                self._cluster.pass_s(JOINS_S)
        self._cluster.pass_s(1.0)
        note = f"{network.news_count:,} frames of news, {network.news_bytes / 2**20:,.0f} MiB"
        self._row("a node joins", self._count, ("join", "tick"), note)  # what all hear of it is told by the way

    def _beat(self, share: float) -> tuple[int, float]:
        """So many nodes say something new, and the head tells all. Returns how many, and the time of the telling."""
        cluster, network = self._cluster, self._cluster.network
        cluster.pass_s(1.0)
        cluster.meter.begin()
        network.news_count = network.news_bytes = 0
        changing = cluster.nodes[: max(1, int(len(cluster.nodes) * share))]
        for node in changing:
            node.waiting += 1
        cluster.pass_s(1.0)
        return len(changing), sum(cluster.meter.taken_s.pop("tick"))

    def _news(self, what: str, changing: int, publish_s: float) -> None:
        network, readers = self._cluster.network, [node for node in self._cluster.nodes if node.reads_news]
        size_kib = network.news_bytes / max(network.news_count, 1) / 1024
        note = f"{network.news_count:,} frames of {size_kib:,.1f} KiB"
        self._must(
            f"{changing} nodes changed, and {network.news_count} were told", holds=network.news_count == self._count
        )
        self._add(what, 1, publish_s, [], note)
        own = ("at a node: heard", "at a node: said")  # the rest is news, in several parts if it is long
        taken = self._cluster.meter.taken_s
        read_s = sum(sum(one) for kind, one in taken.items() if kind.startswith("at a node") and kind not in own)
        self._add(f"a node reads that: {what}", len(readers), read_s, [])

    def _beat_all(self) -> None:
        changing, publish_s = self._beat(1.0)
        self._row("a heartbeat", changing, ("beat",))
        self._news("all members are told what has changed, which all have", changing, publish_s)

    def _beat_few(self) -> None:
        changing, publish_s = self._beat(0.01)
        self._news("all members are told what has changed, which one in a hundred has", changing, publish_s)

    def _die(self) -> None:
        """Processes that are killed, with the connections' ends; the head is sure after some seconds."""
        cluster = self._cluster
        gone = [cluster.nodes.pop() for _ in range(min(DEATHS, len(cluster.nodes) - self._chosen.drivers))]
        for node in gone:
            if node.link.end is not None:
                node.link.end.close()
        cluster.network.run()
        cluster.meter.begin()
        for _ in range(int(control_nodes.RECONNECT_S) + 1):
            cluster.pass_s(1.0)
        known = {node.node_id for node in gone}
        self._must(
            f"{len(gone)} nodes died, the head knows {len(cluster.head.dead)}", holds=known == {*cluster.head.dead}
        )
        self._add(
            "a node dies", len(gone), max(cluster.meter.taken_s["tick"]), []
        )  # all of them in one look of the head's

    # ---- keys ----

    def _keys(self) -> None:
        count, cluster = self._chosen.keys, self._cluster
        asked = []
        for number in range(count):
            key = b"key%012d" % number
            put = {"t": "kv_put", "space_size": 0, "key_size": len(key), "overwrite": True}
            driver = self._drivers[number % len(self._drivers)]
            driver.ask(put, key + b"%0100d" % number)
            asked.append((driver, driver.ask({"t": "kv_get", "space_size": 0}, key)))
            cluster.network.run()
        found = sum(driver.answered[request]["found"] for driver, request in asked)
        self._must(f"{found} of {count} keys were found", holds=found == count)
        self._row("a key is written and read", count, ("kv_put", "kv_get"))

    # ---- actors ----

    def _create(self) -> None:
        until_s, cluster = self._until(), self._cluster
        while len(self._actors) < self._chosen.actors and time.monotonic() < until_s:
            for _ in range(min(self._chosen.window, self._chosen.actors - len(self._actors))):
                self._create_one(len(self._actors))
            cluster.network.run()
            cluster.pass_s(1.0)
        is_alive = sum(driver.states.get(actor) == "ALIVE" for driver, actor, _ in self._actors)
        self._must(
            f"{is_alive} of {len(self._actors)} actors are alive to their drivers", holds=is_alive == len(self._actors)
        )
        self._row("an actor is created, hosted and ready", len(self._actors), ("create_actor", "hosted", "actor_ready"))

    def _create_one(self, number: int) -> None:
        driver = self._drivers[number % len(self._drivers)]
        actor, name = f"{driver.id}{number:016x}", f"name{number}" if number % NAMED_EACH == 0 else ""
        wanted = {CPU: UNIT}
        message = {
            "t": "create_actor", "actor": actor, "name": name, "namespace": None, "get_if_exists": False, "detached": False,
            "max_restarts": 0, "placement": wanted, "running": wanted, "env": None,
            "strategy": "SPREAD" if number % 2 else None, "label_selectors": None, "class_name": "C", "meta_size": 20,
            "depth": 0, "lacks_arguments": False, "call_site": "",
        }  # fmt: skip
        if name:
            driver.ask(message, bytes(200))
        else:
            driver.node.say(driver.id, {**message, "rq": None}, bytes(200))
        driver.tell({"t": "actor_watch", "actor": actor})
        self._actors.append((driver, actor, name))

    def _look_up(self) -> None:
        asked, cluster = [], self._cluster
        for number, (_, actor, name) in enumerate([one for one in self._actors if one[2]]):
            driver = self._drivers[number % len(self._drivers)]
            request = driver.ask({"t": "get_actor", "name": name, "namespace": None})
            asked.append((driver, request, actor))
            cluster.network.run()
        found = sum(driver.answered[request].get("actor") == actor for driver, request, actor in asked)
        self._must(f"{found} of {len(asked)} names were found", holds=found == len(asked))
        self._row("an actor is looked up", len(asked), ("get_actor",))

    def _kill(self) -> None:
        until_s, asked = self._until(), []
        while len(asked) < len(self._actors) and time.monotonic() < until_s:
            for driver, actor, _ in self._actors[len(asked) : len(asked) + self._chosen.window]:
                asked.append((driver, driver.ask({"t": "kill_actor", "actor": actor, "no_restart": True}), actor))
            self._cluster.network.run()
            self._cluster.pass_s(1.0)
        dead = sum(request in driver.answered and driver.states[actor] == "DEAD" for driver, request, actor in asked)
        self._must(f"{dead} of {len(asked)} actors are dead to their drivers", holds=dead == len(asked))
        self._row("an actor is killed", len(asked), ("kill_actor",))

    # ---- groups ----

    def _make_groups(self) -> None:
        until_s, made, cluster = self._until(), 0, self._cluster
        while made < self._chosen.groups and time.monotonic() < until_s:
            for number in range(made, min(made + self._chosen.window, self._chosen.groups)):
                self._make_group(number)
            made = min(made + self._chosen.window, self._chosen.groups)
            cluster.network.run()
        for _ in range(5):  # nodes that are chosen by several groups at once may refuse some, which are tried again
            cluster.pass_s(1.0)
        drivers = {f"g{number}": self._drivers[number % len(self._drivers)] for number in range(made)}
        created = sum(driver.states.get(group) == "CREATED" for group, driver in drivers.items())
        self._must(f"{created} of {made} groups are created to their drivers", holds=created == made)
        self._row("a placement group of two is made", made, ("create_group", "bundles_reserved", "bundles_committed"))
        cluster.meter.begin()
        for group, driver in drivers.items():
            driver.ask({"t": "remove_group", "group": group})
            cluster.network.run()
        self._row("a placement group is removed", made, ("remove_group",))

    def _make_group(self, number: int) -> None:
        driver, group = self._drivers[number % len(self._drivers)], f"g{number}"
        message = {
            "t": "create_group", "group": group, "name": "", "namespace": None, "bundles": [{CPU: UNIT}] * 2,
            "strategy": ("PACK", "SPREAD", "STRICT_SPREAD", "STRICT_PACK")[number % 4], "detached": False,
            "label_selectors": [], "soft_target": "", "actor": "", "depth": 0, "job": driver.job_id,
        }  # fmt: skip
        driver.ask(message)
        driver.tell({"t": "group_watch", "group": group})

    # ---- what waits ----

    def _plan(self) -> None:
        planned = scale_tasks.plan(self._cluster, self._chosen.tasks)
        self._faults += planned.faults
        what = f"the autoscaler plans for {self._chosen.tasks:,} tasks"
        note = f"{planned.launches:,} nodes to launch"
        self._add(f"{what}: the head says what there is", 1, planned.observed_s, [],
                  f"{planned.frame_bytes / 1024:,.0f} KiB")  # fmt: skip
        self._add(f"{what}: that is read", 1, planned.read_s, [])
        self._add(f"{what}: that is decided", 1, planned.plan_s, [], note)

    def _tasks(self) -> None:
        cpus = max(1, self._chosen.leases // self._count)
        for title, task_s in TASKS_S.items():
            queue = scale_tasks.Queue(self._count, cpus, self._chosen.tasks, task_s)
            self._note_memory(f"{self._chosen.tasks:,} tasks wait")
            taken = queue.run(self._until())
            self._faults += taken.faults
            note = f"{taken.leases:,} leases"
            self._add(f"a task {title}: queued", self._chosen.tasks, taken.queueing_s, [])
            self._add(
                f"a task {title}: given out and done, at its owner", taken.count, taken.owner_s, taken.turns_s, note
            )
            self._add(f"a lease for tasks {title}, at the owner's node", taken.leases, taken.node_s, taken.grants_s)


def _us(seconds: float) -> float:
    return round(1e6 * seconds, 2)


def _print(reports: Sequence[dict[str, Any]]) -> None:
    """In Markdown."""
    first, last = reports[0], reports[-1]
    heads = [f"{one['nodes']:,} nodes: count, us, per s, p50 us, p99 us" for one in reports]
    print(f"| | {' | '.join(heads)} | grows | |\n|---|{'---|' * (len(reports) + 2)}")
    whats = list(dict.fromkeys(row["what"] for one in reports for row in one["rows"]))
    for what in whats:
        rows = [next((row for row in one["rows"] if row["what"] == what), None) for one in reports]
        cells = [_cell(row) if row is not None else "" for row in rows]
        begin, end = rows[0], rows[-1]
        grows = f"{end['event_us'] / begin['event_us']:.2f}" if begin and end and begin["event_us"] else ""
        print(f"| {what} | {' | '.join(cells)} | {grows} | {(end or begin or {}).get('note', '')} |")
    print(f"\nMemory, MiB, of the head and all nodes together, with {first['nodes']:,} and {last['nodes']:,} nodes:")
    for title in last["memory_mib"]:
        print(f"- {title}: {', '.join(str(one['memory_mib'].get(title, '')) for one in reports)}")
    for one in reports:
        for title, text in one["profiles"].items():
            print(f"\n{one['nodes']:,} nodes, {title}:\n{text}")
        for fault in one["faults"]:
            print(f"WRONG with {one['nodes']:,} nodes: {fault}")


def _cell(row: dict[str, Any]) -> str:
    per_s = 1e6 / row["event_us"] if row["event_us"] else 0.0
    answers = [f"{one:,.0f}" if one is not None else "-" for one in (row["p50_us"], row["p99_us"])]
    return ", ".join((f"{row['count']:,}", f"{row['event_us']:,.1f}", f"{per_s:,.0f}", *answers))


if __name__ == "__main__":
    sys.exit(main())
