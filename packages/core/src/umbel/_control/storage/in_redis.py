"""The control storage in Redis, for a head that may start again on another machine.

`redis://user:password@host:6379/0?prefix=umbel`, `rediss://` by TLS; of further options, those of redis-py
(`ssl_ca_certs`, ...). One Redis, 6.2 or later, whose append-only file is synced at each write: what it acknowledges must
survive its death, so one that is configured otherwise is refused. A replica that takes over may lack what was
acknowledged last, whatever it is configured to; so Sentinel and Redis Cluster are not what to use.

Each change is one script: Redis runs it alone and logs what it did as one transaction. Records are the fields of two
hashes, one of small values and one of large ones, so that a page of either has a bounded size. Leases are measured by
Redis's clock.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from umbel import exceptions
from umbel._control.storage import contract, urls
from umbel._model.leases import Lease

SMALL_BYTES_MAX = 16 << 10
PAGES = {"small": 1000, "large": 4}  # records in one answer: at worst 16 MiB, and 4
SNAPSHOT_KEPT_S = 60  # after whoever reads it has last asked
OWN_OPTIONS = ("prefix", "durable")
DURABLE = {  # what CONFIG says of a Redis that loses nothing that it has acknowledged
    "appendonly": "yes",
    "appendfsync": "always",
    "no-appendfsync-on-rewrite": "no",
    "maxmemory-policy": "noeviction",
}

_NOW = "local time = redis.call('TIME') local now = time[1] * 1000 + math.floor(time[2] / 1000) "
_LEASE = (
    _NOW
    + """
local row = redis.call('HMGET', KEYS[1], 'fencing', 'holder', 'until', 'number')
if not row[1] then return {'gone'} end
local fencing, holder, left, number = tonumber(row[1]), row[2], row[3] - now, tonumber(row[4])
if left <= 0 then holder = '' end
if holder == '' then left = 0 end
"""
)
OPEN = """
local found = redis.call('HMGET', KEYS[1], 'format', 'cluster')
if found[1] then return found end
redis.call('HSET', KEYS[1], 'format', ARGV[1], 'cluster', ARGV[2], 'fencing', 0, 'number', 0, 'holder', '', 'until', 0, 'ttl', 0)
return {ARGV[1], ARGV[2]}
"""
LEADER = _LEASE + "return {'lease', holder, fencing, left}"
ACQUIRE = (
    _LEASE
    + """
if holder ~= '' and holder ~= ARGV[1] then return {'lease', holder, fencing, left} end
if holder == '' then
  fencing = fencing + 1
  redis.call('HSET', KEYS[1], 'fencing', fencing, 'number', 0, 'holder', ARGV[1])
end
redis.call('HSET', KEYS[1], 'ttl', ARGV[2], 'until', now + ARGV[2])
return {'lease', ARGV[1], fencing, tonumber(ARGV[2])}
"""
)
RENEW = (
    _LEASE
    + """
if holder == '' or fencing ~= tonumber(ARGV[1]) then return {'fenced', holder, fencing, left} end
local ttl = tonumber(redis.call('HGET', KEYS[1], 'ttl'))
redis.call('HSET', KEYS[1], 'until', now + ttl)
return {'lease', holder, fencing, ttl}
"""
)
RELEASE = (
    _LEASE
    + """
if fencing == tonumber(ARGV[1]) then redis.call('HSET', KEYS[1], 'holder', '', 'until', 0) end
return {'done'}
"""
)
COMMIT = (  # ARGV: fencing, number, then for each write its key, where it goes ("s", "l", or "" for nowhere), its value
    _LEASE
    + """
if fencing ~= tonumber(ARGV[1]) then return {'fenced', holder, fencing, left} end
if number == tonumber(ARGV[2]) then return {'done'} end
if number ~= ARGV[2] - 1 then return {'number', number} end
for i = 3, #ARGV, 3 do
  if ARGV[i + 1] ~= 's' then redis.call('HDEL', KEYS[2], ARGV[i]) end
  if ARGV[i + 1] ~= 'l' then redis.call('HDEL', KEYS[3], ARGV[i]) end
  if ARGV[i + 1] == 's' then redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 2]) end
  if ARGV[i + 1] == 'l' then redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 2]) end
end
redis.call('HSET', KEYS[1], 'number', ARGV[2])
return {'done'}
"""
)
SNAPSHOT = """
if redis.call('EXISTS', KEYS[1]) == 0 then return {'gone'} end
for i = 2, 3 do
  if redis.call('COPY', KEYS[i], KEYS[i + 2]) == 1 then redis.call('EXPIRE', KEYS[i + 2], ARGV[1]) end
