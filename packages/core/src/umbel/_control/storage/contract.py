"""What holds for every built-in control storage: which writes it takes, and how it waits for another leader."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from umbel import exceptions
from umbel._model.leases import Lease

KEY_BYTES_MAX = 1024
VALUE_BYTES_MAX = 1 << 20  # etcd takes 1.5 MiB in a request unless it was told to take more
WRITES_MAX = 100_000  # a quarter of a second of Redis, which serves nobody else meanwhile
COMMIT_BYTES_MAX = 64 << 20
TTL_S_MIN = 0.1
POLL_S = 0.25  # four reads of one row a second for each standby; a failover takes a lease's seconds anyway
FORMAT = 1  # of what is stored; a newer one is refused


def last_writes(writes: Sequence[tuple[str, bytes | None]]) -> dict[str, bytes | None]:
    """The last write of each key. Raises InvalidOption for what no built-in storage takes."""
    last = dict(writes)
    total_bytes = 0
    for key, value in last.items():
        try:
            key_bytes = len(key.encode())
        except UnicodeEncodeError:
            key_bytes = 0
        if not 1 <= key_bytes <= KEY_BYTES_MAX:
            raise _refused(f"keys are text of 1 to {KEY_BYTES_MAX} bytes in UTF-8, got {_shown(key)}")
        if value is not None and len(value) > VALUE_BYTES_MAX:
            raise _refused(
                f"a value has at most {VALUE_BYTES_MAX} bytes, {_shown(key)} has {len(value)}; store it in parts"
            )
        total_bytes += key_bytes + len(value or b"")
    if len(last) > WRITES_MAX or total_bytes > COMMIT_BYTES_MAX:
        raise _refused(
            f"a commit has at most {WRITES_MAX} writes and {COMMIT_BYTES_MAX} bytes, got {len(last)} and {total_bytes}; "
            "commit them in several"
        )
    return last


def check_fencing(place: str, fencing: int, leader: Callable[[], Lease]) -> None:
    """Raises StorageFenced for a number that no lease has ever had, which 0 is before the first one."""
    if fencing < 1:
        raise fenced(place, fencing, leader())


def wrong_number(number: int, *, done: int) -> exceptions.InvalidOption:
    """number: of a commit that was not made, as `done` is the number of the last one."""
    return exceptions.InvalidOption(
        f"the commit after number {done} has number {done + 1}, or {done} if it is repeated, got {number}",
        option="number",
    )


def check_holder(holder: str, ttl_s: float) -> None:
    """Raises InvalidOption."""
    if not holder:
        raise exceptions.InvalidOption("the holder of a lease must have a name, got ''", option="holder")
    if not ttl_s >= TTL_S_MIN:
        raise exceptions.InvalidOption(f"a lease is for at least {TTL_S_MIN} s, got {ttl_s!r}", option="ttl_s")


def fenced(place: str, fencing: int, now: Lease) -> exceptions.StorageFenced:
    """place: the storage, in words. now: who leads."""
    who = (
        f"{now.holder!r} leads by number {now.fencing}"
        if now.holder
        else f"nobody leads, the last number is {now.fencing}"
    )
    return exceptions.StorageFenced(
        f"who leads by number {fencing} does so no longer in {place}: {who}; stop acting, and acquire a new lease",
        fencing=fencing,
        leader=now.holder,
        leader_fencing=now.fencing,
    )


def check_owner(place: str, *, version: int, cluster_id: str, wanted: str | None) -> None:
    """version, cluster_id: as found. Raises StorageMismatch."""
    if version > FORMAT:
        raise exceptions.StorageMismatch(
            f"the records in {place} are of format {version}, this version of Umbel knows {FORMAT}; use the version that "
            "wrote them"
        )
    if wanted not in (None, cluster_id):
        raise exceptions.StorageMismatch(
            f"the records in {place} are those of the cluster {cluster_id!r}, not of {wanted!r}; give each cluster a file, "
            "or a prefix, of its own"
        )


def watch(leader: Callable[[], Lease], seen: Lease, timeout_s: float) -> Lease:
    """`spi.ControlStorage.watch_leader`, by asking again and again."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        now = leader()
        left_s = deadline_s - time.monotonic()
        if now[:2] != seen[:2] or left_s <= 0:
            return now
        time.sleep(min(POLL_S, left_s))  # bounded by the caller; the storages have no other way of telling in common


def _refused(text: str) -> exceptions.InvalidOption:
    return exceptions.InvalidOption(text, option="writes")


def _shown(key: str) -> str:
    return repr(key if len(key) <= 80 else f"{key[:80]}...")
