"""The control storage in etcd, for a head that may start again on another machine, of a cluster that may lose machines.

`etcd://user:password@host1:2379,host2:2379/?prefix=umbel`, `etcds://` by TLS with the options `ca`, `cert` and `key`
(files). etcd 3.4 or later. What etcd keeps of the past grows with every commit, so it has to compact by itself
(`--auto-compaction-retention`).

A transaction of etcd has at most 128 operations and 1.5 MB. A commit that fits is one. A larger one is written beside the
records first, in pieces; then one transaction sets a marker, and by that it has happened: `load` reads the pieces of a
marked commit over the records. Then its writes become records, in as many transactions as that takes, and the marker
goes. Whoever dies in between leaves pieces without a marker, which the next leader removes, or with one, which he
finishes. Every transaction compares `state`, the fencing number and the number of the last commit, or the marker, so one
that comes late changes nothing.

Small records and large ones lie apart, so that a page of either has a bounded size. The lease is one of etcd's own.
"""

from __future__ import annotations

import json
import math
import ssl
import struct
import urllib.parse
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from umbel import exceptions
from umbel._control.storage import contract, etcd_gateway, urls
from umbel._control.storage.etcd_gateway import Json, decoded, encoded
from umbel._model.leases import Lease

OPTIONS = ("ca", "cert", "key", "prefix")
TRANSACTION_OPERATIONS_MAX = 120  # of etcd's 128; a commit's own are among the others
TRANSACTION_BYTES_MAX = 1_200_000  # of etcd's 1.5 MiB; one record of the largest size, key and all, fits
OPERATION_BYTES = 64  # etcd's own words around a key and a value
PIECE_BYTES = 1 << 20
SMALL_BYTES_MAX = 16 << 10
PAGES = {"small/": 1000, "large/": 4}  # records in one answer: at worst 16 MiB, and 4
KEYS_PAGE = 4000  # likewise, of keys alone: 4 MiB
PORT = 2379
ATTEMPTS_MAX = 5  # to acquire, against others who do so at the same time
_ENTRY = struct.Struct("<Ii")  # bytes of a key and of its value; -1 for a deletion
Write = tuple[str, "bytes | None"]


class _State(NamedTuple):
    """Who led last, and the number of his last commit."""

    fencing: int
    number: int

    @classmethod
    def of(cls, text: bytes) -> _State:
        fencing, number = text.split(b".")
        return cls(int(fencing), int(number))

    def text(self) -> bytes:
        return b"%d.%d" % self