end
return {'copied', redis.call('EXISTS', KEYS[4]), redis.call('EXISTS', KEYS[5])}
"""
PAGE = """
if redis.call('EXPIRE', KEYS[1], ARGV[1]) == 0 then return {'gone'} end
if KEYS[2] then redis.call('EXPIRE', KEYS[2], ARGV[1]) end
return redis.call('HSCAN', KEYS[1], ARGV[2], 'COUNT', ARGV[3])
"""


class RedisStorage:
    """A `spi.ControlStorage`."""

    def __init__(self, url: str, *, cluster_id: str | None = None, timeout_s: float = 5.0) -> None:
        self._redis = _library()
        options = urls.options_of(url, None)
        prefix = options.get("prefix", "umbel")
        self._place = f"{urls.shown(url)}, prefix {prefix!r}"
        self._timeout_s = timeout_s
        self._digests: dict[str, str] = {}  # of scripts that this Redis has
        self._prefix = f"{{{prefix}}}:"  # braces: a proxy that spreads keys keeps these together
        self._meta, self._small, self._large = (self._prefix + name for name in ("meta", "small", "large"))
        self._pool = self._pool_of(url)
        try:
            if urls.is_on(url, options, "durable", default=True):
                self._check_durable()
            version, found = self._run(OPEN, [self._meta], contract.FORMAT, cluster_id or uuid.uuid4().hex)
            self._cluster_id: str = found.decode()
            contract.check_owner(self._place, version=int(version), cluster_id=self._cluster_id, wanted=cluster_id)
        except BaseException:
            self.close()
            raise

    @property
    def cluster_id(self) -> str:
        return self._cluster_id

    def load(self) -> Iterator[tuple[str, bytes]]:
        # A scan of what is being changed misses nothing, but is of no one moment: so it is one of a copy, which Redis makes
        # in one go (0.1 s for 100,000 records) and which costs it their memory meanwhile.
        name = uuid.uuid4().hex
        copies = [f"{self._prefix}snapshot:{name}:{kind}" for kind in PAGES]
        there = self._run(SNAPSHOT, [self._meta, self._small, self._large, *copies], SNAPSHOT_KEPT_S, doing="reading")
        left = [copy for copy, is_there in zip(copies, self._unless_gone(there)[1:], strict=True) if is_there]
        try:
            while left:
                yield from self._scan(left, PAGES[left[0].rpartition(":")[2]])
                self._ask("UNLINK", left.pop(0), doing="reading")
        finally:
            if left:
                with contextlib.suppress(exceptions.ControlStorageError):  # they go by themselves after a minute
                    self._ask("UNLINK", *left, doing="reading")

    def commit(self, writes: Sequence[tuple[str, bytes | None]], *, fencing: int, number: int) -> None:
        contract.check_fencing(self._place, fencing, self.leader)
        arguments: list[Any] = [fencing, number]
        for key, value in contract.last_writes(writes).items():
            where = "" if value is None else "s" if len(value) <= SMALL_BYTES_MAX else "l"
            arguments += (key.encode(), where, value or b"")
        keys = [self._meta, self._small, self._large]
        answer = self._run(COMMIT, keys, *arguments, doing=f"commit {number}", changes=True)
        if self._unless_gone(answer)[0] == b"number":
            raise contract.wrong_number(number, done=answer[1])
        self._unless_fenced(answer, fencing)

    def acquire(self, holder: str, ttl_s: float) -> Lease:
        contract.check_holder(holder, ttl_s)
        return self._lease(self._run(ACQUIRE, [self._meta], holder, int(ttl_s * 1000), doing="acquire", changes=True))

    def renew(self, fencing: int) -> Lease:
        answer = self._run(RENEW, [self._meta], fencing, doing="renew", changes=True)
        return self._lease(self._unless_fenced(answer, fencing))

    def release(self, fencing: int) -> None:
        self._unless_gone(self._run(RELEASE, [self._meta], fencing, doing="release", changes=True))

    def leader(self) -> Lease:
        return self._lease(self._run(LEADER, [self._meta], doing="asking who leads"))

    def watch_leader(self, seen: Lease, timeout_s: float) -> Lease:
        return contract.watch(self.leader, seen, timeout_s)

    def close(self) -> None:
        self._pool.disconnect()

    # ---- what scripts answer ----

    def _scan(self, copies: Sequence[str], count: int) -> Iterator[tuple[str, bytes]]:
        """The first of the copies; they are all kept meanwhile."""
        cursor = b"0"
        while True:
            cursor, flat = self._unless_gone(
                self._run(PAGE, copies, SNAPSHOT_KEPT_S, cursor, count, doing="reading"),
                f"nothing was asked of it for {SNAPSHOT_KEPT_S} s; load again, and faster",
            )
            for key, value in zip(flat[::2], flat[1::2], strict=True):
                yield key.decode(), value
            if cursor == b"0":
                return

    def _unless_gone(self, answer: list[Any], why: str = "a Redis without its data, or another one") -> list[Any]:
        if answer[0] == b"gone":
            raise exceptions.StorageMismatch(f"{self._place} holds no longer what it held when it was opened: {why}")
        return answer

    def _unless_fenced(self, answer: list[Any], fencing: int) -> list[Any]:
        if self._unless_gone(answer)[0] == b"fenced":
            raise contract.fenced(self._place, fencing, self._lease(answer))
        return answer

    def _lease(self, answer: list[Any]) -> Lease:
        _, holder, fencing, left_ms = self._unless_gone(answer)
        return Lease(holder.decode(), fencing, left_ms / 1000)

    # ---- the connection ----

    def _pool_of(self, url: str) -> Any:
        """Any: redis-py's. Asking twice is for the caller to decide, so it must not by itself."""
        try:
            pool = self._redis.ConnectionPool.from_url(
                urls.without_options(url, OWN_OPTIONS),
                socket_timeout=self._timeout_s,
                socket_connect_timeout=self._timeout_s,
                retry=self._redis.retry.Retry(self._redis.backoff.NoBackoff(), 0),
                protocol=2,
            )
            pool.connection_class(
                **pool.connection_kwargs
            )  # does not connect yet, and takes no option that it does not know
            return pool
        except (ValueError, TypeError) as error:
            raise urls.invalid(url, f"cannot be used: {error}") from error

    def _check_durable(self) -> None:
        try:
            flat = self._ask("CONFIG", "GET", "*append*", doing="opening it")
            flat += self._ask("CONFIG", "GET", "maxmemory*", doing="opening it")
        except (exceptions.AuthenticationError, exceptions.ControlStorageError) as error:
            if "CONFIG" not in str(error.__cause__).upper():  # it is not about that command
                raise
            raise exceptions.ControlStorageError(
                f"{self._place} does not tell whether it keeps what it acknowledges ({error}); allow CONFIG GET, or add "
                "durable=no to the URL if you know that it does"
            ) from error
        found = dict(zip(map(bytes.decode, flat[::2]), map(bytes.decode, flat[1::2]), strict=True))
        wrong = {name: found.get(name, "") for name, value in DURABLE.items() if found.get(name) != value}
        if found.get("maxmemory") == "0":
            wrong.pop("maxmemory-policy", None)
        if wrong:
            raise exceptions.ControlStorageError(
                f"{self._place} would lose what it has acknowledged: "
                + ", ".join(f"{name} is {value!r} and must be {DURABLE[name]!r}" for name, value in wrong.items())
                + "; change its configuration, or add durable=no to the URL to live with that"
            )

    def _run(
        self, script: str, keys: Sequence[str], *arguments: Any, doing: str = "opening it", changes: bool = False
    ) -> Any:
        """Any: what the script returns. By its digest, if Redis has seen it."""
        rest = (len(keys), *keys, *arguments)
        digest = self._digests.get(script)
        if digest is None:
            digest = self._digests[script] = self._ask("SCRIPT", "LOAD", script, doing=doing).decode()
        try:
            return self._ask("EVALSHA", digest, *rest, doing=doing, changes=changes)
        except self._redis.exceptions.NoScriptError:  # it has been started anew
            return self._ask("EVAL", script, *rest, doing=doing, changes=changes)

    def _ask(self, *command: Any, doing: str, changes: bool = False) -> Any:
        """What Redis answers. changes: without an answer, it is uncertain whether it has."""
        errors = self._redis.exceptions
        try:
            connection = self._pool.get_connection()  # tries whether the other end still has it
        except errors.AuthenticationError as error:
            raise exceptions.AuthenticationError(f"{self._place} refuses the user or the password: {error}") from error
        except (errors.RedisError, OSError) as error:
            raise exceptions.StorageUnavailable(
                f"{doing}: {self._place} cannot be reached: {error}; start it, or correct the URL"
            ) from error
        try:
            connection.send_command(*command)
            return connection.read_response()
        except errors.NoScriptError:
            raise
        except (errors.AuthenticationError, errors.NoPermissionError) as error:
            raise exceptions.AuthenticationError(f"{doing}: {self._place} does not allow it: {error}") from error
        except errors.BusyLoadingError as error:
            raise exceptions.StorageUnavailable(f"{doing}: {self._place} is reading its data: {error}") from error
        except (errors.ConnectionError, errors.TimeoutError, OSError) as error:
            connection.disconnect()
            if changes:
                raise exceptions.StorageUncertain(
                    f"{doing}: {self._place} has not answered within {self._timeout_s:g} s ({error}); ask for the same again"
                ) from error
            raise exceptions.StorageUnavailable(f"{doing}: {self._place} has not answered: {error}") from error
        except errors.RedisError as error:
            raise self._refusal(doing, error) from error
        except BaseException:
            connection.disconnect()  # an interrupt: the answer would be taken for that to the next question
            raise
        finally:
            self._pool.release(connection)

    def _refusal(self, doing: str, error: Exception) -> exceptions.ControlStorageError:
        """Redis has refused a command, and so not begun it."""
        text = str(error)
        if text.startswith(("BUSY", "LOADING", "MASTERDOWN", "You can't write against a read only", "READONLY")):
            return exceptions.StorageUnavailable(f"{doing}: {self._place} takes no writes now: {text}")
        return exceptions.ControlStorageError(f"{doing}: {self._place} refuses: {text}")


def _library() -> Any:
    """Any: redis-py, which is not there for type checkers."""
    try:
        import redis
    except ModuleNotFoundError as error:
        raise exceptions.PluginError(
            'a control storage in Redis needs redis-py; run: pip install "umbel[redis]"', plugin="redis"
        ) from error
    return redis
