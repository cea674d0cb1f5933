"""What comes with Umbel, offered through the same hooks as everybody else's.

Its modules are above this one, so it names them by strings, as a plugin should: nothing is imported until chosen.
"""

from __future__ import annotations

from umbel import spi
from umbel._plugins import discovery
from umbel.hookspecs import hookimpl

# Registered by name, so that it also works where Umbel runs from a directory without installed metadata. The version is
# Umbel's own, which takes longer to read from the metadata than everything else here; `umbel plugins list` does.
FOUND = discovery.FoundPlugin(
    name="builtin", target="umbel._plugins.builtin", distribution=discovery.BUILTIN_DISTRIBUTION, version="built in"
)


@hookimpl
def umbel_engines() -> list[spi.EngineDescriptor]:
    return [
        spi.EngineDescriptor(
            "native", "umbel._client.start:start", summary="worker processes on this machine; the default"
        ),
        spi.EngineDescriptor(
            "inline", "umbel._client.inline:InlineEngine", summary="everything in the calling process, for debugging"
        ),
    ]


@hookimpl
def umbel_schedulers() -> list[spi.SchedulerDescriptor]:
    return [
        spi.SchedulerDescriptor(
            "hybrid", "umbel._scheduling.policies:HybridPolicy", summary="pack to half full, then spread; the default"
        ),
        spi.SchedulerDescriptor(
            "spread", "umbel._scheduling.policies:SpreadPolicy", summary="the emptiest node for everything"
        ),
    ]


@hookimpl
def umbel_stores() -> list[spi.StoreDescriptor]:
    return [spi.StoreDescriptor("shm", "umbel._objects.store:SharedMemoryStore", summary="shared memory; the default")]


@hookimpl
def umbel_control_storages() -> list[spi.ControlStorageDescriptor]:
    below = "umbel._control.storage"
    redis, etcd = f"{below}.in_redis:RedisStorage", f"{below}.in_etcd:EtcdStorage"
    return [
        spi.ControlStorageDescriptor("sqlite", f"{below}.in_sqlite:SqliteStorage", summary="a file; the default"),
        spi.ControlStorageDescriptor("redis", redis, summary="Redis"),
        spi.ControlStorageDescriptor("rediss", redis, summary="Redis, by TLS"),
        spi.ControlStorageDescriptor("etcd", etcd, summary="etcd"),
        spi.ControlStorageDescriptor("etcds", etcd, summary="etcd, by TLS"),
    ]


@hookimpl
def umbel_node_launchers() -> list[spi.NodeLauncherDescriptor]:
    return [
        spi.NodeLauncherDescriptor(
            "local", "umbel._client.local_launcher:LocalLauncher", summary="daemons on this machine, one for each node"
        ),
        spi.NodeLauncherDescriptor(
            "ssh", "umbel._client.ssh_launcher:SshLauncher", summary="a list of machines, by the system's ssh"
        ),
    ]


@hookimpl
def umbel_accelerators() -> list[spi.AcceleratorDescriptor]:
    return [spi.AcceleratorDescriptor("nvidia", "umbel._plugins.nvidia:NvidiaManager", summary="NVIDIA GPUs")]


@hookimpl
def umbel_collectives() -> list[spi.CollectiveDescriptor]:
    return [
        spi.CollectiveDescriptor(
            "shm",
            "umbel.util.collective.shared_memory:group_of",
            summary="shared memory, between machines the connections for calls; the default",
        ),
        spi.CollectiveDescriptor("gloo", "umbel.util.collective.gloo:GlooGroup", summary="Gloo, as PyTorch has it"),
    ]


@hookimpl
def umbel_tensor_transports() -> list[spi.TensorTransportDescriptor]:
    return [
        spi.TensorTransportDescriptor(
            "shm", "umbel._client.tensors.shared_memory:SharedMemoryTransport", summary="shared memory of one machine"
        ),
        spi.TensorTransportDescriptor(
            "gloo", "umbel._client.tensors.gloo:GlooTransport", summary="Gloo, as PyTorch has it"
        ),
    ]