class EtcdStorage:
    """A `spi.ControlStorage`."""

    def __init__(self, url: str, *, cluster_id: str | None = None, timeout_s: float = 5.0) -> None:
        options = urls.options_of(url, OPTIONS)
        prefix = options.get("prefix", "umbel")
        self._prefix = prefix.encode() + b"/"
        self._place = f"{urls.shown(url)}, prefix {prefix!r}"
        self._gateway = etcd_gateway.Gateway(_login(url, options), place=self._place, timeout_s=timeout_s)
        self._leads_as = 0  # the fencing number under which what was left behind has been finished
        self._large: set[str] = set()  # keys of large records, while `_leads_as` is not 0
        try:
            self._cluster_id = self._prepare(cluster_id)
        except BaseException:
            self.close()
            raise

    @property
    def cluster_id(self) -> str:
        return self._cluster_id

    def load(self) -> Iterator[tuple[str, bytes]]:
        marker, revision = self._read("marker", doing="reading")
        pending = dict(self._pieces(marker, revision)) if marker else {}
        for kind, count in PAGES.items():
            for key, value in self._range(kind, revision, count):
                if key not in pending:
                    yield key, value
        for key, write in pending.items():
            if write is not None:
                yield key, write

    def commit(self, writes: Sequence[Write], *, fencing: int, number: int) -> None:
        last = contract.last_writes(writes)
        contract.check_fencing(self._place, fencing, self.leader)
        doing = f"commit {number}"
        try:
            if self._leads_as != fencing:
                self._take_over(fencing, doing)
            before, after = _State(fencing, number - 1), _State(fencing, number)
            groups = list(self._groups(last.items()))
            if len(groups) <= 1:
                operations = [self._put("state", after.text()), *self._operations(last.items())]
                is_done = self._transact([self._is("state", before.text())], operations, doing)
            else:
                is_done = self._mark(last, before, after, doing)
            if not is_done:
                self._refuse_unless_repeated(after, doing)
            elif len(groups) > 1:
                self._finish_own(self._marker_of(after, last), groups, doing)
        except BaseException:
            self._leads_as = 0  # what has been left behind, the next commit looks for
            raise
        for key, value in last.items():
            (self._large.add if _is_large(value) else self._large.discard)(key)

    def acquire(self, holder: str, ttl_s: float) -> Lease:
        contract.check_holder(holder, ttl_s)
        doing = "acquire"
        for _ in range(ATTEMPTS_MAX):
            leads, state = self._leader_and_state(doing)
            if leads is not None:
                if leads["holder"] != holder:
                    return Lease(leads["holder"], state.fencing, self._left_s(leads["lease"], doing))
                left_s = self._keep_alive(leads["lease"], doing)
                if left_s > 0:
                    return Lease(holder, state.fencing, left_s)
                self._revoke(leads["lease"], doing)  # it has run out just now
                continue
            granted = self._call("/v3/lease/grant", {"TTL": math.ceil(ttl_s)}, doing, changes=True)
            mine = json.dumps({"holder": holder, "lease": granted["ID"]}).encode()
            operations = [self._put("leader", mine, lease=granted["ID"])]
            operations.append(self._put("state", _State(state.fencing + 1, 0).text()))
            if self._transact([self._is_absent("leader"), self._is("state", state.text())], operations, doing):
                return Lease(holder, state.fencing + 1, float(granted["TTL"]))
            self._revoke(granted["ID"], doing)
        raise exceptions.StorageUnavailable(f"{doing}: others acquire and lose the lease in {self._place} all the time")

    def renew(self, fencing: int) -> Lease:
        leads, state = self._leader_and_state("renew")
        if leads is not None and state.fencing == fencing:
            left_s = self._keep_alive(leads["lease"], "renew")
            if left_s > 0:
                return Lease(leads["holder"], fencing, left_s)
        raise contract.fenced(self._place, fencing, self.leader())

    def release(self, fencing: int) -> None:
        leads, state = self._leader_and_state("release")
        if leads is not None and state.fencing == fencing:
            self._revoke(leads["lease"], "release")

    def leader(self) -> Lease:
        doing = "asking who leads"
        leads, state = self._leader_and_state(doing)
        return self._lease(leads, state, doing)

    def watch_leader(self, seen: Lease, timeout_s: float) -> Lease:
        return contract.watch(self.leader, seen, timeout_s)

    def close(self) -> None:
        self._gateway.close()

    # ---- commits of several transactions ----

    def _mark(self, last: Mapping[str, bytes | None], before: _State, after: _State, doing: str) -> bool:
        """Writes the pieces, and then the marker by which they count. Whether nothing else has come before."""
        still = self._is("state", before.text())
        there = []
        for index, piece in enumerate(_cut(last)):
            name = _piece_name(after, index)
            if not self._transact([still], [self._put(name, piece)], doing):
                return False
            there.append(self._is_there(name))
        operations = [self._put("state", after.text()), self._put("marker", self._marker_of(after, last))]
        if self._transact([still, self._is_absent("marker"), *there], operations, doing):
            return True
        if self._leader_and_state(doing)[1] == before:  # a removal of old pieces came late, and took new ones
            raise exceptions.StorageUnavailable(
                f"{doing}: what was prepared for it in {self._place} is gone; ask again"
            )
        return False

    def _marker_of(self, state: _State, last: Mapping[str, bytes | None]) -> bytes:
        return b"%b %d" % (state.text(), -(-_cut_bytes(last) // PIECE_BYTES))

    def _finish(self, marker: bytes, groups: Sequence[Sequence[Write]], doing: str) -> None:
        """Makes a marked commit's writes records. Where the marker is gone, somebody else has."""
        marked = [self._is("marker", marker)]
        for group in groups:
            if not self._transact(marked, self._operations(group), doing):
                return
        self._transact(marked, [self._delete("marker"), self._delete("pieces/", is_prefix=True)], doing)

    def _finish_own(self, marker: bytes, groups: Sequence[Sequence[Write]], doing: str) -> None:
        """The commit has happened, whatever becomes of the rest."""
        try:
            self._finish(marker, groups, doing)
        except exceptions.UmbelError as error:
            raise exceptions.StorageUncertain(f"{error}; it counts: ask for the same again") from error

    def _take_over(self, fencing: int, doing: str) -> None:
        """Finishes or removes what a commit has left that was not finished, and learns which records are large."""
        leads, state = self._leader_and_state(doing)
        if state.fencing != fencing:
            raise contract.fenced(self._place, fencing, self._lease(leads, state, doing))
        self._large = set(self._keys("large/", doing))
        marker, revision = self._read("marker", doing=doing)
        if marker:
            writes = dict(self._pieces(marker, revision))
            self._finish(marker, list(self._groups(writes.items())), doing)
            self._large = set(self._keys("large/", doing))
        elif self._keys("pieces/", doing):
            self._transact([self._is("state", state.text())], [self._delete("pieces/", is_prefix=True)], doing)
        self._leads_as = fencing

    def _refuse_unless_repeated(self, wanted: _State, doing: str) -> None:
        leads, state = self._leader_and_state(doing)
        if state.fencing != wanted.fencing:
            raise contract.fenced(self._place, wanted.fencing, self._lease(leads, state, doing))
        if state.number != wanted.number:
            raise contract.wrong_number(wanted.number, done=state.number)

    def _pieces(self, marker: bytes, revision: int) -> Iterator[Write]:
        state_text, count = marker.split(b" ")
        state, data = _State.of(state_text), bytearray()
        for index in range(int(count)):
            data += self._read(_piece_name(state, index), revision, doing="reading")[0]
        at = 0
        while at < len(data):
            key_bytes, value_bytes = _ENTRY.unpack_from(data, at)
            at += _ENTRY.size
            key = data[at : at + key_bytes].decode()
            at += key_bytes
            yield key, None if value_bytes < 0 else bytes(data[at : at + value_bytes])
            at += max(value_bytes, 0)

    def _groups(self, writes: Any) -> Iterator[list[Write]]:
        """As many as one transaction takes. Any: pairs, in whatever they come."""
        group: list[Write] = []
        operation_count = size_bytes = 0
        for key, value in writes:
            count = 2 if _is_large(value) or key in self._large else 1
            write_bytes = 2 * len(key.encode()) + len(value or b"") + OPERATION_BYTES
            is_full = operation_count + count > TRANSACTION_OPERATIONS_MAX
            if group and (is_full or size_bytes + write_bytes > TRANSACTION_BYTES_MAX):
                yield group
                group, operation_count, size_bytes = [], 0, 0
            group.append((key, value))
            operation_count += count
            size_bytes += write_bytes
        if group:
            yield group

    def _operations(self, writes: Sequence[Write] | Any) -> list[Json]:
        """Any: or a view of a mapping's items. Large and small records lie apart, and a key has only one."""
        operations = []
        for key, value in writes:
            kinds = ("large/", "small/") if _is_large(value) else ("small/", "large/")
            if value is None:
                operations.append(self._delete("small/" + key))
            else:
                operations.append(self._put(kinds[0] + key, value))
            if kinds[1] == "small/" or key in self._large:
                operations.append(self._delete(kinds[1] + key))
        return operations

    # ---- who leads ----

    def _leader_and_state(self, doing: str) -> tuple[Json | None, _State]:
        answer = self._transaction([], [self._get("leader"), self._get("state")], doing)
        leader, state = (one["response_range"].get("kvs", []) for one in answer["responses"])
        if not state:
            raise exceptions.StorageMismatch(
                f"{self._place} holds no longer what it held when it was opened: an etcd without its data, or another one"
            )
        return json.loads(decoded(leader[0]["value"])) if leader else None, _State.of(decoded(state[0]["value"]))

    def _lease(self, leads: Json | None, state: _State, doing: str) -> Lease:
        if leads is None:
            return Lease("", state.fencing, 0.0)
        return Lease(leads["holder"], state.fencing, self._left_s(leads["lease"], doing))

    def _keep_alive(self, lease: str, doing: str) -> float:
        """For how long it lives on; 0 when it is gone."""
        answer = self._call("/v3/lease/keepalive", {"ID": lease}, doing, changes=True)
        return float(answer.get("result", {}).get("TTL", 0))

    def _left_s(self, lease: str, doing: str) -> float:
        """In whole seconds, as etcd tells; its key may outlive that by half a second."""
        return max(float(self._call("/v3/lease/timetolive", {"ID": lease}, doing).get("TTL", 0)), 0.5)

    def _revoke(self, lease: str, doing: str) -> None:
        try:
            self._gateway.call("/v3/lease/revoke", {"ID": lease}, doing=doing, changes=True)
        except etcd_gateway.Refused:
            pass  # it has run out

    # ---- reading and writing ----

    def _prepare(self, wanted: str | None) -> str:
        about = json.dumps({"format": contract.FORMAT, "cluster": wanted or uuid.uuid4().hex}).encode()
        operations = [self._put("about", about), self._put("state", _State(0, 0).text())]
        self._transact([self._is_absent("about")], operations, "opening it")
        found = json.loads(self._read("about", doing="opening it")[0])
        contract.check_owner(self._place, version=found["format"], cluster_id=found["cluster"], wanted=wanted)
        return str(found["cluster"])

    def _read(self, name: str, revision: int = 0, *, doing: str) -> tuple[bytes, int]:
        """(its value, b"" if there is none; the revision that was read)."""
        answer = self._call_range({**self._get(name)["request_range"], "revision": revision}, doing)
        found = answer.get("kvs", [])
        return decoded(found[0].get("value", "")) if found else b"", int(answer["header"]["revision"])

    def _range(
        self, kind: str, revision: int, count: int, *, doing: str = "reading", keys_only: bool = False
    ) -> Iterator[tuple[str, bytes]]:
        """revision: 0 for what there is when each page is read."""
        start, end = self._bounds(kind)
        skipped = len(start)
        asked: Json = {"range_end": encoded(end), "limit": count, "revision": revision, "keys_only": keys_only}
        while True:
            answer = self._call_range({**asked, "key": encoded(start)}, doing)
            for found in answer.get("kvs", []):
                key = decoded(found["key"])
                yield key[skipped:].decode(), decoded(found.get("value", ""))
            if not answer.get("more"):
                return
            start = key + b"\0"

    def _keys(self, kind: str, doing: str) -> list[str]:
        return [key for key, _ in self._range(kind, 0, KEYS_PAGE, doing=doing, keys_only=True)]

    def _bounds(self, kind: str) -> tuple[bytes, bytes]:
        start = self._prefix + kind.encode()
        return start, start[:-1] + bytes([start[-1] + 1])

    def _call_range(self, asked: Json, doing: str) -> Json:
        try:
            return self._gateway.call("/v3/kv/range", asked, doing=doing)
        except etcd_gateway.Refused as error:
            raise exceptions.ControlStorageError(
                f"{doing}: {self._place} has thrown away what was to be read ({error}); load again, and let etcd keep the past "
                "for longer (--auto-compaction-retention)"
            ) from error

    def _call(self, path: str, body: Json, doing: str, *, changes: bool = False) -> Json:
        try:
            return self._gateway.call(path, body, doing=doing, changes=changes)
        except etcd_gateway.Refused as error:
            raise exceptions.StorageUnavailable(f"{doing}: {self._place} has let the lease run out: {error}") from error

    def _transact(self, compare: Sequence[Json], operations: Sequence[Json], doing: str) -> bool:
        """Whether all comparisons held, and so all operations were done."""
        return bool(self._transaction(compare, operations, doing).get("succeeded"))

    def _transaction(self, compare: Sequence[Json], operations: Sequence[Json], doing: str) -> Json:
        return self._call("/v3/kv/txn", {"compare": compare, "success": operations}, doing, changes=bool(compare))

    def _name(self, name: str) -> str:
        return encoded(self._prefix + name.encode())

    def _is(self, name: str, value: bytes) -> Json:
        return {"key": self._name(name), "target": "VALUE", "result": "EQUAL", "value": encoded(value)}

    def _is_absent(self, name: str) -> Json:
        return {"key": self._name(name), "target": "CREATE", "result": "EQUAL", "create_revision": "0"}

    def _is_there(self, name: str) -> Json:
        return {"key": self._name(name), "target": "CREATE", "result": "GREATER", "create_revision": "0"}

    def _get(self, name: str) -> Json:
        return {"request_range": {"key": self._name(name)}}

    def _put(self, name: str, value: bytes, *, lease: str = "0") -> Json:
        return {"request_put": {"key": self._name(name), "value": encoded(value), "lease": lease}}

    def _delete(self, name: str, *, is_prefix: bool = False) -> Json:
        if not is_prefix:
            return {"request_delete_range": {"key": self._name(name)}}
        start, end = self._bounds(name)
        return {"request_delete_range": {"key": encoded(start), "range_end": encoded(end)}}


def _is_large(value: bytes | None) -> bool:
    return value is not None and len(value) > SMALL_BYTES_MAX


def _piece_name(state: _State, index: int) -> str:
    return f"pieces/{state.text().decode()}.{index}"


def _cut_bytes(writes: Mapping[str, bytes | None]) -> int:
    return sum(_ENTRY.size + len(key.encode()) + len(value or b"") for key, value in writes.items())


def _cut(writes: Mapping[str, bytes | None]) -> Iterator[bytes]:
    """All writes as bytes, in pieces of the size of one."""
    data = bytearray()
    for key, value in writes.items():
        encoded_key = key.encode()
        data += _ENTRY.pack(len(encoded_key), -1 if value is None else len(value)) + encoded_key + (value or b"")
    for at in range(0, len(data), PIECE_BYTES):
        yield bytes(data[at : at + PIECE_BYTES])


def _login(url: str, options: Mapping[str, str]) -> etcd_gateway.Login:
    parts = urllib.parse.urlsplit(url)
    who, _, where = parts.netloc.rpartition("@")
    user, _, password = (urllib.parse.unquote(part) for part in who.partition(":"))
    endpoints = []
    for one in where.split(","):
        try:
            place = urllib.parse.urlsplit(f"//{one}")
            endpoints.append((place.hostname or "", place.port or PORT))
        except ValueError:
            endpoints.append(("", 0))
    if not all(host for host, _ in endpoints) or parts.path.strip("/"):
        raise urls.invalid(url, "must be etcd://host:port,host:port/?prefix=name")
    if parts.scheme != "etcds":
        if set(options) - {"prefix"}:
            raise urls.invalid(url, "has options of TLS, and is not etcds://")
        return etcd_gateway.Login(endpoints, None, user, password)
    try:
        tls = ssl.create_default_context(cafile=options.get("ca"))
        if "cert" in options:
            tls.load_cert_chain(options["cert"], options.get("key"))
    except OSError as error:
        raise urls.invalid(url, f"names certificates that cannot be read: {error}") from error
    return etcd_gateway.Login(endpoints, tls, user, password)
