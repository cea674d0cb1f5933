"""Groups of actors, tasks and the driver that reduce, broadcast, gather and exchange tensors.

Every rank calls the same operation with a tensor of the same shape and type. A rank that dies, does not come, or calls
something else is an error at every other rank, never a hang. Backends are plugins (docs/plugins/collectives.md); `shm` is
the default.
"""

from umbel.util.collective.multiple_devices import allgather_multigpu as allgather_multigpu
from umbel.util.collective.multiple_devices import allreduce_multigpu as allreduce_multigpu
from umbel.util.collective.multiple_devices import broadcast_multigpu as broadcast_multigpu
from umbel.util.collective.multiple_devices import recv_multigpu as recv_multigpu
from umbel.util.collective.multiple_devices import reduce_multigpu as reduce_multigpu
from umbel.util.collective.multiple_devices import reducescatter_multigpu as reducescatter_multigpu
from umbel.util.collective.multiple_devices import send_multigpu as send_multigpu
from umbel.util.collective.operations import allgather as allgather
from umbel.util.collective.operations import allreduce as allreduce
from umbel.util.collective.operations import barrier as barrier
from umbel.util.collective.operations import broadcast as broadcast
from umbel.util.collective.operations import create_collective_group as create_collective_group
from umbel.util.collective.operations import destroy_collective_group as destroy_collective_group
from umbel.util.collective.operations import get_collective_group_size as get_collective_group_size
from umbel.util.collective.operations import get_group_handle as get_group_handle
from umbel.util.collective.operations import get_rank as get_rank
from umbel.util.collective.operations import gloo_available as gloo_available
from umbel.util.collective.operations import init_collective_group as init_collective_group
from umbel.util.collective.operations import is_backend_available as is_backend_available
from umbel.util.collective.operations import is_group_initialized as is_group_initialized
from umbel.util.collective.operations import nccl_available as nccl_available
from umbel.util.collective.operations import recv as recv
from umbel.util.collective.operations import reduce as reduce
from umbel.util.collective.operations import reducescatter as reducescatter
from umbel.util.collective.operations import register_collective_backend as register_collective_backend
from umbel.util.collective.operations import send as send
from umbel.util.collective.types import Backend as Backend
from umbel.util.collective.types import ReduceOp as ReduceOp

__all__ = [
    "Backend",
    "ReduceOp",
    "allgather",
    "allgather_multigpu",
    "allreduce",
    "allreduce_multigpu",
    "barrier",
    "broadcast",
    "broadcast_multigpu",
    "create_collective_group",
    "destroy_collective_group",
    "get_collective_group_size",
    "get_group_handle",
    "get_rank",
    "gloo_available",
    "init_collective_group",
    "is_backend_available",
    "is_group_initialized",
    "nccl_available",
    "recv",
    "recv_multigpu",
    "reduce",
    "reduce_multigpu",
    "reducescatter",
    "reducescatter_multigpu",
    "register_collective_backend",
    "send",
    "send_multigpu",
]
