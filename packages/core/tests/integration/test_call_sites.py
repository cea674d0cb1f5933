"""Where references were made is recorded when the environment asks for it, on every engine."""

from __future__ import annotations

import json

import drivers
import pytest

SOURCE = """
    import json, umbel

    umbel.init(num_cpus=2)

    @umbel.remote
    def two():
        return 1, umbel.put(2).call_site()

    @umbel.remote
    def items():
        yield 1
        yield 2

    @umbel.remote
    class Actor:
        def method(self):
            return umbel.put(3)

    actor = Actor.remote()
    made = umbel.put(0)
    result = two.remote()
    first, second = two.options(num_returns=2).remote()
    stream = list(items.remote())
    called = actor.method.remote()
    inner = umbel.get(called)
    print(json.dumps({
        "put": made.call_site(),
        "task": result.call_site(),
        "in_task": umbel.get(result)[1],
        "returns": [first.call_site(), second.call_site()],
        "stream": [one.call_site() for one in stream],
        "method": called.call_site(),
        "borrowed": inner.call_site(),
    }))
"""


def _line_of(text: str) -> int:
    """The number that a traceback gives the first line of SOURCE with `text`."""
    return next(number for number, line in enumerate(SOURCE.splitlines(), 1) if text in line)


@pytest.mark.parametrize("engine", ["native", "inline"])
def test_call_sites_are_lines_of_the_program(engine: str) -> None:
    output, _ = drivers.run(SOURCE, UMBEL_RECORD_CALL_SITES="1", UMBEL_ENGINE=engine)
    told = json.loads(output.splitlines()[-1])

    def at(text: str, function: str = "<module>") -> str:
        return f"<string>:{_line_of(text)} in {function}"

    assert told["put"] == at("made = ")
    assert told["task"] == at("result = ")
    assert told["in_task"] == at("umbel.put(2)", "two")
    assert told["returns"] == [at("first, second = ")] * 2
    assert told["stream"] == [at("stream = ")] * 2
    assert told["method"] == at("called = ")
    # One process knows what another has made only by asking it; the inline engine has one process.
    assert told["borrowed"] == ("" if engine == "native" else at("umbel.put(3)", "method"))


def test_call_sites_are_not_recorded_unless_asked_for() -> None:
    output, _ = drivers.run("import umbel\numbel.init(num_cpus=1)\nprint(repr(umbel.put(1).call_site()))")
    assert output.splitlines()[-1] == "''"
