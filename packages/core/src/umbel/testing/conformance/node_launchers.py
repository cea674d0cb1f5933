"""What a node launcher must do: launch nodes that join a real head here, list them, end them."""

from __future__ import annotations

import select
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any, ClassVar, TypeVar

import pytest

from umbel import cluster_utils, exceptions, spi
from umbel._client import tool
from umbel._model import node_labels
from umbel.testing.conformance import suite

T = TypeVar("T")

LOOK_S = 0.02
TYPES = ("plain", "labelled")
MEMORY_BYTES = 1 << 30  # no machine's


class NodeLauncherConformance(suite.Suite[spi.NodeLauncher]):
    """Subclass it and set `descriptor`.

    config: of the launcher. node_config: of a type of nodes. bad_node_config: one that `check` refuses; None if there is none.
    joins: whether the nodes can reach a head on this machine; else only what the launcher says is looked at. timeout_s: for
    one node to join.
    """

    kind = "node launcher"
    descriptor_type = spi.NodeLauncherDescriptor
    protocol = spi.NodeLauncher
    config: ClassVar[Mapping[str, Any]] = {}
    node_config: ClassVar[Mapping[str, Any]] = {}
    bad_node_config: ClassVar[Mapping[str, Any] | None] = {"no such key": 1}
    joins: ClassVar[bool] = True
    timeout_s: ClassVar[float] = 60.0

    @pytest.fixture(scope="class")
    @classmethod
    def head(cls) -> Iterator[cluster_utils.Cluster | None]:
        """A head that nodes join; None where they cannot."""
        if not cls.joins:
            yield None
            return
        cluster = cluster_utils.Cluster(initialize_head=True)
        try:
            yield cluster
        finally:
            cluster.shutdown()

    @pytest.fixture
    def make_launcher(self, head: cluster_utils.Cluster | None) -> Iterator[Callable[[], spi.NodeLauncher]]:
        """Launchers for one cluster, all of whose nodes are ended after the test."""
        cluster = f"conformance-{uuid.uuid4().hex[:8]}"
        address, token_file = ("127.0.0.1:1", "") if head is None else (str(head.address), head.token_file)
        made: list[spi.NodeLauncher] = []

        def make() -> spi.NodeLauncher:
            made.append(self.make(cluster, address=address, token_file=token_file, config=type(self).config))
            return made[-1]

        try:
            yield make
        finally:
            last = make()
            last.terminate(list(last.running()))
            for one in made:
                one.close()

    @pytest.fixture
    def launcher(self, make_launcher: Callable[[], spi.NodeLauncher]) -> spi.NodeLauncher:
        return make_launcher()

    def spec(self, name: str = "plain", **labels: str) -> spi.NodeSpec:
        return spi.NodeSpec(
            name, spi.ResourceSet.from_floats({"CPU": 1, "memory": MEMORY_BYTES}), labels, type(self).node_config
        )

    # launching

    def test_nothing_runs_that_was_not_launched(self, launcher: spi.NodeLauncher) -> None:
        assert dict(launcher.running()) == {}

    def test_what_was_launched_runs(self, launcher: spi.NodeLauncher) -> None:
        first = list(launcher.launch(self.spec(), 2))
        assert len(set(first)) == 2
        assert all(isinstance(one, str) and one for one in first)
        (third,) = launcher.launch(self.spec("labelled"), 1)
        assert dict(launcher.running()) == {first[0]: "plain", first[1]: "plain", third: "labelled"}

    def test_none_are_launched_if_none_are_asked_for(self, launcher: spi.NodeLauncher) -> None:
        assert list(launcher.launch(self.spec(), 0)) == []
        assert dict(launcher.running()) == {}

    def test_names_are_labels(self, launcher: spi.NodeLauncher) -> None:
        (name,) = launcher.launch(self.spec(), 1)
        assert node_labels.label_matches(name, name)

    def test_nodes_join_with_their_labels_and_resources(
        self, launcher: spi.NodeLauncher, head: cluster_utils.Cluster | None
    ) -> None:
        if head is None:
            pytest.skip("nodes of this launcher cannot reach a head here")
        names = launcher.launch(self.spec("labelled", zone="a"), 2)
        for node in self.joined(head, names).values():
            assert node["labels"][node_labels.NODE_GROUP] == "labelled"
            assert node["labels"]["zone"] == "a"
            assert node["resources"]["CPU"] == spi.RESOURCE_UNIT
            assert node["resources"]["memory"] == MEMORY_BYTES * spi.RESOURCE_UNIT

    def joined(self, head: cluster_utils.Cluster, names: Sequence[str]) -> dict[str, dict[str, Any]]:
        """What the head says of these nodes, once all of them are members."""

        def look() -> dict[str, dict[str, Any]] | None:
            members = _members(head)
            return members if set(names) <= members.keys() else None

        members = self.wait(look, f"{names} to join")
        return {name: members[name] for name in names}

    def wait(self, look: Callable[[], T | None], what: str) -> T:
        until_s = time.monotonic() + type(self).timeout_s
        while True:
            found = look()
            if found is not None:
                return found
            if time.monotonic() > until_s:
                pytest.fail(f"waited {type(self).timeout_s:g} s for {what}")
            select.select([], [], [], LOOK_S)

    def test_launches_at_the_same_time_make_different_nodes(self, launcher: spi.NodeLauncher) -> None:
        with futures.ThreadPoolExecutor(2) as pool:
            started = [pool.submit(launcher.launch, self.spec(name), 1) for name in TYPES]
            while not all(one.done() for one in started):
                assert set(launcher.running().values()) <= set(TYPES)
        names = [name for one in started for name in one.result()]
        assert dict(launcher.running()) == dict(zip(names, TYPES, strict=True))

    # ending

    def test_only_what_is_named_is_ended(self, launcher: spi.NodeLauncher, head: cluster_utils.Cluster | None) -> None:
        names = list(launcher.launch(self.spec(), 3))
        launcher.terminate(names[:2])
        assert dict(launcher.running()) == {names[2]: "plain"}
        if head is not None:
            self.wait(lambda: set(names) & _members(head).keys() == {names[2]} or None, "two of three to leave")

    def test_nodes_are_listed_while_others_are_ended(self, launcher: spi.NodeLauncher) -> None:
        names = list(launcher.launch(self.spec(), 2))
        with futures.ThreadPoolExecutor(1) as pool:
            ending = pool.submit(launcher.terminate, names[:1])
            while not ending.done():
                assert names[1] in launcher.running()
        ending.result()
        assert dict(launcher.running()) == {names[1]: "plain"}

    def test_what_is_gone_can_be_ended_again(self, launcher: spi.NodeLauncher) -> None:
        names = list(launcher.launch(self.spec(), 1))
        launcher.terminate(names)
        launcher.terminate([*names, "never-there"])
        launcher.terminate([])
        assert dict(launcher.running()) == {}

    def test_names_are_not_given_again(self, launcher: spi.NodeLauncher) -> None:
        first = list(launcher.launch(self.spec(), 1))
        launcher.terminate(first)
        assert set(launcher.launch(self.spec(), 1)).isdisjoint(first)

    # what others launched

    def test_another_launcher_of_the_cluster_goes_on(self, make_launcher: Callable[[], spi.NodeLauncher]) -> None:
        first = make_launcher()
        names = list(first.launch(self.spec(), 2))
        first.close()
        first.close()
        second = make_launcher()
        assert dict(second.running()) == dict.fromkeys(names, "plain")
        second.terminate(names[:1])
        assert dict(second.running()) == {names[1]: "plain"}

    def test_nodes_of_other_clusters_are_none_of_ours(
        self, launcher: spi.NodeLauncher, head: cluster_utils.Cluster | None
    ) -> None:
        names = launcher.launch(self.spec(), 1)
        address, token_file = ("127.0.0.1:1", "") if head is None else (str(head.address), head.token_file)
        other = self.make("conformance-other", address=address, token_file=token_file, config=type(self).config)
        assert dict(other.running()) == {}
        other.terminate(names)
        other.close()
        assert dict(launcher.running()) == {names[0]: "plain"}

    # what cannot be

    def test_a_bad_configuration_is_refused_before_anything_starts(self, launcher: spi.NodeLauncher) -> None:
        bad = type(self).bad_node_config
        launcher.check(self.spec())
        if bad is None:
            pytest.skip("every configuration will do")
        spec = spi.NodeSpec("plain", spi.ResourceSet.from_floats({"CPU": 1}), {}, bad)
        with pytest.raises(exceptions.InvalidOption):
            launcher.check(spec)
        assert dict(launcher.running()) == {}


def _members(head: cluster_utils.Cluster) -> dict[str, dict[str, Any]]:
    """Living nodes that have been launched, by what their launcher calls them."""
    if head.head_node is None:
        return {}
    with tool.Tool(head.head_node.session_dir) as asker:
        nodes = [one for one in asker.query("nodes") if one["alive"]]
    return {one["labels"][node_labels.INSTANCE_ID]: one for one in nodes if node_labels.INSTANCE_ID in one["labels"]}
