"""What every plugin of a kind must do, as tests. Needs pytest.

Subclass a suite in a test module, name the class `Test...`, and give it the descriptor that your hook returns:

    from umbel.testing.conformance import SchedulerConformance

    class TestMyPolicy(SchedulerConformance):
        descriptor = my_plugin.umbel_schedulers()[0]

The built-in schedulers, stores, control storages, node launchers, accelerators, collectives, transports of tensors and fields of
`runtime_env` pass the same suites.
"""

import pytest

# Before they are imported: so that their assertions say what was compared, as a plugin's own tests do.
pytest.register_assert_rewrite(
    "umbel.testing.conformance.accelerators",
    "umbel.testing.conformance.collectives",
    "umbel.testing.conformance.control_storages",
    "umbel.testing.conformance.node_launchers",
    "umbel.testing.conformance.runtime_envs",
    "umbel.testing.conformance.schedulers",
    "umbel.testing.conformance.stores",
    "umbel.testing.conformance.tensor_transports",
)

from umbel.testing.conformance.accelerators import AcceleratorConformance as AcceleratorConformance  # noqa: E402
from umbel.testing.conformance.collectives import CollectiveConformance as CollectiveConformance  # noqa: E402
from umbel.testing.conformance.control_storages import (  # noqa: E402
    ControlStorageConformance as ControlStorageConformance,
)
from umbel.testing.conformance.node_launchers import NodeLauncherConformance as NodeLauncherConformance  # noqa: E402
from umbel.testing.conformance.runtime_envs import RuntimeEnvConformance as RuntimeEnvConformance  # noqa: E402
from umbel.testing.conformance.schedulers import SchedulerConformance as SchedulerConformance  # noqa: E402
from umbel.testing.conformance.stores import StoreConformance as StoreConformance  # noqa: E402
from umbel.testing.conformance.tensor_transports import (  # noqa: E402
    TensorTransportConformance as TensorTransportConformance,
)

__all__ = [
    "AcceleratorConformance",
    "CollectiveConformance",
    "ControlStorageConformance",
    "NodeLauncherConformance",
    "RuntimeEnvConformance",
    "SchedulerConformance",
    "StoreConformance",
    "TensorTransportConformance",
]
