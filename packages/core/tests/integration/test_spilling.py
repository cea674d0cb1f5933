"""Values move to disk when the store fills up, and come back: with the right bytes, or the right error."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import drivers
import pytest

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are found through /proc"),
    pytest.mark.slow,
]

# A store of 80 MB that holds 8 blocks; `put_blocks` makes 16, of which half are moved to disk.
BEGIN = """
    import glob, os, sys, threading, umbel
    from umbel import exceptions
    from umbel._client import current

    SIZE = 10_000_000

    def block(number):
        return number.to_bytes(8, "little") * (SIZE // 8)

    def put_blocks(count=16):
        return [umbel.put(block(number)) for number in range(count)]

    def files():
        return sorted(glob.glob(DIRECTORY + "/*"))

    def store():
        return current.engine().query("store")

    def start(**options):
        global DIRECTORY
        where = umbel.init(object_store_memory=80_000_000, **{"num_cpus": 2, **options})
        DIRECTORY = where["session_dir"] + "/spilled"

"""


def program(source: str) -> str:
    """BEGIN, and what follows at the same indentation."""
    return BEGIN + source


def run(source: str, **environment: str) -> str:
    return drivers.run(program(source), timeout_s=60, **environment)[0]


def test_four_times_the_stores_size_passes_through_a_shuffle() -> None:
    """Blocks are made by tasks, split, and each part of all of them is read by one task."""
    run("""
    start()
    MAPS, PARTS, PART = 16, 8, 2_500_000

    @umbel.remote
    def split(number):
        return [bytes([number * PARTS + part]) * PART for part in range(PARTS)]

    @umbel.remote
    def merge(*parts):
        assert all(len(part) == PART for part in parts)
        return sorted(part[0] + part[PART // 2] + part[-1] for part in parts)

    split_parts = [split.options(num_returns=PARTS).remote(number) for number in range(MAPS)]
    merged = [merge.remote(*[parts[index] for parts in split_parts[:8]]) for index in range(PARTS)]
    merged += [merge.remote(*[parts[index] for parts in split_parts[8:]]) for index in range(PARTS)]
    expected = [
        [3 * (number * PARTS + index) for number in numbers]
        for numbers in (range(8), range(8, 16)) for index in range(PARTS)
    ]
    assert umbel.get(merged, timeout=60) == expected
    assert store()["spilled_in_all_bytes"] > 160_000_000
    """)


def test_values_come_back_in_any_process_and_their_files_go_with_them() -> None:
    run("""
    start()
    refs = put_blocks()
    assert store()["spilled_bytes"] >= 80_000_000
    assert len(files()) == store()["spilled_files"] > 0
    assert [umbel.get(ref) == block(number) for number, ref in enumerate(refs)] == [True] * 16

    @umbel.remote
    def check(value, number):
        return value == block(number)

    @umbel.remote
    class Holder:
        def hold(self, refs):
            self.refs = refs

        def check(self):
            return [umbel.get(ref) == block(number) for number, ref in enumerate(self.refs)]

    assert umbel.get([check.remote(ref, number) for number, ref in enumerate(refs)]) == [True] * 16
    holder = Holder.remote()
    umbel.get(holder.hold.remote(refs))
    assert umbel.get(holder.check.remote()) == [True] * 16
    umbel.kill(holder)
    del refs
    ref = umbel.put(1)
    until = threading.Event()
    while files() or store()["spilled_bytes"]:
        umbel.get(umbel.put(1))
        until.wait(0.01)
    """)


def test_small_values_share_files() -> None:
    run("""
    start()
    refs = [umbel.put(block(number)[:200_000]) for number in range(500)]
    assert 0 < len(files()) < 10
    assert all(umbel.get(ref) == block(number)[:200_000] for number, ref in enumerate(refs))
    """)


def test_arrays_that_somebody_looks_at_stay_where_they_are() -> None:
    pytest.importorskip("numpy")
    run("""
    import numpy as np
    start()
    arrays = [umbel.get(umbel.put(np.full(SIZE // 8, number))) for number in range(3)]
    ref = umbel.put(np.full(SIZE // 8, 3))
    address = lambda array: array.__array_interface__["data"][0]
    before = [address(array) for array in arrays]

    @umbel.remote
    class Viewer:
        def look(self, refs):
            self.array = umbel.get(refs[0])
            return address(self.array)

        def look_again(self):
            return address(self.array), bool((self.array == 3).all())

    viewer = Viewer.remote()
    seen = umbel.get(viewer.look.remote([ref]))
    refs = put_blocks()
    assert umbel.get(viewer.look_again.remote()) == (seen, True)
    assert [address(array) for array in arrays] == before
    assert all((array == number).all() for number, array in enumerate(arrays))
    assert umbel.get(refs[0]) == block(0)
    """)


def test_damaged_file_is_an_error_that_names_it_and_never_a_value() -> None:
    run("""
    start(_system_config={"min_spilling_size": 1})
    refs = put_blocks(20)
    first, second, third = files()[:3]
    os.truncate(first, 5_000)
    with open(second, "r+b") as file:
        file.seek(SIZE // 2)
        file.write(b"not what was there")
    os.unlink(third)
    lost = {}
    for number, ref in enumerate(refs):
        try:
            assert umbel.get(ref) == block(number)
        except exceptions.ObjectLostError as error:
            lost[str(error)] = ref
    assert len(lost) >= 3
    for file, what in ((first, "ends after 5000 bytes"), (second, "has other contents"), (third, "is gone")):
        assert any(f"its spill file {file} {what}" in text for text in lost), lost

    @umbel.remote(max_retries=0)
    def take(value):
        return len(value)

    for text, ref in lost.items():
        try:
            umbel.get(take.remote(ref))
        except exceptions.ObjectLostError as error:
            assert text.partition(" (")[0] in str(error), error
        else:
            raise AssertionError("it is there")
    """)


def test_value_whose_file_is_damaged_is_computed_again_where_it_can_be() -> None:
    run("""
    start(_system_config={"min_spilling_size": 1})

    @umbel.remote
    def make(number):
        return block(number)

    refs = [make.remote(number) for number in range(16)]
    umbel.wait(refs, num_returns=16)
    removed, changed = files()[:2]
    os.unlink(removed)
    with open(changed, "r+b") as file:
        file.write(b"not what was there")
    assert [umbel.get(ref) == block(number) for number, ref in enumerate(refs)] == [True] * 16
    """)


def test_full_disk_is_an_error_and_the_values_stay_in_memory() -> None:
    """A limit on the size of files stands for a disk without room."""
    output = run("""
    import resource
    start(num_cpus=1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    refs = [umbel.put(block(number) * 2) for number in range(3)]
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
    try:
        umbel.put(bytes(39_000_000))
    except exceptions.OutOfDiskError as error:
        assert DIRECTORY in str(error) and "they stay in memory" in str(error), error
        print("full")
    assert files() == [] and store()["spilled_bytes"] == 0
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert umbel.get(umbel.put(bytes(39_000_000))) == bytes(39_000_000)
    assert [umbel.get(ref) == block(number) * 2 for number, ref in enumerate(refs)] == [True] * 3
    """)
    assert output == "full\n"


def test_disk_slower_than_an_order_may_take_loses_nothing() -> None:
    """The agent gives another order while the first is still carried out; each ends for itself."""
    run("""
    import time
    from umbel._client import launch
    from umbel._objects import spill_files

    hurried = "; from umbel._agent import spill_orders; spill_orders.ORDER_S = 0.05; daemon.main"
    assert "; daemon.main" in launch._BOOT
    launch._BOOT = launch._BOOT.replace("; daemon.main", hurried)
    write = spill_files.LocalFile.write

    def write_slowly(self, parts):
        time.sleep(0.3)
        write(self, parts)

    spill_files.LocalFile.write = write_slowly
    start()
    refs = put_blocks(16)
    assert [umbel.get(ref) == block(number) for number, ref in enumerate(refs)] == [True] * 16
    del refs
    while files() or store()["spilled_bytes"]:
        umbel.get(umbel.put(0))
    """)


def test_file_that_the_agent_refuses_is_removed_and_its_values_stay() -> None:
    run("""
    from umbel._objects import spill_files

    write, refused = spill_files.LocalFile.write, []

    def write_what_is_given_up(self, parts):
        if len(refused) < 2:
            refused.append(self._path)
            said = {"t": "spill_ended", "order": 0, "file": self._path, "freed": 0, "error": ""}
            current.engine().agent.notify(said)
        write(self, parts)

    spill_files.LocalFile.write = write_what_is_given_up
    start()
    refs = put_blocks(16)
    assert len(refused) == 2 and not {*refused} & {*files()}
    assert [umbel.get(ref) == block(number) for number, ref in enumerate(refs)] == [True] * 16
    """)


def test_store_full_of_what_is_looked_at_is_an_error_that_says_by_whom_and_whose() -> None:
    pytest.importorskip("numpy")
    output = run(
        """
    import numpy as np
    start()

    @umbel.remote
    class Viewer:
        def look(self, refs):
            self.array = umbel.get(refs[0])
            return os.getpid()

    viewer = Viewer.remote()
    ref = umbel.put(np.zeros(5_000_000))
    pid = umbel.get(viewer.look.remote([ref]))
    kept = umbel.get(umbel.put(np.zeros(3_000_000)))
    try:
        umbel.put(bytes(36_000_000))
    except exceptions.ObjectStoreFullError as error:
        text = str(error)
        assert f"(pid {pid}) 1 values, 40" in text and f"driver {current.engine().process_id.hex()[:8]}" in text, text
        assert ref.hex() + " of 40" in text and "made at <string>:" in text, text
        print("full")
    del kept
    assert len(umbel.get(umbel.put(bytes(36_000_000)))) == 36_000_000
    """,
        UMBEL_RECORD_CALL_SITES="1",
    )
    assert output == "full\n"


def test_tasks_that_hold_what_the_others_wait_for_give_way() -> None:
    run("""
    start()
    refs = [umbel.put(block(number)) for number in range(10)]

    @umbel.remote
    def take(*values):
        return [int.from_bytes(value[:8], "little") for value in values]

    calls = [take.remote(*(refs[(first + index) % 10] for index in range(5))) for first in range(10)]
    assert umbel.get(calls, timeout=60) == [[(first + index) % 10 for index in range(5)] for first in range(10)]
    """)


def test_explain_says_when_a_value_is_on_disk() -> None:
    run("""
    start()
    refs = put_blocks(16)
    on_disk = [ref for ref in refs if "was moved to disk, to " + DIRECTORY in umbel.explain(ref)]
    in_memory = [ref for ref in refs if umbel.explain(ref).endswith(" is ready")]
    assert len(on_disk) >= 8 and len(on_disk) + len(in_memory) == 16, (len(on_disk), len(in_memory))
    """)


def test_explain_says_when_a_value_is_being_read_back() -> None:
    pytest.importorskip("numpy")
    run("""
    import numpy as np
    start()
    ref = umbel.put(block(0) * 3)
    kept = [umbel.get(umbel.put(np.zeros(SIZE // 8))) for _ in range(7)]  # now there is no room for it
    got = []
    reader = threading.Thread(target=lambda: got.append(umbel.get(ref)))
    reader.start()
    until = threading.Event()
    while "is being read back from " + DIRECTORY not in umbel.explain(ref):
        until.wait(0.01)
    kept.clear()
    reader.join()
    assert got == [block(0) * 3]
    """)


def test_coroutines_of_an_actor_go_on_while_what_one_needs_is_read_back() -> None:
    run("""
    start()
    refs = put_blocks()
    on_disk = [(ref, number) for number, ref in enumerate(refs) if "moved to disk" in umbel.explain(ref)]
    ref, number = on_disk.pop()

    @umbel.remote
    class Reader:
        def __init__(self):
            from umbel._objects import spill_files

            gate, read_into = threading.Event(), spill_files.LocalFile.read_into

            def read_when_open(file, *about):
                gate.wait()
                return read_into(file, *about)

            spill_files.LocalFile.read_into = read_when_open
            self.gate = gate

        async def is_block(self, value, number):
            return value == block(number)

        async def awaited_is_block(self, refs, number):
            return await refs[0] == block(number)

        async def open(self):
            self.gate.set()

        async def close(self):
            self.gate.clear()

    reader = Reader.remote()
    read = reader.is_block.remote(ref, number)
    while "is being read back" not in umbel.explain(ref):
        threading.Event().wait(0.01)
    umbel.get(reader.open.remote(), timeout=20)
    assert umbel.get(read, timeout=20)

    umbel.get(reader.close.remote(), timeout=20)
    ref, number = on_disk.pop()
    read = reader.awaited_is_block.remote([ref], number)
    while "is being read back" not in umbel.explain(ref):
        threading.Event().wait(0.01)
    umbel.get(reader.open.remote(), timeout=20)
    assert umbel.get(read, timeout=20)
    """)


def test_values_of_a_creator_that_died_are_moved_and_come_back() -> None:
    run("""
    import signal
    start()

    @umbel.remote
    class Maker:
        def make(self, first, count):
            return tuple(block(number) for number in range(first, first + count))

        def pid(self):
            return os.getpid()

    maker = Maker.remote()
    refs = maker.make.options(num_returns=20).remote(0, 20)
    umbel.wait(refs, num_returns=20)
    os.kill(umbel.get(maker.pid.remote()), signal.SIGKILL)
    more = put_blocks(8)
    assert [umbel.get(ref) == block(number) for number, ref in enumerate(refs)] == [True] * 20
    """)


def test_another_directory_is_used_and_left_empty(tmp_path: Path) -> None:
    run(f"""
    start(object_spilling_directory="{tmp_path}/below")
    refs = put_blocks(16)
    assert not os.path.exists(DIRECTORY)
    (DIRECTORY,) = glob.glob("{tmp_path}/below/*")
    assert files()
    assert [umbel.get(ref) == block(number) for number, ref in enumerate(refs)] == [True] * 16
    """)
    assert os.listdir(tmp_path / "below") == []


def only(library: str, directory: Path) -> dict[str, str]:
    """The environment of a driver that has just this one of the libraries for URLs."""
    pytest.importorskip(library)
    if library == "fsspec":
        return {}  # which is asked first
    (directory / "fsspec.py").write_text("raise ImportError('not installed')")
    return {"PYTHONPATH": f"{directory}:{os.environ.get('PYTHONPATH', '')}"}


@pytest.mark.parametrize("library", ["fsspec", "pyarrow"])
def test_another_file_system_is_used_by_its_url_and_left_empty(
    library: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    run(f"""
    start(object_spilling_directory="local://{tmp_path}/below")  # to both libraries local files have this name too
    refs = put_blocks(16)
    (DIRECTORY,) = glob.glob("{tmp_path}/below/*")
    assert files()
    assert [umbel.get(ref) == block(number) for number, ref in enumerate(refs)] == [True] * 16
    assert {library!r} in sys.modules
    del refs[8:]
    """, **only(library, tmp_path_factory.mktemp("modules")))  # fmt: skip
    assert os.listdir(tmp_path / "below") == []


BUSY = """
    start(**OPTIONS)

    @umbel.remote
    def make(number):
        return block(number)

    refs = put_blocks(10) + [make.remote(number) for number in range(10)]
    umbel.wait(refs, num_returns=20)
    print("busy", flush=True)
    while True:
        refs = refs[5:] + put_blocks(5)
"""


@pytest.mark.parametrize(
    ("where", "whom"),
    [
        ("session", "driver"), ("session", "daemon"), ("session", "fork server"), ("path", "all"),
        ("fsspec", "fork server"), ("fsspec", "all"), ("pyarrow", "fork server"), ("pyarrow", "all"),
    ],
)  # fmt: skip
def test_killed_session_leaves_no_file(
    where: str, whom: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    url = f"local://{tmp_path}"
    names = {"path": str(tmp_path), "fsspec": url, "pyarrow": url}
    options = {"object_spilling_directory": names[where]} if where in names else {}
    environment = only(where, tmp_path_factory.mktemp("modules")) if names.get(where) == url else {}
    with drivers.driver(program(BUSY.replace("OPTIONS", repr(options))), **environment) as driver:
        assert driver.line() == "busy"
        daemon, fork_server = driver.daemon_pids()
        for name, pid in (("daemon", daemon), ("fork server", fork_server), ("driver", driver.pid)):
            if whom in (name, "all"):
                drivers.kill(pid)
        if whom == "all":  # a later session removes what nobody was left to remove
            drivers.wait_until(lambda: not drivers.marked_processes(driver.mark))
            later = "import umbel\numbel.init(num_cpus=1)"
            drivers.Driver(later, driver.directory, **environment).finish()
        driver.process.wait(drivers.PATIENCE_S)
        driver.expect_nothing_left()
    drivers.wait_until(lambda: not os.listdir(tmp_path), what="nothing is left of what was moved there")


def test_killed_worker_leaves_no_file() -> None:
    run("""
    import signal
    start()

    @umbel.remote(max_retries=0)
    def make_and_die():
        refs = put_blocks(16)
        os.kill(os.getpid(), signal.SIGKILL)

    try:
        umbel.get(make_and_die.remote())
    except exceptions.WorkerCrashedError:
        pass
    until = threading.Event()
    while files():
        until.wait(0.01)
    assert store()["spilled_bytes"] == 0
    """)
