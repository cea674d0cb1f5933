"""What must hold of the wheels of this repository.

    python tools/check_wheels.py WHEEL ...

No two wheels ship the same file; only `umbel` ships umbel/__init__.py and the typing marker; every wheel carries its
licence, states the same version and ships nothing but its package; entry points name modules that are there. Prints
each violation; the exit status is 1 if there is one.
"""

from __future__ import annotations

import configparser
import email
import sys
import zipfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

CORE = "umbel"
CORE_ONLY = ("umbel/__init__.py", "umbel/py.typed")
NEVER = {".pyc", ".so", ".orig", ".rej"}  # built, or left over


@dataclass(frozen=True)
class Wheel:
    path: Path
    distribution: str
    version: str
    files: frozenset[str]
    """Everything but the .dist-info folder."""
    has_licence: bool
    entry_points: tuple[str, ...]
    """What they name, as `module` or `module:attribute`."""


def read(path: Path) -> Wheel:
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        about = {name.split("/", 1)[1]: name for name in names if name.split("/", 1)[0].endswith(".dist-info")}
        metadata = email.message_from_bytes(archive.read(about["METADATA"]))
        points = configparser.ConfigParser(delimiters=("=",))
        if "entry_points.txt" in about:
            points.read_string(archive.read(about["entry_points.txt"]).decode())
    return Wheel(
        path=path,
        distribution=metadata["Name"],
        version=metadata["Version"],
        files=frozenset(names) - frozenset(about.values()),
        has_licence=any(name.startswith("licenses/") for name in about),
        entry_points=tuple(target for section in points.sections() for _, target in points.items(section)),
    )


def _is_there(module: str, files: set[str]) -> bool:
    path = module.replace(".", "/")
    return f"{path}.py" in files or f"{path}/__init__.py" in files


def violations(wheels: list[Wheel]) -> list[str]:
    found: list[str] = []
    owners: dict[str, list[str]] = defaultdict(list)
    for wheel in wheels:
        for name in wheel.files:
            owners[name].append(wheel.distribution)
    found += [
        f"{name} is in {' and '.join(sorted(of))}; one of them must not ship it"
        for name, of in owners.items()
        if len(of) > 1
    ]
    for name in CORE_ONLY:
        found += [f"{other} ships {name}; only {CORE} may" for other in owners[name] if other != CORE]
    versions = {wheel.version for wheel in wheels}
    if len(versions) > 1:
        found.append(f"the wheels state several versions: {', '.join(sorted(versions))}; all distributions share one")
    for wheel in wheels:
        found += _violations_of_one(wheel, set(owners))
    return sorted(found)


def _violations_of_one(wheel: Wheel, everything: set[str]) -> list[str]:
    found: list[str] = []
    if wheel.distribution == CORE:
        found += [f"{wheel.path.name} lacks {name}" for name in CORE_ONLY if name not in wheel.files]
    if not wheel.has_licence:
        found.append(f"{wheel.path.name} lacks its licence; name it in license-files")
    for name in wheel.files:
        parts = PurePosixPath(name)
        if not parts.parts[0].startswith("umbel"):
            found.append(
                f"{wheel.path.name} ships {name} outside umbel; a stray top-level name clashes with other projects"
            )
        if parts.suffix in NEVER or "tests" in parts.parts:
            found.append(f"{wheel.path.name} ships {name}, which belongs to no user")
    for target in wheel.entry_points:
        module = target.split(":")[0].strip()
        if not _is_there(module, everything):
            found.append(f"{wheel.path.name} has an entry point to {module}, which no wheel ships")
    return found


def main(arguments: list[str]) -> int:
    if not arguments:
        print(__doc__)
        return 2
    wheels = [read(Path(argument)) for argument in arguments]
    found = violations(wheels)
    for line in found:
        print(line)
    if not found:
        counts = ", ".join(f"{wheel.distribution} {wheel.version} ({len(wheel.files)} files)" for wheel in wheels)
        print(f"wheels are right: {counts}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
