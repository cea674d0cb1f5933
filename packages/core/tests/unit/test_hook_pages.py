"""Every hook has a page in docs/plugins, whose example is a plugin that loads."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from umbel import hookspecs, spi
from umbel._plugins import discovery, providers, registry
from umbel.testing import conformance

PAGES = Path(__file__).resolve().parents[4] / "docs" / "plugins"
HOOKS = sorted(name for name in vars(hookspecs) if name.startswith("umbel_"))
_PROGRAM = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def page_of(hook: str) -> str:
    return (PAGES / f"{hook.removeprefix('umbel_')}.md").read_text()


def kind_of(hook: str) -> providers.Registry:
    return registry.load("-*", outside=[]).registries()[hook]


def test_hooks_are_those_that_the_registry_fills() -> None:
    assert sorted(registry.load("-*", outside=[]).registries()) == HOOKS


def test_no_page_is_of_a_hook_that_is_gone() -> None:
    assert sorted(path.stem for path in PAGES.glob("*.md")) == sorted(
        ["README", *(hook.removeprefix("umbel_") for hook in HOOKS)]
    )


def test_listing_shows_what_is_built_in() -> None:
    page = " ".join((PAGES / "README.md").read_text().split())
    (builtin,) = registry.load("-*", outside=[]).plugins
    for hook, names in builtin.provides.items():
        assert f" {hook.removeprefix('umbel_')}: {', '.join(names)} " in page


@pytest.mark.parametrize("hook", HOOKS)
def test_page_names_hook_descriptor_and_suite(hook: str) -> None:
    page, filled = page_of(hook), kind_of(hook)
    assert page.startswith(f"# `{hook}`: ")
    assert f"umbel.spi.{filled.descriptor_type.__name__}(" in page
    suite = f"{filled.kind.capitalize()}Conformance"
    if hasattr(conformance, suite):
        assert f"umbel.testing.conformance.{suite}" in page


@pytest.mark.parametrize("hook", HOOKS)
def test_example_of_the_page_is_a_plugin_that_loads(hook: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (program,) = _PROGRAM.findall(page_of(hook))
    if "import numpy" in program:
        pytest.importorskip("numpy")
    module = f"plugin_of_the_page_on_{hook}"
    (tmp_path / f"{module}.py").write_text(program)
    monkeypatch.syspath_prepend(str(tmp_path))
    found = discovery.FoundPlugin("example", module, "documentation", "1")
    loaded = registry.load(outside=[found]).plugins[-1]
    assert (loaded.state, loaded.reason, list(loaded.provides)) == (registry.State.ACTIVE, "", [hook])


def test_index_links_every_page_and_names_every_suite() -> None:
    index = (PAGES / "README.md").read_text()
    assert [hook for hook in HOOKS if f"[`{hook}`]({hook.removeprefix('umbel_')}.md)" not in index] == []
    assert [suite for suite in conformance.__all__ if f"`{suite}`" not in index] == []


def test_everything_that_the_pages_call_public_is() -> None:
    text = "\n".join(path.read_text() for path in PAGES.glob("*.md"))
    named = set(re.findall(r"\bspi\.([A-Za-z_]+)", text))
    assert sorted(name for name in named if name not in spi.__all__ or not hasattr(spi, name)) == []
