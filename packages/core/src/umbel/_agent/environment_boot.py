"""Where the fork server of an environment begins that runs in another interpreter.

`python environment_boot.py FILE` where that interpreter has the driver's packages, `python -m umbel._agent.environment_boot
FILE` where it has its own; not every command that runs Python takes `-c`. FILE is its configuration, as JSON. Nothing of Umbel
but this is imported before `sys.path` is as it must be.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def main(config: dict[str, Any]) -> None:
    """Serve until the agent is gone; never returns."""
    import os
    import socket

    if list(sys.version_info[:2]) != config["python"]:
        wanted = ".".join(map(str, config["python"]))
        sys.exit(f"this environment has Python {sys.version.split()[0]}, but the driver has {wanted}; use the same")
    if config["sys_path"] is not None:
        sys.path[:] = config["sys_path"]
    else:
        sys.path[:] = list(dict.fromkeys([*config["import_paths"], *sys.path, *config["program_paths"]]))
        if config["umbel_version"]:
            _check_version(config["umbel_version"])
    from umbel._agent import forkserver
    from umbel._base import variables

    os.environ.update(config["env_vars"])
    # The job's variables are here for the command that runs this interpreter. They are put anew below, over what it has set.
    unchanged = {name for name, text in config["put_env"].items() if os.environ.get(name) == text}
    variables.put_back({name: text for name, text in config["replaced_env"].items() if name in unchanged})
    for fd in config["locks"]:
        os.set_inheritable(fd, False)
    if config["control_path"]:
        control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        control.connect(config["control_path"])
    else:
        os.set_inheritable(config["control"], False)
        control = socket.socket(fileno=config["control"])
    forkserver.run(control, config)


def _check_version(wanted: str) -> None:
    from importlib import metadata

    try:
        found = metadata.version("umbel")
    except metadata.PackageNotFoundError:
        found = "none"
    if found != wanted:
        sys.exit(f"this environment needs umbel {wanted}, as the driver has, and has {found}; install it there")


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        config = json.load(file)
    has_entry = not (sys.flags.isolated or getattr(sys.flags, "safe_path", False))
    if has_entry and not config["control_path"]:
        del sys.path[0]  # this file's directory, or the current one: which are the program's, it says itself
    main(config)
