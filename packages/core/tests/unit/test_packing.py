"""Packages: what is in them, what names them, and what is refused."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from umbel import exceptions
from umbel._environments import packing


def _write(root: Path, **files: str) -> Path:
    """Files by name, with "__" for "/"."""
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def _paths(root: Path, *excludes: str) -> list[str]:
    return [entry.path for entry in packing.scan(str(root), excludes)]


def _packages(tmp_path: Path, *, bytes_max: int = 1 << 20) -> packing.Packages:
    return packing.Packages(str(tmp_path / "packages"), bytes_max=bytes_max)


def test_ignore_files_defaults_and_excludes_are_honoured(tmp_path: Path) -> None:
    root = _write(tmp_path / "w", a="1", venv__x="1", sub__b="1", sub__c="1", sub__d="1", sub__keep="1")
    (root / "sub" / ".gitignore").write_text("b\nkeep\n")
    (root / ".umbelignore").write_text("c\n")
    assert _paths(root, "d", "!keep") == [".umbelignore", "a", "sub", "sub/.gitignore", "sub/keep"]


def test_links_inside_stay_links_and_those_outside_are_followed(tmp_path: Path) -> None:
    outside = _write(tmp_path / "out", x="1")
    root = _write(tmp_path / "w", a="1")
    (root / "inner").symlink_to("a")
    (root / "outer").symlink_to(outside)
    (root / "broken").symlink_to("nowhere")
    (root / "loop").symlink_to(root)
    (outside / "loop").symlink_to(outside)
    found = {entry.path: entry.kind for entry in packing.scan(str(root))}
    assert found == {"a": "f", "inner": "l", "outer": "d", "outer/x": "f", "broken": "l"}


def test_digest_follows_names_contents_and_executability(tmp_path: Path) -> None:
    root = _write(tmp_path / "w", a="1", b="2")

    def digest() -> str:
        return packing.digest(packing.scan(str(root)))

    seen = [digest()]
    assert digest() == seen[0]
    (root / "a").write_text("3")
    seen.append(digest())
    (root / "a").chmod(0o755)
    seen.append(digest())
    (root / "a").rename(root / "c")
    seen.append(digest())
    (root / "d").mkdir()
    seen.append(digest())
    assert len(set(seen)) == len(seen)


def test_same_contents_are_one_package_that_is_a_copy(tmp_path: Path) -> None:
    packages = _packages(tmp_path)
    first = _write(tmp_path / "one", a="1", sub__b="2")
    (first / "sub" / "b").chmod(0o755)
    (tmp_path / "two" / "sub").mkdir(parents=True)
    for name in ("a", "sub/b"):
        (tmp_path / "two" / name).write_text((first / name).read_text())
    (tmp_path / "two" / "sub" / "b").chmod(0o755)
    uri = packages.add_directory("w", str(first))
    assert packages.add_directory("w", str(tmp_path / "two")) == uri
    copy = Path(packages.unpacked(uri))
    assert (copy / "sub" / "b").read_text() == "2"
    assert os.access(copy / "sub" / "b", os.X_OK)
    assert not os.access(copy / "a", os.X_OK)
    assert sorted(os.listdir(tmp_path / "packages")) == [copy.name, f"{copy.name}.zip"]


def test_a_package_is_what_it_was_whatever_is_done_to_the_directory(tmp_path: Path) -> None:
    """Workers write into it, and a package that another node gets must be the one that its name says."""
    packages = _packages(tmp_path)
    root = _write(tmp_path / "w", a="1", sub__b="2")
    (root / "inner").symlink_to("sub/b")
    (root / "broken").symlink_to("nowhere")
    uri = packages.add_directory("w", str(root))
    (name,) = packing.names_in(f'{{"working_dir":"{uri}"}}')
    _write(Path(packages.unpacked(uri)), a="3", new="1")
    assert packing.file_digest(packages.archive_of(name)) == name
    other = packing.Packages(str(tmp_path / "other"), bytes_max=0)
    other.keep(lambda file: str(file.write(Path(packages.archive_of(name)).read_bytes()) and name))
    copy = Path(other.unpacked(uri))
    assert sorted(path.name for path in copy.iterdir()) == ["a", "broken", "inner", "sub"]
    assert (copy / "a").read_text() == "1"
    assert (copy / "inner").readlink() == Path("sub/b") and (copy / "inner").read_text() == "2"
    assert (copy / "broken").readlink() == Path("nowhere")


def test_what_is_no_package_here_is_said_to_be_missing(tmp_path: Path) -> None:
    for uri in (f"{packing.SCHEME}{'0' * 32}", f"{packing.SCHEME}../../etc", "/etc"):
        with pytest.raises(FileNotFoundError):
            _packages(tmp_path).unpacked(uri)


def test_a_file_whose_name_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    with open(os.fsencode(tmp_path / "w") + b"/\xff", "w"):
        pass
    with pytest.raises(exceptions.InvalidOption, match=r"'\\udcff', whose name is not UTF-8"):
        _packages(tmp_path).add_directory("w", str(tmp_path / "w"))


def test_module_directory_keeps_its_name(tmp_path: Path) -> None:
    packages = _packages(tmp_path)
    uri = packages.add_directory("m", str(_write(tmp_path / "mod", __init__="", sub__x="1")), into="mod")
    assert sorted(os.listdir(packages.unpacked(uri))) == ["mod"]


def test_too_large_a_directory_is_refused_and_its_biggest_files_named(tmp_path: Path) -> None:
    root = _write(tmp_path / "w", big="x" * 3_000_000, small="x", middle="x" * 1_000_000)
    with pytest.raises(exceptions.InvalidOption) as caught:
        _packages(tmp_path).add_directory("runtime_env['working_dir']", str(root))
    text = str(caught.value)
    assert "has 3.8 MiB, allowed are 1.0 MiB" in text
    assert "excludes" in text
    assert text.index("2.9 MiB  big") < text.index("1.0 MiB  middle")
    uri = _packages(tmp_path).add_directory("w", str(root), ["big", "middle"])
    assert os.listdir(_packages(tmp_path).unpacked(uri)) == ["small"]


def test_zip_becomes_the_package_with_its_executables(tmp_path: Path) -> None:
    root = _write(tmp_path / "w", run="1")
    (root / "run").chmod(0o755)
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as archive:
        archive.write(root / "run", "bin/run")
    packages = _packages(tmp_path)
    uri = packages.add_archive("w", str(tmp_path / "w.zip"))
    assert packages.add_archive("w", str(tmp_path / "w.zip")) == uri
    assert os.access(os.path.join(packages.unpacked(uri), "bin/run"), os.X_OK)


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x"])
def test_zip_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as archive:
        archive.writestr(name, "1")
    with pytest.raises(exceptions.InvalidOption, match="relative paths"):
        _packages(tmp_path).add_archive("w", str(tmp_path / "w.zip"))
    assert os.listdir(tmp_path / "packages") == []


def test_what_is_no_zip_or_too_large_unpacked_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w.zip").write_text("nothing")
    with pytest.raises(exceptions.InvalidOption, match="must be a zip file"):
        _packages(tmp_path).add_archive("w", str(tmp_path / "w.zip"))
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", "0" * 3_000_000)
    with pytest.raises(exceptions.InvalidOption, match="zeros"):
        _packages(tmp_path).add_archive("w", str(tmp_path / "bomb.zip"))
