"""An OpenSSH server for tests: Debian's, on loopback, with keys of its own, killed with the test that started it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import control_servers
import pytest

START_S = 30.0  # on a busy machine
HOSTS = [f"127.0.0.{number}" for number in range(1, 4)]  # all of them this machine
_PRIVILEGES = "/run/sshd"  # where the server wants to have a directory when it is root's


class SshServer:
    """options: as the launcher `ssh` takes them, to reach it."""

    def __init__(self, directory: Path, port: int) -> None:
        self.options = {
            "ssh_port": port,
            "ssh_private_key": str(directory / "key"),
            "ssh_options": [f"UserKnownHostsFile={directory / 'known_hosts'}", "GlobalKnownHostsFile=/dev/null"],
        }


@contextlib.contextmanager
def server(directory: Path) -> Iterator[SshServer]:
    """Skips where there is none."""
    sshd = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if sshd is None or shutil.which("ssh") is None or shutil.which("ssh-keygen") is None:
        pytest.skip("needs OpenSSH's server and client (Debian's openssh-server and openssh-client)")
    for name in ("key", "host_key"):
        make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(directory / name)]
        subprocess.run(make, check=True, timeout=60, stdin=subprocess.DEVNULL)
    shutil.copy(directory / "key.pub", directory / "authorized_keys")
    port = control_servers.free_port()
    kind, host_key, *_ = (directory / "host_key.pub").read_text().split()
    known = "".join(f"[{host}]:{port} {kind} {host_key}\n" for host in HOSTS)
    (directory / "known_hosts").write_text(known)
    listens = "".join(f"ListenAddress {host}\n" for host in HOSTS)
    (directory / "config").write_text(
        f"Port {port}\n{listens}HostKey {directory}/host_key\nPidFile none\nUsePAM no\nStrictModes no\n"
        f"AuthorizedKeysFile {directory}/authorized_keys\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n"
        "MaxStartups 100\nUseDNS no\n"
    )
    made_directory = os.geteuid() == 0 and not os.path.isdir(_PRIVILEGES)
    if made_directory:
        os.mkdir(_PRIVILEGES, 0o755)
    log = directory / "log"
    with log.open("wb") as output:
        command = [
            sys.executable,
            "-c",
            control_servers._DIE_WITH_PARENT,
            sshd,
            "-D",
            "-e",
            "-f",
            str(directory / "config"),
        ]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        until_s = time.monotonic() + START_S
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > until_s:
                pytest.fail(f"sshd does not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.02)  # nothing tells when a server listens
        yield SshServer(directory, port)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
        if made_directory:
            with contextlib.suppress(OSError):
                os.rmdir(_PRIVILEGES)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOSTS[-1], port)) == 0
