"""Tools on top of the public interface: pools, queues, iteration helpers, serializers.

`umbel.util.collective`, `umbel.util.queue`, `umbel.util.multiprocessing`, `umbel.util.joblib`, `umbel.util.metrics` and
`umbel.util.scheduling_strategies` are modules of their own, loaded at their first use.
"""

from umbel._client import modules as _modules
from umbel.util.actor_pool import ActorPool as ActorPool
from umbel.util.check_serialize import inspect_serializability as inspect_serializability
from umbel.util.completion import as_completed as as_completed
from umbel.util.completion import map_unordered as map_unordered
from umbel.util.completion import wait_beside as wait_beside
from umbel.util.debug import disable_log_once_globally as disable_log_once_globally
from umbel.util.debug import enable_periodic_logging as enable_periodic_logging
from umbel.util.debug import log_once as log_once
from umbel.util.named_actors import list_named_actors as list_named_actors
from umbel.util.node_address import get_node_instance_id as get_node_instance_id
from umbel.util.node_address import get_node_ip_address as get_node_ip_address
from umbel.util.placement_group import get_current_placement_group as get_current_placement_group
from umbel.util.placement_group import get_placement_group as get_placement_group
from umbel.util.placement_group import placement_group as placement_group
from umbel.util.placement_group import placement_group_table as placement_group_table
from umbel.util.placement_group import remove_placement_group as remove_placement_group
from umbel.util.serialization import deregister_serializer as deregister_serializer
from umbel.util.serialization import register_serializer as register_serializer

__getattr__ = _modules.attributes_of(__name__, _modules.LAZY_UTIL)  # submodules on first use, and what is missing

__all__ = [
    "ActorPool",
    "as_completed",
    "deregister_serializer",
    "disable_log_once_globally",
    "enable_periodic_logging",
    "get_current_placement_group",
    "get_node_instance_id",
    "get_node_ip_address",
    "get_placement_group",
    "inspect_serializability",
    "list_named_actors",
    "log_once",
    "map_unordered",
    "placement_group",
    "placement_group_table",
    "register_serializer",
    "remove_placement_group",
    "wait_beside",
]
