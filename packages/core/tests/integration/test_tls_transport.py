"""TLS between nodes: certificates right, wrong and absent, and framed connections over it."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tcp_nodes import LIMIT_S, SUBMIT, Ends, Talk, read_to_the_end
from value_nodes import CHUNK_BYTES, ValueNodes

from umbel import exceptions
from umbel._base import tokens
from umbel._transport import acceptor, addresses, connection, dialler, tls
from umbel._wire import handshake

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="certificates are made with the openssl command"
)


@dataclass(frozen=True)
class Authority:
    """A certificate authority, and certificates by it for `localhost`."""

    folder: Path

    def issue(self, name: str, host: str) -> tuple[str, str]:
        """The files of a new certificate and of its key."""
        certificate, key = (str(self.folder / f"{name}.{suffix}") for suffix in ("crt", "key"))
        extensions = self.folder / f"{name}.ext"
        extensions.write_text(  # the identifiers are what Python 3.13 insists on
            f"subjectAltName=DNS:{host},IP:127.0.0.1\nbasicConstraints=CA:FALSE\n"
            "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
        )
        request = str(self.folder / f"{name}.csr")
        _openssl("req", "-new", *_NEW_KEY, "-keyout", key, "-subj", f"/CN={name}", "-out", request)
        signer = ("-CA", str(self.folder / "ca.crt"), "-CAkey", str(self.folder / "ca.key"), "-CAcreateserial")
        _openssl(
            "x509", "-req", "-in", request, *signer, "-days", "2", "-extfile", str(extensions), "-out", certificate
        )
        return certificate, key

    @property
    def file(self) -> str:
        return str(self.folder / "ca.crt")


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=LIMIT_S)


def _authority(folder: Path) -> Authority:
    folder.mkdir()
    key, certificate = str(folder / "ca.key"), str(folder / "ca.crt")
    # By file, so that the system's own configuration does not decide what kind of certificate it is.
    (folder / "ca.cnf").write_text(
        "[req]\ndistinguished_name=dn\nx509_extensions=v3\nprompt=no\n[dn]\nCN=authority\n"
        "[v3]\nbasicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\nsubjectKeyIdentifier=hash\n"
    )
    config = ("-config", str(folder / "ca.cnf"))
    _openssl("req", "-x509", *config, *_NEW_KEY, "-keyout", key, "-days", "2", "-out", certificate)
    return Authority(folder)


@dataclass(frozen=True)
class Certificates:
    ours: Authority
    theirs: Authority
    server: tuple[str, str]
    elsewhere: tuple[str, str]
    client: tuple[str, str]
    foreign: tuple[str, str]

    def of_server(self, *, asks_client: bool = False) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.server)
        if asks_client:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.ours.file)
        return context

    def of_client(self, certificate: tuple[str, str] | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.ours.file)
        if certificate:
            context.load_cert_chain(*certificate)
        return context


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("tls")
    ours, theirs = _authority(folder / "ours"), _authority(folder / "theirs")
    return Certificates(
        ours,
        theirs,
        server=ours.issue("server", "localhost"),
        elsewhere=ours.issue("elsewhere", "elsewhere.example"),
        client=ours.issue("client", "client.example"),
        foreign=theirs.issue("foreign", "client.example"),
    )


@pytest.fixture
def make_ends() -> Iterator[Callable[..., Ends]]:
    made: list[Ends] = []

    def make(**options: Any) -> Ends:
        made.append(Ends(**options))
        return made[-1]

    yield make
    for ends in made:
        ends.close()


@pytest.fixture
def pair(certificates: Certificates, make_ends: Callable[..., Ends]) -> Iterator[tuple[Ends, Talk, Talk]]:
    """Both ends of a framed connection."""
    ends = make_ends(tls=certificates.of_server(), tls_of_client=certificates.of_client())
    server, client = (Talk(stream, ends.poller) for stream in ends.pair())
    yield ends, server, client
    server.connection.close()
    client.connection.close()


# ---- who gets in ----


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=str)
def test_handshake_runs_inside_tls(
    certificates: Certificates, make_ends: Callable[..., Ends], version: ssl.TLSVersion
) -> None:
    context = certificates.of_server(asks_client=True)
    context.minimum_version = context.maximum_version = version
    ends = make_ends(tls=context, tls_of_client=certificates.of_client(certificates.client))
    ends.dial(handshake.CONTROL)
    ends.until(lambda: (ends.peers and ends.connected) or ends.failed)
    ((stream, role, target),) = ends.peers
    assert (role, target, type(stream)) == (tokens.Role.SUBMIT, handshake.CONTROL, tls.TlsStream)
    assert ends.log == []


def test_blocking_connection_is_the_same(certificates: Certificates, make_ends: Callable[..., Ends]) -> None:
    ends = make_ends(tls=certificates.of_server())
    with ends.served():
        stream = dialler.connect(
            ends.address,
            SUBMIT,
            handshake.AGENT,
            timeout_s=LIMIT_S,
            tls=certificates.of_client(),
            server_name="localhost",
        )
    ends.connected.append(stream)
    ends.until(lambda: ends.peers)


def test_token_is_asked_for_inside_tls_too(certificates: Certificates, make_ends: Callable[..., Ends]) -> None:
    wrong = tokens.Token(tokens.Role.SUBMIT, bytes(32))
    ends = make_ends(tls=certificates.of_server(), tls_of_client=certificates.of_client(), dial_token=wrong)
    ends.dial()
    ends.until(lambda: ends.failed and ends.log)
    assert "it does not accept this token" in str(ends.failed[0])
    assert "its token is not one of this cluster" in ends.log[0]


def test_client_without_certificate_is_refused_where_one_is_asked_for(
    certificates: Certificates, make_ends: Callable[..., Ends]
) -> None:
    ends = make_ends(tls=certificates.of_server(asks_client=True), tls_of_client=certificates.of_client())
    ends.dial()
    ends.until(lambda: ends.failed and ends.log)
    assert ends.log == ["refused a connection from 127.0.0.1: TLS failed: peer did not return a certificate"]
    assert isinstance(ends.failed[0], (exceptions.AuthenticationError, ConnectionError))
    assert (ends.peers, ends.connected) == ([], [])


def test_client_with_a_certificate_of_another_authority_is_refused(
    certificates: Certificates, make_ends: Callable[..., Ends]
) -> None:
    of_client = certificates.of_client(certificates.foreign)
    ends = make_ends(tls=certificates.of_server(asks_client=True), tls_of_client=of_client)
    ends.dial()
    ends.until(lambda: ends.failed and ends.log)
    assert ends.log[0].startswith("refused a connection from 127.0.0.1: TLS failed: certificate verify failed")
    assert (ends.peers, ends.connected) == ([], [])


def test_server_of_another_authority_is_refused_before_the_client_proves_anything(
    certificates: Certificates, make_ends: Callable[..., Ends]
) -> None:
    of_client = ssl.create_default_context(cafile=certificates.theirs.file)
    ends = make_ends(tls=certificates.of_server(), tls_of_client=of_client)
    ends.dial()
    ends.until(lambda: ends.failed and ends.log)
    assert isinstance(ends.failed[0], exceptions.AuthenticationError)
    assert f"the connection to {ends.address} failed: TLS failed: certificate verify failed" in str(ends.failed[0])
    assert isinstance(ends.failed[0].__cause__, ssl.SSLError)


def test_server_with_a_certificate_for_another_name_is_refused(
    certificates: Certificates, make_ends: Callable[..., Ends]
) -> None:
    ends = make_ends(tls=certificates.of_server(), tls_of_client=certificates.of_client())
    ends.dialler.dial(
        ends.address, handshake.AGENT, ends.connected.append, ends.failed.append, server_name="elsewhere.example"
    )
    ends.until(lambda: ends.failed)
    assert "certificate verify failed (Hostname mismatch" in str(ends.failed[0])


def test_client_without_tls_is_told_that_it_is_needed(
    certificates: Certificates, make_ends: Callable[..., Ends]
) -> None:
    ends = make_ends(tls=certificates.of_server())
    ends.dial()
    ends.until(lambda: ends.failed)
    assert "it wants TLS, and this side was given none; name its certificates by --tls" in str(ends.failed[0])
    assert ends.log == [
        "refused a connection from 127.0.0.1: it wants no TLS and this node insists on it; configure both alike"
    ]
    assert ends.peers == []


def test_client_with_tls_does_not_go_on_without_it(certificates: Certificates, make_ends: Callable[..., Ends]) -> None:
    ends = make_ends(tls_of_client=certificates.of_client())
    ends.dial()
    ends.until(lambda: ends.failed and ends.log)
    assert ends.log == [
        "refused a connection from 127.0.0.1: it wants TLS and this node has none; configure both alike"
    ]
    if isinstance(ends.failed[0], exceptions.AuthenticationError):
        assert "what came is not TLS, which has to be configured at both ends" in str(ends.failed[0])
    else:  # the system has dropped the server's answer, since more came behind the preamble
        assert isinstance(ends.failed[0], ConnectionError)
    assert (ends.peers, ends.connected) == ([], [])


def test_garbage_in_the_place_of_tls_is_refused(certificates: Certificates, make_ends: Callable[..., Ends]) -> None:
    ends = make_ends(tls=certificates.of_server())
    stranger = ends.stranger()
    stranger.send(handshake.encode_preamble(handshake.AGENT, is_tls=True) + b"garbage" * 1000)
    ends.until(lambda: ends.log)
    assert ends.log[0].startswith("refused a connection from 127.0.0.1: TLS failed: ")
    read_to_the_end(stranger)


def test_stranger_that_is_slow_inside_tls_is_cut_at_the_deadline(
    certificates: Certificates, make_ends: Callable[..., Ends]
) -> None:
    ends = make_ends(tls=certificates.of_server())
    stranger = ends.stranger()
    stranger.send(handshake.encode_preamble(handshake.AGENT, is_tls=True) + b"\x16\x03\x01")
    ends.until(lambda: ends.acceptor.stranger_count)
    for _ in range(5):
        ends.poll()
        ends.clock.advance(1.0)
    ends.until(lambda: ends.log)
    assert ends.log == ["refused a connection from 127.0.0.1: it did not prove itself within 5 s"]
    read_to_the_end(stranger)


def test_client_that_speaks_before_its_turn_is_refused(
    certificates: Certificates, make_ends: Callable[..., Ends]
) -> None:
    """In one record of TLS with its proof: what is behind it would lie where no poller looks."""
    ends = make_ends(tls=certificates.of_server())
    sock = ends.stranger()
    failed = []

    def speak() -> None:
        sock.sendall(handshake.encode_preamble(handshake.AGENT, is_tls=True))
        secured = certificates.of_client().wrap_socket(sock, server_hostname="localhost")
        client = handshake.ClientHandshake(SUBMIT, handshake.AGENT, bytes(32), is_tls=True)
        secured.sendall(client.feed(secured.recv(client.wanted)) + b"\x02\0\0\0hi")
        failed.append(read_to_the_end(secured))
        secured.close()

    thread = threading.Thread(target=speak)
    thread.start()
    ends.until(lambda: ends.log)
    thread.join(LIMIT_S)
    assert not thread.is_alive()
    assert ends.log == ["refused a connection from 127.0.0.1: it spoke before it was its turn"]
    assert ends.peers == []


def test_connection_for_another_process_is_passed_on_before_tls_begins(
    certificates: Certificates, make_ends: Callable[..., Ends]
) -> None:
    process = handshake.process(b"p" * 16)
    passed: list[tuple[socket.socket, bytes]] = []

    def divert(sock: socket.socket, preamble: handshake.Preamble) -> bool:
        passed.append((socket.socket(fileno=sock.detach()), preamble.data))
        return True

    ends = make_ends(divert=divert, tls_of_client=certificates.of_client())  # whoever passes it on needs no certificate
    peers: list[handshake.Target] = []
    other = acceptor.Acceptor(
        ends.poller,
        SUBMIT,
        lambda stream, _role, target: (peers.append(target), stream.close()),
        now_s=ends.clock.now_s,
        warn=ends.log.append,
        tls=certificates.of_server(),
    )
    ends.dial(process)
    ends.until(lambda: passed)
    other.adopt(*passed.pop(), "127.0.0.1")
    ends.until(lambda: peers and ends.connected)
    assert (peers, ends.log) == ([process], [])


# ---- framed connections over it ----


def test_frames_of_any_size_arrive_whole_and_in_order(pair: tuple[Ends, Talk, Talk]) -> None:
    """Around the sizes of a record, of what is read at once, and of what a socket takes."""
    ends, server, client = pair
    sizes = [0, 1, 16_379, 16_380, 16_381, 32_768, 65_531, 65_532, 65_533, 65_536, 100_000, 5_000_000, 3]
    payloads = [bytes([number]) * size for number, size in enumerate(sizes)]
    for payload in payloads:
        server.send(payload)
        client.send(payload)
    ends.until(lambda: len(server.frames) == len(client.frames) == len(sizes))
    assert server.frames == client.frames == payloads


def test_many_small_frames_leave_nothing_behind_in_the_buffers_of_tls(pair: tuple[Ends, Talk, Talk]) -> None:
    """What was decrypted and not taken would wait for the next byte, which does not come."""
    ends, server, client = pair
    for size in (10_000, 7, 16_384, 1_000):
        before = len(client.frames)
        for _ in range(200):
            server.send(bytes(size))
        ends.until(lambda: len(client.frames) == before + 200)


def test_rest_of_a_record_is_not_left_where_no_poller_sees_it(
    certificates: Certificates, make_ends: Callable[..., Ends]
) -> None:
    ends = make_ends(tls=certificates.of_server(), tls_of_client=certificates.of_client())
    server, client = ends.pair()
    sent = bytes(range(256)) * 400
    for count in (16_384, 10_000, 16_000, 5, 20_000):
        assert server.send(sent[:count]) == count
    received: list[bytes] = []
    connection.wait_readable(client._ssl, LIMIT_S)
    while sum(map(len, received)) < 62_389:
        try:
            received.append(client.recv(20_000))
        except BlockingIOError:
            connection.wait_readable(client._ssl, LIMIT_S)
        assert client.pending_bytes == 0
    assert b"".join(received) == b"".join(sent[:count] for count in (16_384, 10_000, 16_000, 5, 20_000))
    assert max(map(len, received)) <= 20_000
    server.close()
    client.close()


def test_socket_that_takes_nothing_more_says_so(certificates: Certificates, make_ends: Callable[..., Ends]) -> None:
    ends = make_ends(tls=certificates.of_server(), tls_of_client=certificates.of_client())
    server, client = ends.pair()
    piece = bytes(range(256)) * 400
    sent = bytearray()
    with pytest.raises(BlockingIOError):
        while True:
            sent += piece[: server.send(piece[len(sent) % 256 :])]
    received = bytearray()
    with pytest.raises(BlockingIOError):
        while True:
            received += client.recv(65_536)
    server.send(piece[len(sent) % 256 :])  # goes on with what was refused, unchanged
    assert 0 < len(received) <= len(sent)
    server.close()
    client.close()


def test_several_threads_send_while_another_receives(
    certificates: Certificates, make_ends: Callable[..., Ends]
) -> None:
    """Which OpenSSL does not allow for one connection: never are two of them in it at once."""
    overlaps = []

    class Watched(ssl.SSLSocket):
        is_inside = False

        @contextlib.contextmanager
        def _inside(self) -> Iterator[None]:
            if self.is_inside:
                overlaps.append(self)
            self.is_inside = True
            time.sleep(0)  # another thread's turn, as while OpenSSL works
            try:
                yield
            finally:
                self.is_inside = False

        def recv(self, *args: Any) -> bytes:
            with self._inside():
                return super().recv(*args)

        def send(self, *args: Any) -> int:
            with self._inside():
                return super().send(*args)

    of_server, of_client = certificates.of_server(), certificates.of_client()
    of_server.sslsocket_class = of_client.sslsocket_class = Watched
    ends = make_ends(tls=of_server, tls_of_client=of_client)
    talks = [Talk(stream, ends.poller) for stream in ends.pair()]
    counts = 300

    def send(talk: Talk, number: int) -> None:
        for _ in range(counts):
            talk.send(bytes([number]) * 3_000)

    threads = [threading.Thread(target=send, args=(talk, number)) for talk in talks for number in range(3)]
    for thread in threads:
        thread.start()
    ends.until(lambda: all(len(talk.frames) == 3 * counts for talk in talks))
    for thread in threads:
        thread.join(LIMIT_S)
        assert not thread.is_alive()
    for talk in talks:
        assert sorted(talk.frames) == [bytes([number]) * 3_000 for number in range(3) for _ in range(counts)]
        talk.connection.close()
    assert overlaps == []


def test_receiver_that_is_slow_gets_all_that_was_queued(pair: tuple[Ends, Talk, Talk]) -> None:
    ends, server, client = pair
    while not server.connection.queued_bytes > 1 << 20:
        server.send(bytes(50_000))
    ends.until(lambda: not server.connection.queued_bytes)
    server.send(b"last")
    ends.until(lambda: client.frames and client.frames[-1] == b"last")
    assert {len(frame) for frame in client.frames[:-1]} == {50_000}


def test_end_of_one_side_is_the_end_of_the_other(pair: tuple[Ends, Talk, Talk]) -> None:
    ends, server, client = pair
    client.send(b"last")
    client.connection.close()
    ends.until(lambda: server.connection.is_closed)
    assert server.frames == [b"last"]


def test_refused_name_of_a_server_is_told(certificates: Certificates, make_ends: Callable[..., Ends]) -> None:
    ends = make_ends(tls=certificates.of_server(), tls_of_client=certificates.of_client())
    ends.dialler.dial(
        addresses.Address("127.0.0.1", ends.address.port),
        handshake.AGENT,
        ends.connected.append,
        ends.failed.append,
        server_name=".example",
    )
    ends.until(lambda: ends.failed)
    assert "TLS cannot begin: " in str(ends.failed[0])


def test_values_go_from_node_to_node(certificates: Certificates, tmp_path: Path) -> None:
    cluster = ValueNodes(tmp_path)
    try:
        options = {"tls": certificates.of_server(), "tls_of_client": certificates.of_client()}
        origin, reader = cluster.add(**options), cluster.add(**options)
        data = os.urandom(30 * CHUNK_BYTES + 5)
        reader.want("0a", len(data), (origin, origin.put(data)))
        cluster.until(lambda: reader.got)
        assert reader.read()[: len(data)] == data
    finally:
        cluster.close()
