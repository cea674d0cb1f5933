"""The types of options that users' type checkers see are those of the options there are."""

from __future__ import annotations

import subprocess
import sys

import pytest

from umbel._client import call_types
from umbel._model import options

DECORATORS = {
    "task": {*call_types.TaskDecoratorOptions.__optional_keys__, "num_returns"},
    "actor": call_types.ActorDecoratorOptions.__optional_keys__,
    "method": call_types.MethodDecoratorOptions.__optional_keys__,
}
CALLS = {
    "task": {*call_types.TaskOptions.__optional_keys__, "num_returns"},
    "actor": call_types.ActorOptions.__optional_keys__,
    "method": call_types.MethodOptions.__optional_keys__,
}


@pytest.mark.parametrize("kind", ["task", "actor", "method"])
@pytest.mark.parametrize(("place", "typed"), [("decorator", DECORATORS), ("call", CALLS)])
def test_typed_options_are_those_that_exist(kind: str, place: str, typed: dict[str, set[str]]) -> None:
    table = options._TABLES[kind]
    assert typed[kind] == {name for name, option in table.items() if option.only_in in (None, place)}


def test_the_types_are_not_imported_when_a_program_runs() -> None:
    program = "import sys, umbel, umbel.util; print({'umbel._client.call_types', 'mypy'} & {*sys.modules})"
    found = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True).stdout
    assert found.strip() == "set()"
