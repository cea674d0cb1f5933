"""What Ray's programs say of nodes of a cluster, and ask of them."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator

import drivers
import homes
import pytest

import umbel
from umbel import cluster_utils
from umbel.util import get_node_instance_id
from umbel.util.state import list_nodes

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are found through /proc"),
    pytest.mark.timeout(120),
]

TIMEOUT_S = 60
STORE = {"object_store_memory": 80 << 20}


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with homes.own_home(UMBEL_AUTOSCALER_PERIOD_S="0.2") as directory:
        monkeypatch.setenv("HOME", directory)
        yield directory
        assert homes.is_empty(directory)


def test_nodes_have_what_they_are_started_with() -> None:
    with pytest.warns(UserWarning, match=r"add_node\(\) ignores _system_config, temp_dir: Umbel has no such setting"):
        cluster = cluster_utils.Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 1, "node_name": "first", "_system_config": {"a": 1}, "temp_dir": "/x"},
        )
    try:
        assert cluster.head_node is not None
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            node = cluster.add_node(
                memory=1 << 30,
                node_name="second",
                env_vars={"WHERE": "there"},
                include_dashboard=False,
                resources={"b": 1},
            )
        cluster.connect()
        head = cluster.head_node
        assert cluster.redis_address == cluster.gcs_address == node.gcs_address == head.gcs_address == head.address
        assert cluster.webui_url is None
        assert os.path.exists(node.raylet_socket_name)
        assert node.get_session_dir_path() == node.session_dir
        told = {one["NodeID"]: (one["NodeName"], one["Resources"]["memory"]) for one in umbel.nodes()}
        assert told[node.node_id] == ("second", float(1 << 30))
        assert told[head.node_id][0] == "first"
        assert {one.node_name for one in list_nodes()} == {"first", "second"}

        @umbel.remote(resources={"b": 1})
        def there() -> tuple[str | None, str, str]:
            return os.environ.get("WHERE"), umbel.get_runtime_context().gcs_address, get_node_instance_id()

        assert umbel.get(there.remote(), timeout=TIMEOUT_S) == ("there", head.address, "")
        assert umbel.get_runtime_context().gcs_address == head.address
        assert "WHERE" not in os.environ
        umbel.shutdown()
        with pytest.raises(ValueError, match=r"^_node_name: this belongs to the node that starts"):
            umbel.init(address=head.address, _node_name="third")
        with pytest.warns(UserWarning, match="ignores _memory: it is the running node's"):
            umbel.init(address=head.address, _memory=1 << 30)
    finally:
        cluster.shutdown()


def test_what_nobody_knows_is_refused() -> None:
    with pytest.raises(TypeError, match=r"add_node\(\) has no arguments \['num_cpu'\]"):
        cluster_utils.Cluster().add_node(num_cpu=1)
    with pytest.raises(TypeError, match="memory must be a whole number of bytes, got '1'"):
        cluster_utils.Cluster().add_node(memory="1")
    with pytest.raises(ValueError, match="name any node of the cluster that listens, as umbel://h:10001"):
        umbel.init(address="ray://h:10001")


def test_a_cluster_that_scales_itself_is_up_between_start_and_shutdown() -> None:
    small = {"resources": {"CPU": 1, "small": 1, **STORE}, "min_workers": 0, "max_workers": 1, "node_config": {}}
    cluster = cluster_utils.AutoscalingCluster({"CPU": 0, **STORE}, {"small": small}, idle_timeout_minutes=1)
    cluster.start(override_env={"WHERE": "head"})
    try:
        umbel.init("auto")
        assert umbel.get_runtime_context().gcs_address == cluster.address

        @umbel.remote(resources={"small": 1})
        def there() -> str:
            return get_node_instance_id()

        (node,) = {umbel.get(there.remote(), timeout=TIMEOUT_S)}
        assert node.startswith("local-")
        assert [one["Alive"] for one in umbel.nodes()] == [True, True]
    finally:
        cluster.shutdown()
    assert not umbel.is_initialized()
    cluster.shutdown()
    drivers.wait_until(lambda: homes.is_empty(os.environ["TMPDIR"]), what="nothing to be left")
