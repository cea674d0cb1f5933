"""What tests of runtime environments install: made here, so that nothing comes from a network."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
import venv
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest


def wheel(
    directory: Path,
    name: str = "tinything",
    version: str = "1.0",
    body: str = "VALUE = 1\n",
    *,
    requires: str = "",
    scripts: Mapping[str, str] | None = None,
) -> str:
    """A wheel with one module; its path. requires: another distribution. scripts: programs, by name."""
    path = directory / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    needs = f"Requires-Dist: {requires}\n" if requires else ""
    files = {
        f"{name}.py": body,
        **{f"{name}-{version}.data/scripts/{script}": text for script, text in (scripts or {}).items()},
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for place, text in files.items():
            entry = zipfile.ZipInfo(place)
            entry.external_attr = (0o100755 if "/scripts/" in place else 0o100644) << 16
            archive.writestr(entry, text)
        archive.writestr(f"{info}/RECORD", "".join(f"{place},,\n" for place in (*files, f"{info}/RECORD")))
    return str(path)


def project_that_hangs(directory: Path) -> str:
    """A project whose build, in a process that the installer starts, writes its pid into `building` and never ends."""
    root = directory / "hanging"
    root.mkdir()
    (root / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "hanging"\nversion = "1"\n'
    )
    (root / "backend.py").write_text(
        textwrap.dedent(
            f"""
            import os, signal

            def hang(*_args, **_options):
                with open({str(directory / "building.new")!r}, "w") as file:
                    file.write(str(os.getpid()))
                os.rename({str(directory / "building.new")!r}, {str(directory / "building")!r})
                signal.pause()

            get_requires_for_build_wheel = prepare_metadata_for_build_wheel = build_wheel = hang
            """
        )
    )
    return str(root)


def project_that_counts(directory: Path) -> str:
    """A project with one module, each build of which adds a line to `builds`."""
    root = directory / "counted"
    root.mkdir()
    made = wheel(directory, "counted", "1.0", "VALUE = 16\n")
    (root / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    (root / "backend.py").write_text(
        textwrap.dedent(
            f"""
            import os, shutil

            def build_wheel(directory, *_args):
                with open({str(directory / "builds")!r}, "a") as file:
                    file.write("one\\n")
                shutil.copy({made!r}, directory)
                return os.path.basename({made!r})
            """
        )
    )
    return str(root)


def uv() -> str:
    """The path of uv; skips the test where there is none."""
    found = shutil.which("uv", path=os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]]))
    if found is None:
        pytest.skip("needs uv")
    return found


def uv_project(directory: Path, requirement: str, wheel: str) -> tuple[Path, Path]:
    """A project of uv's that requires what is in `wheel`, and an environment for it that has the packages of this one
    behind its own, so that nothing comes from a network."""
    root = directory / "project"
    root.mkdir()
    (root / "pyproject.toml").write_text(
        textwrap.dedent(
            f"""
            [project]
            name = "project"
            version = "1"
            requires-python = ">=3.10"
            dependencies = [{requirement!r}]
            [tool.uv.sources]
            {requirement} = {{ path = {wheel!r} }}
            """
        )
    )
    environment = directory / "environment"
    venv.create(environment, symlinks=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "behind.pth").write_text(
        "".join(f"import site; site.addsitedir({one!r})\n" for one in sys.path if one.endswith("-packages"))
    )
    return root, environment


def script(path: Path, text: str) -> str:
    """An executable shell script; its path."""
    path.write_text(f"#!/bin/sh\n{textwrap.dedent(text)}")
    os.chmod(path, 0o755)
    return str(path)
