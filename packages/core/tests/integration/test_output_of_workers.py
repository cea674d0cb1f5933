"""What workers print, as the driver's terminal shows it."""

from __future__ import annotations

import re
import sys

import drivers
import pytest

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are found through /proc"),
    pytest.mark.slow,
]


def without_banner(errors: str) -> list[str]:
    return [line for line in errors.splitlines() if not line.startswith("umbel: started")]


def test_lines_carry_the_name_and_pid_of_who_printed_them() -> None:
    output, errors = drivers.run("""
        import os, sys, umbel
        umbel.init(num_cpus=1)

        @umbel.remote
        def speak(word):
            print("out", word)
            print("err", word, file=sys.stderr)
            return os.getpid()

        @umbel.remote
        class Speaker:
            def speak(self, word):
                print("actor", word)
                return os.getpid()

        @umbel.remote
        class Named:
            def __repr__(self): return "Named(7)"
            def speak(self): print("named")

        print(umbel.get(speak.remote("a")), umbel.get(Speaker.remote().speak.remote("b")))
        umbel.get(speak.options(name="renamed").remote("c"))
        umbel.get(Named.remote().speak.remote())
        print("driver")
    """)
    pids = [line for line in output.splitlines() if re.fullmatch(r"\d+ \d+", line)]
    task_pid, actor_pid = pids[0].split()
    lines = output.splitlines()
    assert f"(speak pid={task_pid}) out a" in lines
    assert f"(Speaker pid={actor_pid}) actor b" in lines
    assert any(re.fullmatch(r"\(renamed pid=\d+\) out c", line) for line in lines), lines
    assert any(re.fullmatch(r"\(Named\(7\) pid=\d+\) named", line) for line in lines), lines
    assert "driver" in lines
    assert f"(speak pid={task_pid}) err a" in without_banner(errors)


def test_all_is_shown_before_the_program_ends() -> None:
    """Also what was printed a moment before, by C code or by programs that the task started."""
    output, _ = drivers.run("""
        import os, subprocess, umbel
        umbel.init(num_cpus=1)

        @umbel.remote
        def speak():
            for number in range(500): print("line", number)
            os.write(1, b"raw bytes\\n")
            subprocess.run(["echo", "from a program"])
            print("no newline at the end", end="")

        umbel.get(speak.remote())
    """)
    assert len(re.findall(r"line \d+\n", output)) == 500
    for text in ("raw bytes", "from a program", "no newline at the end"):
        assert text in output


def test_equal_lines_of_several_workers_are_folded() -> None:
    output, _ = drivers.run("""
        import time, umbel
        umbel.init(num_cpus=4)

        @umbel.remote(num_cpus=0)
        class Speaker:
            def speak(self, word): print("the same", word)

        speakers = [Speaker.remote() for _ in range(6)]
        umbel.get([speaker.speak.remote("thing") for speaker in speakers])
    """)
    lines = [line for line in output.splitlines() if "the same thing" in line]
    assert len(lines) < 6, lines
    shown = sum(1 + int((re.search(r"repeated (\d+)x", line) or [0, 0])[1]) for line in lines)
    assert shown >= 6, lines
    assert any("repeated" in line for line in lines), lines


def test_folding_can_be_turned_off() -> None:
    output, _ = drivers.run(
        """
        import umbel
        umbel.init(num_cpus=2)

        @umbel.remote(num_cpus=0)
        class Speaker:
            def speak(self): print("the same")

        umbel.get([speaker.speak.remote() for speaker in [Speaker.remote() for _ in range(4)]])
    """,
        UMBEL_LOG_FOLD_S="0",
    )
    assert output.count("the same") == 4


def test_one_workers_repeated_lines_are_all_shown() -> None:
    output, _ = drivers.run("""
        import umbel
        umbel.init(num_cpus=1)

        @umbel.remote
        def speak():
            for _ in range(10): print("again")

        umbel.get(speak.remote())
    """)
    assert output.count("again") == 10


