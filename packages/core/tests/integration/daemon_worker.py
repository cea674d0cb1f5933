"""A worker for the daemon's tests: does what the test tells it over its own socket, and reports what the agent says.

From the test: {"t": "say", "message"} goes to the agent with the frame's body; {"t": "print", "text", "error"};
{"t": "exit", "code"}; {"t": "stay", "on"} (refuse to exit); {"t": "write", "name", "size"} (a file in the store);
{"t": "about"}. To the test: {"t": "heard", "message"} with the body; {"t": "done", …} after every order.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import sys
from typing import Any

from umbel._transport import connection as transport
from umbel._wire import frames


def main(config: dict[str, Any]) -> None:
    if (config["env"] or {}).get("broken"):
        sys.exit("this environment is broken")
    _Worker(config).run()


class _Worker:
    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.listener = transport.listen_unix(config["address"])
        self.agent = transport.connect_unix(config["agent"])
        self.readers = {self.agent: frames.FrameReader()}
        self.tests: list[Any] = []
        self.heard: list[tuple[dict[str, Any], bytes]] = []
        self.is_staying = False
        hello = {
            "t": "hello",
            "kind": "worker",
            "id": config["id"],
            "pid": os.getpid(),
            "protocol": frames.PROTOCOL_VERSION,
        }
        self.agent.sendall(frames.encode_control(hello))

    def run(self) -> None:
        while True:
            ready, _, _ = select.select([self.listener, *self.readers], [], [])
            for sock in ready:
                if sock is self.listener:
                    test, _ = self.listener.accept()
                    test.setblocking(True)
                    self.readers[test] = frames.FrameReader()
                    self.tests.append(test)
                    for message, body in self.heard:
                        self.tell({"t": "heard", "message": message}, body)
                    continue
                try:
                    data = sock.recv(65_536)
                except ConnectionResetError:  # it closed its end without reading all
                    data = b""
                if not data and sock is self.agent:
                    os._exit(7)
                if not data:
                    del self.readers[sock]
                    self.tests.remove(sock)
                    continue
                for payload in self.readers[sock].feed(data):
                    message, body = frames.decode_control(payload)
                    if sock is self.agent:
                        self.on_agent(message, body)
                    else:
                        self.tell({"t": "done", **self.obey(message, body)})

    def tell(self, message: dict[str, Any], body: bytes = b"") -> None:
        for test in self.tests:
            with contextlib.suppress(OSError):  # it has closed its end
                test.sendall(frames.encode_control(message, body))

    def on_agent(self, message: dict[str, Any], body: bytes) -> None:
        self.heard.append((message, body))
        self.tell({"t": "heard", "message": message}, body)
        if message["t"] == "exit":
            if self.is_staying and message["idle"]:
                self.agent.sendall(frames.encode_control({"t": "busy_owner"}))
            else:
                sys.exit(0)

    def obey(self, order: dict[str, Any], body: bytes) -> dict[str, Any]:
        kind = order["t"]
        if kind == "say":
            self.agent.sendall(frames.encode_control(order["message"], body))
        elif kind == "print":
            print(order["text"], end="", flush=True, file=sys.stderr if order["error"] else sys.stdout)
        elif kind == "exit":
            os._exit(order["code"])
        elif kind == "stay":
            self.is_staying = order["on"]
        elif kind == "write":
            with open(os.path.join(self.config["store_dir"], order["name"]), "wb") as file:
                file.write(b"x" * order["size"])
        elif kind == "about":
            return {
                "environment": dict(os.environ),
                "config": self.config,
                "ignores_interrupt": signal.getsignal(signal.SIGINT) is signal.SIG_IGN,
                "random": random.random(),
                "prefix": sys.prefix,
                "parent": os.getppid(),
            }
        return {}
