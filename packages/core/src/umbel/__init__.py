"""Umbel: tasks, actors and objects, from a laptop to a cluster.

import umbel

@umbel.remote
def square(x):
    return x * x

print(umbel.get([square.remote(i) for i in range(4)]))
"""

from __future__ import annotations

from pkgutil import extend_path
from typing import TYPE_CHECKING

__path__ = extend_path(__path__, __name__)

from umbel import exceptions as exceptions
from umbel._client.actor import ActorClass as ActorClass
from umbel._client.actor import ActorHandle as ActorHandle
from umbel._client.actor import method as method
from umbel._client.api import available_resources as available_resources
from umbel._client.api import cancel as cancel
from umbel._client.api import cluster_resources as cluster_resources
from umbel._client.api import explain as explain
from umbel._client.api import get as get
from umbel._client.api import get_actor as get_actor
from umbel._client.api import get_gpu_ids as get_gpu_ids
from umbel._client.api import kill as kill
from umbel._client.api import nodes as nodes
from umbel._client.api import put as put
from umbel._client.api import timeline as timeline
from umbel._client.api import wait as wait
from umbel._client.modules import attribute as __getattr__  # noqa: F401 - submodules on first use
from umbel._client.modules import install_finder
from umbel._client.refs import DynamicObjectRefGenerator as DynamicObjectRefGenerator
from umbel._client.refs import ObjectRef as ObjectID  # the same, as in Ray
from umbel._client.refs import ObjectRef as ObjectRef
from umbel._client.refs import ObjectRefGenerator as ObjectRefGenerator
from umbel._client.remote import remote as remote
from umbel._client.session import get_runtime_context as get_runtime_context
from umbel._client.session import init as init
from umbel._client.session import is_initialized as is_initialized
from umbel._client.session import shutdown as shutdown
from umbel._model.ids import ActorClassID as ActorClassID
from umbel._model.ids import ActorID as ActorID
from umbel._model.ids import ClusterID as ClusterID
from umbel._model.ids import FunctionID as FunctionID
from umbel._model.ids import JobID as JobID
from umbel._model.ids import NodeID as NodeID
from umbel._model.ids import PlacementGroupID as PlacementGroupID
from umbel._model.ids import TaskID as TaskID
from umbel._model.ids import UniqueID as UniqueID
from umbel._model.ids import WorkerID as WorkerID

if TYPE_CHECKING:
    from umbel._client.logging_config import LoggingConfig as LoggingConfig

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
    "LoggingConfig",
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