@pytest.mark.parametrize("how", ["argument", "variable"])
def test_output_can_be_kept_from_the_driver(how: str) -> None:
    output, _ = drivers.run(
        f"""
        import umbel
        umbel.init(num_cpus=1{", log_to_driver=False" if how == "argument" else ""})
        umbel.get(umbel.remote(lambda: print("hidden")).remote())
        print("shown")
        """,
        **({"UMBEL_LOG_TO_DRIVER": "0"} if how == "variable" else {}),
    )
    assert output == "shown\n"


def test_crash_of_a_worker_shows_what_it_wrote_last() -> None:
    output, errors = drivers.run("""
        import os, sys, umbel
        umbel.init(num_cpus=1)

        @umbel.remote(max_retries=0)
        def crash():
            print("last words")
            sys.stderr.write("and on stderr")
            sys.stderr.flush()
            os.abort()

        try:
            umbel.get(crash.remote())
        except umbel.exceptions.WorkerCrashedError as error:
            assert "SIGABRT" in str(error), error
    """)
    assert "last words" in output
    assert "and on stderr" in errors


def test_errors_that_are_raised_print_nothing_by_themselves() -> None:
    output, errors = drivers.run("""
        import umbel
        umbel.init(num_cpus=1)

        @umbel.remote
        def fail(): raise ValueError("caught")

        @umbel.remote
        class Broken:
            def __init__(self): raise ValueError("caught")
            def work(self): ...

        for call in (fail.remote, lambda: Broken.remote().work.remote()):
            try:
                umbel.get(call())
            except Exception:
                pass
    """)
    assert output == ""
    assert without_banner(errors) == []


def test_much_output_neither_blocks_nor_kills_anything() -> None:
    output, _ = drivers.run(
        """
        import umbel
        umbel.init(num_cpus=2)

        @umbel.remote
        def flood(number):
            for line in range(20_000): print(number, line, "x" * 100)
            return number

        assert umbel.get([flood.remote(number) for number in range(3)]) == [0, 1, 2]
        print("done", flush=True)
    """,
        timeout_s=50,
    )
    assert "done\n" in output
    assert output.count("19999 xxx") == 3


def test_infeasible_task_warns_once_and_says_what_is_missing() -> None:
    _, errors = drivers.run("""
        import time, umbel
        umbel.init(num_cpus=1, resources={"licence": 1})

        @umbel.remote
        def work(): ...

        refs = [work.options(resources={"licence": 2}).remote() for _ in range(3)]
        actor = umbel.remote(type("Greedy", (), {})).options(num_gpus=4).remote()
        assert umbel.wait(refs, timeout=1.6) == ([], refs)
        assert "licence" in umbel.explain(refs[0]), umbel.explain(refs[0])
    """)
    lines = without_banner(errors)
    assert len([line for line in lines if "licence: 2" in line]) == 1, lines
    assert len([line for line in lines if "GPU" in line]) == 1, lines
    assert len(lines) == 2, lines


def test_a_busy_cluster_warns_of_nothing() -> None:
    _, errors = drivers.run("""
        import time, umbel
        umbel.init(num_cpus=1)
        @umbel.remote
        def work(): time.sleep(0.4)
        umbel.get([work.remote() for _ in range(5)])
    """)
    assert without_banner(errors) == []


def test_a_closed_terminal_stops_nothing() -> None:
    with drivers.driver("""
        import sys, umbel
        umbel.init(num_cpus=1)

        @umbel.remote
        def speak(number):
            print("line", number)
            return number

        sys.stdin.readline()
        results = [umbel.get(speak.remote(number)) for number in range(50)]
        assert results == list(range(50))
        sys.stderr.write("survived\\n")
        sys.stderr.flush()
        import os
        umbel.shutdown()
        os._exit(0)
    """) as driver:
        assert driver.process.stdout is not None
        driver.process.stdout.close()
        driver.tell()
        assert driver.process.wait(drivers.PATIENCE_S) == 0
        assert "survived" in driver.errors()
        driver.expect_nothing_left()
