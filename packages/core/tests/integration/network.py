"""Machines that are one here but for their networks: each in a network namespace of its own, all on one bridge.

The namespaces belong to processes that end when the test does, even by `kill -9`, and all that is in them goes with them: nothing
has a name, and nothing is made in the network of this machine. Needs Debian's iproute2, iptables and util-linux, and the right to
make namespaces: root's, or that of making user namespaces. A test that meets what is not there is skipped.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import subprocess
from collections.abc import Collection

import pytest

TIMEOUT_S = 60
PREFIX = "10.77.0."  # of addresses; nobody outside sees them
BEHIND_NAT = "192.168.77.2"  # of every host that is behind a router of its own, as at most homes it is the same
ROUTER = "192.168.77.1"


class NotPermitted(pytest.skip.Exception):
    """There can be no such networks here; the reason."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"networks cannot be made here: {reason}")


OWN_MEMORY = "mount -t tmpfs tmpfs /dev/shm"


class _Namespace:
    """A network of its own, as long as this lives. unshare: the command that makes it, and runs another one there. first: what is
    done there before."""

    def __init__(self, unshare: list[str], first: str = "true") -> None:
        said = f"{first} && echo there && exec cat"  # until its input ends, which is when this process does
        self._process = subprocess.Popen(
            [*unshare, "sh", "-c", said],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        is_there = bool(select.select([self._process.stdout], [], [], TIMEOUT_S)[0]) and self._process.stdout.readline()
        if not is_there:
            self._process.kill()
            raise NotPermitted(self._process.communicate()[1].strip() or "unshare does not answer")
        self.pid = self._process.pid

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


class Network:
    """A bridge, and hosts with one cable each. hosts: how many; behind_nat: those of them that have a router in between, which
    lets them dial others under its own address, and nobody dial them; own_memory: whether they share no memory either."""

    def __init__(self, hosts: int, behind_nat: Collection[int] = (), *, own_memory: bool = False) -> None:
        """Raises NotPermitted."""
        self._own_memory = own_memory
        self._programs = {
            name: _found(name) for name in ("ip", "unshare", "nsenter", *(["iptables"] if behind_nat else []))
        }
        self._behind_nat = behind_nat
        self._is_root = os.geteuid() == 0
        user = [] if self._is_root else ["--map-root-user"]
        self._spaces = [_Namespace([self._programs["unshare"], "--net", *user])]
        self._hosts: list[_Namespace] = []
        try:
            self._on_bridge("link", "add", "br0", "type", "bridge")
            self._on_bridge("link", "set", "br0", "up")
            for number in range(hosts):
                self._add_host(number)
        except BaseException:
            self.close()
            raise

    def address(self, host: int) -> str:
        """At which it knows itself, and others reach it unless it is behind NAT."""
        return BEHIND_NAT if host in self._behind_nat else self.outer_address(host)

    def outer_address(self, host: int) -> str:
        return f"{PREFIX}{host + 1}"

    def prefix(self, host: int) -> list[str]:
        """Of commands that run on a host."""
        memory = ["--mount", "--wd"] if self._own_memory else []
        return [*self._inside(self._hosts[host].pid), *memory]

    def refuse_dials(self, host: int) -> None:
        """Whoever dials that host hears nothing, as behind many firewalls; what is connected goes on."""
        drop = ["-A", "INPUT", "-i", "eth0", "-p", "tcp", "--syn", "-j", "DROP"]
        _run(*self.prefix(host), _found("iptables"), *drop)

    def part(self, one: int, other: int) -> None:
        """What these two send each other is lost on its way, from now on; everybody else hears both."""
        for host, unheard in ((one, other), (other, one)):
            _run(*self.prefix(host), _found("iptables"), "-A", "INPUT", "-s", self.address(unheard), "-j", "DROP")

    def join(self, one: int, other: int) -> None:
        """They hear each other again."""
        for host, unheard in ((one, other), (other, one)):
            _run(*self.prefix(host), _found("iptables"), "-D", "INPUT", "-s", self.address(unheard), "-j", "DROP")

    def unplug(self, host: int) -> None:
        self._on_bridge("link", "set", f"host{host}", "down")

    def plug(self, host: int) -> None:
        self._on_bridge("link", "set", f"host{host}", "up")

    def slow_down(self, host: int, delay_ms: int) -> bool:
        """Whatever goes to that host comes later; False where the kernel cannot."""
        with contextlib.suppress(NotPermitted):
            delay = ["qdisc", "add", "dev", f"host{host}", "root", "netem", "delay", f"{delay_ms}ms"]
            _run(*self._inside(self._spaces[0].pid), _found("tc"), *delay)
            return True
        return False

    def close(self) -> None:
        for space in reversed(self._spaces):
            space.close()

    def _add_host(self, number: int) -> None:
        outer = self._add_space()
        name = f"host{number}"
        self._on_bridge("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", str(outer.pid))
        self._on_bridge("link", "set", name, "master", "br0", "up")
        self._set_up(outer, self.outer_address(number))
        self._hosts.append(self._add_behind(outer) if number in self._behind_nat else outer)

    def _add_behind(self, router: _Namespace) -> _Namespace:
        """A host whose cable goes to that one, which is its router."""
        host, there = self._add_space(), self._inside(router.pid)
        ip = [*there, self._programs["ip"]]
        _run(*ip, "link", "add", "inner", "type", "veth", "peer", "name", "eth0", "netns", str(host.pid))
        _run(*ip, "address", "add", f"{ROUTER}/24", "dev", "inner")
        _run(*ip, "link", "set", "inner", "up")
        self._set_up(host, BEHIND_NAT)
        _run(*self._inside(host.pid), self._programs["ip"], "route", "add", "default", "via", ROUTER)
        _run(*there, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        iptables = [*there, self._programs["iptables"]]
        _run(*iptables, "-t", "nat", "-A", "POSTROUTING", "-o", "eth0", "-j", "MASQUERADE")
        return host

    def _add_space(self) -> _Namespace:
        unshare = [*self._inside(self._spaces[0].pid), self._programs["unshare"], "--net"]
        space = _Namespace([*unshare, "--mount"], OWN_MEMORY) if self._own_memory else _Namespace(unshare)
        self._spaces.append(space)
        return space

    def _set_up(self, space: _Namespace, address: str) -> None:
        there = [*self._inside(space.pid), self._programs["ip"]]
        _run(*there, "link", "set", "lo", "up")
        _run(*there, "address", "add", f"{address}/24", "dev", "eth0")
        _run(*there, "link", "set", "eth0", "up")

    def _inside(self, pid: int) -> list[str]:
        user = [] if self._is_root else ["--user", "--preserve-credentials"]
        return [self._programs["nsenter"], "--target", str(pid), *user, "--net"]

    def _on_bridge(self, *command: str) -> None:
        _run(*self._inside(self._spaces[0].pid), self._programs["ip"], *command)


def _run(*command: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=TIMEOUT_S)
    if done.returncode:
        raise NotPermitted(f"{' '.join(command)}: {done.stderr.strip()}")


def _found(name: str) -> str:
    path = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if path is None:
        raise NotPermitted(f"there is no `{name}`")
    return path
