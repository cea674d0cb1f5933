"""Finding installed plugins, by what an installer leaves on the path, and what UMBEL_PLUGINS makes of them."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from umbel import exceptions
from umbel._plugins import discovery, selection

FOUND = [
    discovery.FoundPlugin("fast", "fast_plugin", "umbel-fast", "1.2"),
    discovery.FoundPlugin("gpu", "gpu_plugin:plugin", "umbel-gpu", "0.1"),
]


def install(folder: Path, distribution: str, version: str, entry_points: str, *, suffix: str = ".dist-info") -> None:
    """What an installer writes about a distribution."""
    about = folder / f"{distribution.replace('-', '_')}-{version}{suffix}"
    about.mkdir(parents=True)
    name = "METADATA" if suffix == ".dist-info" else "PKG-INFO"
    (about / name).write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    (about / "entry_points.txt").write_text(entry_points)


FAST = "[console_scripts]\nfast = fast:main\n\n[umbel.plugins]\nfast = fast_plugin\n"


# Discovery


@pytest.mark.parametrize("suffix", [".dist-info", ".egg-info"])
def test_plugins_of_other_distributions_are_found(tmp_path: Path, suffix: str) -> None:
    install(tmp_path, "umbel-fast", "1.2", FAST, suffix=suffix)
    install(tmp_path, "umbel-gpu", "0.1", "[umbel.plugins]\ngpu = gpu_plugin:plugin\n", suffix=suffix)
    install(tmp_path, "other", "3", "[console_scripts]\nother = other:main\n", suffix=suffix)
    assert discovery.find_plugins([str(tmp_path)]) == FOUND


def test_umbels_own_entry_point_is_not_a_plugin_of_others(tmp_path: Path) -> None:
    install(tmp_path, "umbel", "1.2", "[umbel.plugins]\nbuiltin = umbel._plugins.builtin\n")
    assert discovery.find_plugins([str(tmp_path)]) == []
    install(tmp_path, "umbel-fast", "1.2", FAST)
    assert discovery.find_plugins([str(tmp_path)]) == FOUND[:1]


def test_distribution_earlier_on_the_path_shadows_a_later_one(tmp_path: Path) -> None:
    install(tmp_path / "first", "umbel-fast", "2.0", "[umbel.plugins]\nnew = fast_plugin\n")
    install(tmp_path / "second", "umbel_fast", "1.2", FAST)
    (found,) = discovery.find_plugins([str(tmp_path / "first"), str(tmp_path / "second")])
    assert (found.name, found.version) == ("new", "2.0")


def test_plugins_in_a_zip_file_are_found(tmp_path: Path) -> None:
    install(tmp_path / "installed", "umbel-fast", "1.2", FAST)
    archive = tmp_path / "everything.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in (tmp_path / "installed").rglob("*"):
            file.write(path, path.relative_to(tmp_path / "installed"))
    assert discovery.find_plugins([str(archive)]) == FOUND[:1]


def test_plugin_of_a_damaged_installation_is_found_all_the_same(tmp_path: Path) -> None:
    install(tmp_path, "umbel-fast", "1.2", FAST)
    (tmp_path / "umbel_fast-1.2.dist-info" / "METADATA").write_text("")
    (found,) = discovery.find_plugins([str(tmp_path)])
    assert found.origin == "a distribution without a name of no version (entry point fast = fast_plugin)"


def test_path_entries_that_are_not_there_are_passed_over(tmp_path: Path) -> None:
    assert discovery.find_plugins([str(tmp_path / "missing"), str(tmp_path)]) == []


def test_nothing_heavy_is_imported_when_nothing_is_installed(tmp_path: Path) -> None:
    """`umbel.init()` looks for plugins, and reading all metadata would be a large part of its time."""
    program = (
        "import sys; from umbel._plugins import registry; registry.load(outside=None if sys.argv[1] else []);"
        "print(sorted({'importlib.metadata', 'click', 'rich', 'umbel._model.placement'} & set(sys.modules)))"
    )
    source = str(Path(discovery.__file__).parents[2])
    site = Path(pytest.__file__).parents[1]
    for name in ("pluggy", "cloudpickle"):
        (tmp_path / name).symlink_to(site / name)
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[1:] += [{source!r}, {str(tmp_path)!r}]; {program}", "look"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_targets_are_resolved(tmp_path: Path) -> None:
    assert discovery.resolve("os.path:join") is __import__("os").path.join
    assert discovery.resolve("pathlib:Path.home") == Path.home
    assert discovery.resolve(" json ") is __import__("json")
    for wrong in ("", ":attribute", "json:"):
        with pytest.raises(ValueError, match="must be 'module' or 'module:attribute'"):
            discovery.resolve(wrong)


# UMBEL_PLUGINS


@pytest.mark.parametrize(
    ("text", "on"),
    [
        ("", ["fast", "gpu"]),
        (" , ", ["fast", "gpu"]),
        ("fast", ["fast"]),
        ("umbel-gpu", ["gpu"]),
        ("fast, gpu", ["fast", "gpu"]),
        ("-fast", ["gpu"]),
        ("-umbel-gpu", ["fast"]),
        ("fast,-gpu", ["fast"]),
        ("-*", []),
        ("-*,-fast", []),
    ],
)
def test_selection(text: str, on: list[str]) -> None:
    choice = selection.Selection.parse(text)
    assert [plugin.name for plugin in FOUND if not choice.reason_against(plugin)] == on


def test_reason_says_what_to_change() -> None:
    assert selection.Selection.parse("-fast").reason_against(FOUND[0]) == (
        "UMBEL_PLUGINS blocks it; remove '-fast' to use it"
    )
    assert selection.Selection.parse("gpu").reason_against(FOUND[0]) == (
        "UMBEL_PLUGINS allows only gpu; add 'fast' to use it"
    )
    assert selection.Selection.parse("-*").reason_against(FOUND[0]) == "UMBEL_PLUGINS=-* blocks all plugins"


@pytest.mark.parametrize("text", ["fast,-fast", "-", "*", "-*,fast"])
def test_selection_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(exceptions.PluginError, match="UMBEL_PLUGINS must be"):
        selection.Selection.parse(text)


def test_names_of_nothing_installed_are_known() -> None:
    assert selection.Selection.parse("fast,fsat,-gup").unknown(FOUND) == ["fsat", "gup"]
