"""Umbel: tasks, actors and objects, from a laptop to a cluster.

    import umbel

    @umbel.remote
    def square(x):
        return x * x

    print(umbel.get([square.remote(i) for i in range(4)]))
"""

from __future__ import annotations

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)

from umbel import exceptions as exceptions  # noqa: E402 - the path has to be extended before anything is imported
from umbel._client.actor import ActorClass as ActorClass  # noqa: E402
from umbel._client.actor import ActorHandle as ActorHandle  # noqa: E402
from umbel._client.actor import method as method  # noqa: E402
from umbel._client.api import available_resources as available_resources  # noqa: E402
from umbel._client.api import cancel as cancel  # noqa: E402
from umbel._client.api import cluster_resources as cluster_resources  # noqa: E402
from umbel._client.api import explain as explain  # noqa: E402
from umbel._client.api import get as get  # noqa: E402
from umbel._client.api import get_actor as get_actor  # noqa: E402
from umbel._client.api import get_gpu_ids as get_gpu_ids  # noqa: E402
from umbel._client.api import kill as kill  # noqa: E402
from umbel._client.api import nodes as nodes  # noqa: E402
from umbel._client.api import put as put  # noqa: E402
from umbel._client.api import timeline as timeline  # noqa: E402
from umbel._client.api import wait as wait  # noqa: E402
from umbel._client.modules import attribute as __getattr__  # noqa: E402, F401 - submodules on first use
from umbel._client.modules import install_finder  # noqa: E402
from umbel._client.refs import DynamicObjectRefGenerator as DynamicObjectRefGenerator  # noqa: E402
from umbel._client.refs import ObjectRef as ObjectRef  # noqa: E402
from umbel._client.refs import ObjectRefGenerator as ObjectRefGenerator  # noqa: E402
from umbel._client.remote import remote as remote  # noqa: E402
from umbel._client.session import get_runtime_context as get_runtime_context  # noqa: E402
from umbel._client.session import init as init  # noqa: E402
from umbel._client.session import is_initialized as is_initialized  # noqa: E402
from umbel._client.session import shutdown as shutdown  # noqa: E402
from umbel._model.ids import ActorClassID as ActorClassID  # noqa: E402
from umbel._model.ids import ActorID as ActorID  # noqa: E402
from umbel._model.ids import ClusterID as ClusterID  # noqa: E402
from umbel._model.ids import FunctionID as FunctionID  # noqa: E402
from umbel._model.ids import JobID as JobID  # noqa: E402
from umbel._model.ids import NodeID as NodeID  # noqa: E402
from umbel._model.ids import ObjectID as ObjectID  # noqa: E402
from umbel._model.ids import PlacementGroupID as PlacementGroupID  # noqa: E402
from umbel._model.ids import TaskID as TaskID  # noqa: E402
from umbel._model.ids import UniqueID as UniqueID  # noqa: E402
from umbel._model.ids import WorkerID as WorkerID  # noqa: E402

install_finder()

__all__ = [
    "ActorClass",
    "ActorClassID",
    "ActorHandle",
    "ActorID",
    "ClusterID",
    "DynamicObjectRefGenerator",
    "FunctionID",
    "JobID",
    "NodeID",
    "ObjectID",
    "ObjectRef",
    "ObjectRefGenerator",
    "PlacementGroupID",
    "TaskID",
    "UniqueID",
    "WorkerID",
    "available_resources",
    "cancel",
    "cluster_resources",
    "exceptions",
    "explain",
    "get",
    "get_actor",
    "get_gpu_ids",
    "get_runtime_context",
    "init",
    "is_initialized",
    "kill",
    "method",
    "nodes",
    "put",
    "remote",
    "shutdown",
    "timeline",
    "wait",
]