@hookimpl
def umbel_runtime_envs() -> list[spi.RuntimeEnvDescriptor]:
    below = "umbel._environments"
    return [
        spi.RuntimeEnvDescriptor("working_dir", f"{below}.directories:WorkingDir", summary="where workers start"),
        spi.RuntimeEnvDescriptor("py_modules", f"{below}.directories:PyModules", summary="what they can import"),
        spi.RuntimeEnvDescriptor("pip", f"{below}.requirements:Pip", summary="packages, as for pip"),
        spi.RuntimeEnvDescriptor("uv", f"{below}.requirements:Uv", summary="packages, as for uv"),
        spi.RuntimeEnvDescriptor("py_executable", f"{below}.interpreters:PyExecutable", summary="another Python"),
        spi.RuntimeEnvDescriptor("container", f"{below}.containers:Container", summary="an image, with options"),
        spi.RuntimeEnvDescriptor("image_uri", f"{below}.containers:ImageUri", summary="an image"),
    ]


@hookimpl
def umbel_commands() -> list[spi.CommandDescriptor]:
    return [
        spi.CommandDescriptor("down", "umbel.cli.up:make_down", summary="End a cluster that `umbel up` has started"),
        spi.CommandDescriptor("drain-node", "umbel.cli.drain:make", summary="Have a node take no more work, and end"),
        spi.CommandDescriptor("exec", "umbel.cli.hosts:make_exec", summary="Run a command where a cluster's head is"),
        spi.CommandDescriptor("explain", "umbel.cli.explain:make", summary="Why something waits, and what would help"),
        spi.CommandDescriptor("get", "umbel.cli.listing:make_get", summary="All that is known of one task, actor, ..."),
        spi.CommandDescriptor("get-head-ip", "umbel.cli.hosts:make_head_ip", summary="Where a cluster's head is"),
        spi.CommandDescriptor("get-worker-ips", "umbel.cli.hosts:make_worker_ips", summary="Where its other nodes are"),
        spi.CommandDescriptor(
            "health-check", "umbel.cli.cluster:make_health_check", summary="Whether a cluster is alive, as an exit code"
        ),
        spi.CommandDescriptor("kill-actor", "umbel.cli.kill_actor:make", summary="End a named actor"),
        spi.CommandDescriptor("list", "umbel.cli.listing:make_list", summary="Tasks, actors, objects, workers, ..."),
        spi.CommandDescriptor("logs", "umbel.cli.logs:make", summary="What workers have printed"),
        spi.CommandDescriptor("memory", "umbel.cli.memory:make", summary="Who holds what in a session's memory"),
        spi.CommandDescriptor(
            "metrics", "umbel.cli.metrics:make", summary="What a session measures, and a board of it"
        ),
        spi.CommandDescriptor("plugins", "umbel.cli.plugins:make", summary="What plugins are installed"),
        spi.CommandDescriptor("sessions", "umbel.cli.sessions:make", summary="Nodes that run on this machine"),
        spi.CommandDescriptor("stack", "umbel.cli.stack:make", summary="What workers run, and where they stand"),
        spi.CommandDescriptor("start", "umbel.cli.cluster:make_start", summary="Start a node that programs share"),
        spi.CommandDescriptor("status", "umbel.cli.cluster:make_status", summary="What a node has and does"),
        spi.CommandDescriptor("stop", "umbel.cli.cluster:make_stop", summary="End such a node"),
        spi.CommandDescriptor("summary", "umbel.cli.listing:make_summary", summary="How many tasks, actors, objects"),
        spi.CommandDescriptor("timeline", "umbel.cli.timeline:make", summary="What ran when, as a file for Perfetto"),
        spi.CommandDescriptor("tls", "umbel.cli.tls:make_tls", summary="Certificates for a cluster that talks by TLS"),
        spi.CommandDescriptor(
            "token", "umbel.cli.cluster:make_token", summary="A role's token for a node that listens"
        ),
        spi.CommandDescriptor("up", "umbel.cli.up:make", summary="Start a cluster that launches its nodes"),
    ]
