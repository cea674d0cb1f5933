"""The handshake by what each side is sent: who gets in, who does not, and what either is told."""

from __future__ import annotations

import hmac
import struct

import pytest

from umbel import exceptions
from umbel._base import tokens
from umbel._wire import handshake
from umbel._wire.handshake import AGENT, CONTROL, Accepted, Answer, Failed

SECRET = tokens.Token(tokens.Role.HEAD, bytes(range(32)))
OTHER_SECRET = tokens.Token(tokens.Role.HEAD, bytes(range(1, 33)))
NODE, ADMIN, SUBMIT, READ = (
    SECRET.lowered(role) for role in (tokens.Role.NODE, tokens.Role.ADMIN, tokens.Role.SUBMIT, tokens.Role.READ)
)
SERVER_NONCE, CLIENT_NONCE = b"s" * 32, b"c" * 32
PROCESS = handshake.process(b"p" * 16)


class Wire:
    """A client and a server, and what each has sent."""

    def __init__(
        self,
        *,
        client_token: tokens.Token = SUBMIT,
        server_token: tokens.Token = SECRET,
        target: handshake.Target = AGENT,
        server_nonce: bytes = SERVER_NONCE,
        client_nonce: bytes = CLIENT_NONCE,
        decide: handshake.Decide = handshake.may_reach,
    ) -> None:
        self.client = handshake.ClientHandshake(client_token, target, client_nonce, is_tls=False)
        self.preamble = handshake.encode_preamble(target, is_tls=False)
        preamble = handshake.read_preamble(self.preamble)
        assert isinstance(preamble, handshake.Preamble)
        self.server = handshake.ServerHandshake(preamble, handshake.Keys(server_token), server_nonce, decide)
        self.challenge = self.server.greeting
        self.proof = self.verdict = b""

    def run(self) -> Wire:
        self.proof = self.client.feed(self.challenge)
        if self.proof:
            self.verdict = self.server.feed(self.proof)
            self.client.feed(self.verdict)
        return self


def server(preamble: bytes, nonce: bytes = SERVER_NONCE, token: tokens.Token = SECRET) -> handshake.ServerHandshake:
    parsed = handshake.read_preamble(preamble)
    assert isinstance(parsed, handshake.Preamble)
    return handshake.ServerHandshake(parsed, handshake.Keys(token), nonce)


def read_preamble(data: bytes) -> handshake.PreambleReader:
    """As one byte after another comes, until there is an outcome."""
    reader = handshake.PreambleReader()
    for byte in data:
        if reader.outcome is None:
            reader.feed(bytes([byte]))
    return reader


# ---- who gets in ----


@pytest.mark.parametrize("token", [READ, SUBMIT, ADMIN, NODE], ids=lambda token: token.role.text)
def test_both_sides_with_the_token_of_a_role_accept_each_other(token: tokens.Token) -> None:
    wire = Wire(client_token=token, target=AGENT).run()
    assert wire.server.outcome == wire.client.outcome == Accepted(token.role, AGENT)


@pytest.mark.parametrize("target", [AGENT, CONTROL, PROCESS], ids=str)
def test_server_is_told_what_the_client_wants_to_reach(target: handshake.Target) -> None:
    wire = Wire(target=target).run()
    assert wire.server.outcome == wire.client.outcome == Accepted(tokens.Role.SUBMIT, target)


def test_all_messages_have_the_sizes_that_are_written_down() -> None:
    wire = Wire().run()
    sizes = [len(wire.preamble), len(wire.challenge), len(wire.proof), len(wire.verdict)]
    assert sizes == [27, 42, 65, 33]
    assert sizes == [
        handshake.PREAMBLE_BYTES,
        handshake.CHALLENGE_BYTES,
        handshake.ANSWER_BYTES,
        handshake.VERDICT_BYTES,
    ]


def test_conversation_of_version_1_is_this_one() -> None:
    """Byte by byte, written without the module's own code: what is installed elsewhere speaks so."""
    wire = Wire(target=PROCESS).run()
    preamble = b"\xd5UMBEL\r\n\x01\x00\x03" + b"p" * 16
    challenge = b"\xd5UMBEL\r\n\x01\x00" + SERVER_NONCE
    unproved = b"\x02" + CLIENT_NONCE
    key = SUBMIT.key
    proof = unproved + hmac.digest(key, b"umbel handshake 1, client\0" + preamble + challenge + unproved, "sha256")
    said = preamble + challenge + proof
    verdict = b"\x01" + hmac.digest(key, b"umbel handshake 1, server\0" + said + b"\x01", "sha256")
    assert [wire.preamble, wire.challenge, wire.proof, wire.verdict] == [preamble, challenge, proof, verdict]


def test_no_part_of_a_key_is_on_the_wire() -> None:
    wire = Wire().run()
    sent = wire.preamble + wire.challenge + wire.proof + wire.verdict
    for token in (SECRET, NODE, ADMIN, SUBMIT, READ):
        assert not any(token.key[start : start + 4] in sent for start in range(29))


def test_to_a_process_a_higher_token_shows_only_that_of_submit() -> None:
    """The process may be a user's, who has no higher one and could not check it."""
    wire = Wire(client_token=SECRET, server_token=SUBMIT, target=PROCESS).run()
    assert wire.server.outcome == wire.client.outcome == Accepted(tokens.Role.SUBMIT, PROCESS)


def test_whoever_keeps_the_secret_shows_itself_to_a_node_as_a_node() -> None:
    wire = Wire(client_token=SECRET, server_token=NODE).run()
    assert wire.server.outcome == wire.client.outcome == Accepted(tokens.Role.NODE, AGENT)


# ---- wrong tokens ----


def test_wrong_token_is_refused_at_both_ends() -> None:
    wire = Wire(client_token=OTHER_SECRET.lowered(tokens.Role.SUBMIT)).run()
    assert isinstance(wire.server.outcome, Failed)
    assert isinstance(wire.client.outcome, Failed)
    assert "its token is not one of this cluster" in wire.server.outcome.reason
    assert "does not accept this token of the role 'submit'" in wire.client.outcome.reason


@pytest.mark.parametrize("target", [handshake.VALUES, handshake.LEASES, handshake.PACKAGES])
def test_only_nodes_get_at_values_leases_and_packages_of_all(target: handshake.Target) -> None:
    assert Wire(client_token=NODE, target=target).run().server.outcome == Accepted(tokens.Role.NODE, target)
    for token in (ADMIN, SUBMIT, READ):
        outcome = Wire(client_token=token, target=target).run().client.outcome
        assert isinstance(outcome, Failed) and "may not reach" in outcome.reason


@pytest.mark.parametrize("claimed", [tokens.Role.ADMIN, tokens.Role.NODE, tokens.Role.HEAD, tokens.Role.READ])
def test_key_of_one_role_does_not_prove_another(claimed: tokens.Role) -> None:
    token = tokens.Token(claimed, SUBMIT.key)
    wire = Wire(client_token=token)
    wire.client._token = token  # it would show a lower role than the head's by itself
    assert isinstance(wire.run().server.outcome, Failed)


def test_unknown_role_is_answered_like_a_wrong_token() -> None:
    answers = set()
    for role in range(256):
        wire = Wire()
        wire.proof = bytes([role]) + CLIENT_NONCE + b"x" * 32
        answers.add(wire.server.feed(wire.proof))
        assert wire.server.outcome == Failed("its token is not one of this cluster, or not of the role that it claims")
    assert answers == {bytes(33)}


def test_proof_under_the_key_that_stands_in_for_unknown_roles_is_refused() -> None:
    wire = Wire()
    unproved = b"\x09" + CLIENT_NONCE
    said = wire.preamble + wire.challenge + unproved
    proof = hmac.digest(bytes(32), b"umbel handshake 1, client\0" + said, "sha256")
    assert wire.server.feed(unproved + proof) == bytes(33)
    assert isinstance(wire.server.outcome, Failed)


def test_role_above_that_of_the_server_is_refused_as_unknown() -> None:
    wire = Wire(client_token=ADMIN, server_token=SUBMIT).run()
    assert isinstance(wire.server.outcome, Failed)
    assert wire.verdict == bytes(33)


def test_server_without_the_token_is_refused_by_the_client() -> None:
    """It lets everybody in, in the hope to be believed."""
    wire = Wire()
    wire.client.feed(wire.challenge)
    for answer in Answer:
        client = handshake.ClientHandshake(SUBMIT, AGENT, CLIENT_NONCE, is_tls=False)
        client.feed(wire.challenge)
        client.feed(struct.pack(">B32s", answer, b"x" * 32))
        assert isinstance(client.outcome, Failed)


# ---- what is not allowed, or not there ----


def test_reader_may_not_reach_a_process_and_is_told_so() -> None:
    wire = Wire(client_token=READ, target=PROCESS).run()
    assert wire.server.outcome == Failed("its role 'read' may not reach process")
    assert isinstance(wire.client.outcome, Failed)
    assert "the role 'read' may not reach process 7070" in wire.client.outcome.reason


def test_who_has_proved_itself_is_told_that_the_target_is_absent() -> None:
    wire = Wire(target=PROCESS, decide=lambda _role, _target: Answer.ABSENT).run()
    assert wire.server.outcome == Failed("it wants a process that is not here")
    assert wire.client.outcome == Failed(f"there is no {PROCESS} at that address", Answer.ABSENT)


def test_stranger_is_not_told_what_is_absent() -> None:
    wrong = OTHER_SECRET.lowered(tokens.Role.SUBMIT)
    wire = Wire(client_token=wrong, target=PROCESS, decide=lambda _role, _target: Answer.ABSENT).run()
    assert wire.verdict == bytes(33)


@pytest.mark.parametrize("answer", [Answer.FORBIDDEN, Answer.ABSENT, Answer.REFUSED])
def test_verdict_that_was_changed_on_the_way_to_a_welcome_is_not_believed(answer: Answer) -> None:
    wire = Wire(decide=lambda _role, _target: answer)
    verdict = wire.server.feed(wire.client.feed(wire.challenge))
    wire.client.feed(bytes([Answer.WELCOME]) + verdict[1:])
    assert isinstance(wire.client.outcome, Failed)


# ---- replay, reflection, changes on the way ----


def test_recorded_conversation_gets_nothing_from_a_server_with_a_new_nonce() -> None:
    recorded = Wire().run()
    later = server(recorded.preamble, nonce=b"t" * 32)
    assert later.feed(recorded.proof) == bytes(33)
    assert isinstance(later.outcome, Failed)


def test_recorded_conversation_does_not_convince_a_client_with_a_new_nonce() -> None:
    recorded = Wire().run()
    client = handshake.ClientHandshake(SUBMIT, AGENT, b"d" * 32, is_tls=False)
    client.feed(recorded.challenge)
    client.feed(recorded.verdict)
    assert isinstance(client.outcome, Failed)


def test_client_that_gets_back_what_it_sends_accepts_nobody() -> None:
    client = handshake.ClientHandshake(SUBMIT, AGENT, CLIENT_NONCE, is_tls=False)
    challenge = Wire().challenge
    proof = client.feed(challenge)
    client.feed(proof[:33])
    assert isinstance(client.outcome, Failed)
    for answer in Answer:  # its own proof, in the place of the server's
        client = handshake.ClientHandshake(SUBMIT, AGENT, CLIENT_NONCE, is_tls=False)
        proof = client.feed(challenge)
        client.feed(bytes([answer]) + proof[-32:])
        assert isinstance(client.outcome, Failed)


def test_server_that_gets_back_a_servers_proof_accepts_nobody() -> None:
    """Somebody opens two connections and passes the nonces of one server on to another."""
    wire = Wire().run()
    second = server(wire.preamble)
    second.feed(b"\x02" + CLIENT_NONCE + wire.verdict[1:])
    assert isinstance(second.outcome, Failed)


def test_client_knows_its_own_preamble_when_it_comes_back() -> None:
    """A socket can be connected to itself."""
    client = handshake.ClientHandshake(SUBMIT, AGENT, CLIENT_NONCE, is_tls=False)
    assert client.feed(handshake.encode_preamble(AGENT, is_tls=False)) == b""
    assert client.outcome is None
    assert client.wanted == 42 - 27


def test_every_bit_of_the_conversation_is_covered_by_the_proofs() -> None:
    """Somebody on the way changes one bit of one message; at least one side refuses, and never the wrong one alone."""
    wire = Wire(target=PROCESS).run()
    for bit in range(len(wire.proof) * 8):
        changed = _flipped(wire.proof, bit)
        assert isinstance(_outcome(server(wire.preamble), changed), Failed), bit
    for bit in range(len(wire.challenge) * 8):
        client = handshake.ClientHandshake(SUBMIT, PROCESS, CLIENT_NONCE, is_tls=False)
        proof = client.feed(_flipped(wire.challenge, bit))
        if client.outcome is None:
            assert isinstance(_outcome(server(wire.preamble), proof), Failed), bit
    for bit in range(len(wire.preamble) * 8):
        parsed = handshake.read_preamble(_flipped(wire.preamble, bit))
        if isinstance(parsed, handshake.Preamble):
            machine = handshake.ServerHandshake(parsed, handshake.Keys(SECRET), SERVER_NONCE)
            assert isinstance(_outcome(machine, wire.proof), Failed), bit
    for bit in range(len(wire.verdict) * 8):
        client = handshake.ClientHandshake(SUBMIT, PROCESS, CLIENT_NONCE, is_tls=False)
        client.feed(wire.challenge)
        client.feed(_flipped(wire.verdict, bit))
        assert isinstance(client.outcome, Failed), bit


def _flipped(data: bytes, bit: int) -> bytes:
    return (int.from_bytes(data, "little") ^ (1 << bit)).to_bytes(len(data), "little")


def _outcome(machine: handshake.ServerHandshake, data: bytes) -> handshake.Outcome | None:
    machine.feed(data)
    return machine.outcome


# ---- broken streams ----


def test_conversation_cut_at_any_byte_accepts_nobody() -> None:
    wire = Wire().run()
    for cut in range(len(wire.preamble)):
        assert read_preamble(wire.preamble[:cut]).outcome is None, cut
    for cut in range(len(wire.proof)):
        machine = server(wire.preamble)
        assert machine.feed(wire.proof[:cut]) == b"", cut
        assert machine.outcome is None, cut
        assert machine.wanted == len(wire.proof) - cut
    for cut in range(len(wire.challenge)):
        client = handshake.ClientHandshake(SUBMIT, AGENT, CLIENT_NONCE, is_tls=False)
        assert client.feed(wire.challenge[:cut]) == b"", cut
        assert client.outcome is None, cut
    for cut in range(len(wire.verdict)):
        client = handshake.ClientHandshake(SUBMIT, AGENT, CLIENT_NONCE, is_tls=False)
        client.feed(wire.challenge)
        client.feed(wire.verdict[:cut])
        assert client.outcome is None, cut


def test_no_more_is_taken_than_was_wanted() -> None:
    """What a side sends behind its part belongs to the frames, which the handshake must not swallow."""
    wire = Wire()
    with pytest.raises(exceptions.InternalError, match="more was read"):
        wire.server.feed(b"x" * 66)
    with pytest.raises(exceptions.InternalError, match="more was read"):
        wire.client.feed(b"x" * 43)
    with pytest.raises(exceptions.InternalError, match="more was read"):
        handshake.PreambleReader().feed(b"x" * 28)


@pytest.mark.parametrize(
    ("sent", "reason", "read_bytes"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "it is not Umbel that speaks there, but HTTP or some other text", 1),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "it is not Umbel that speaks there, but HTTP or some other text", 1),
        (b"\x16\x03\x01\x02\x00\x01", "it speaks TLS from the first byte, which Umbel does not", 1),
        (b"\x00" * 100, "it is not Umbel that speaks there", 1),
        (b"\xd5UMBEL\n\n" + bytes(100), "it is not Umbel that speaks there", 7),
        (b"\xd5UMBEL\r\n\x00" + bytes(100), "it speaks version 0 of the handshake, which is older", 9),
        (b"\xd5UMBEL\r\n\x02" + bytes(100), "it speaks version 2 of the handshake, which is newer", 9),
        (b"\xd5UMBEL\r\n\x01\x00\x0a" + bytes(16), "it asks for something that does not exist in this version", 27),
        (b"\xd5UMBEL\r\n\x01\x00\x00" + bytes(16), "it asks for something that does not exist in this version", 27),
        (b"\xd5UMBEL\r\n\x01\x02\x01" + bytes(16), "it asks for something that does not exist in this version", 27),
        (b"\xd5UMBEL\r\n\x01\x00\x01" + b"x" * 16, "it asks for something that does not exist in this version", 27),
    ],
)  # fmt: skip
def test_what_is_no_preamble_is_refused_at_the_first_byte_that_shows_it(
    sent: bytes, reason: str, read_bytes: int
) -> None:
    reader = handshake.PreambleReader()
    for count in range(1, read_bytes + 1):
        assert reader.outcome is None, count
        reader.feed(sent[count - 1 : count])
    assert isinstance(reader.outcome, Failed)
    assert reader.outcome.reason.startswith(reason)
    assert reader.wanted == 0


def test_client_of_another_version_is_told_which_this_one_is() -> None:
    reader = read_preamble(b"\xd5UMBEL\r\n\x07")
    assert reader.reply[:9] == b"\xd5UMBEL\r\n\x01"
    client = handshake.ClientHandshake(SUBMIT, AGENT, CLIENT_NONCE, is_tls=False)
    client.feed(b"\xd5UMBEL\r\n\x07")  # as a server of version 7 would tell ours
    assert isinstance(client.outcome, Failed)
    assert client.outcome.reason.startswith("it speaks version 7 of the handshake, which is newer; this side speaks 1")


@pytest.mark.parametrize(("has_tls", "reason"), [(True, "it wants TLS"), (False, "it has no TLS")])
def test_client_is_told_when_only_one_side_has_tls(has_tls: bool, reason: str) -> None:
    client = handshake.ClientHandshake(SUBMIT, AGENT, CLIENT_NONCE, is_tls=not has_tls)
    assert client.feed(handshake.reply_about_tls(has_tls=has_tls)) == b""
    assert isinstance(client.outcome, Failed)
    assert client.outcome.reason.startswith(reason)


def test_client_does_not_answer_what_is_not_umbel() -> None:
    client = handshake.ClientHandshake(SUBMIT, AGENT, CLIENT_NONCE, is_tls=False)
    assert client.feed(b"HTTP/1.1 400 Bad Request\r\n") == b""
    assert client.outcome == Failed("it is not Umbel that speaks there, but HTTP or some other text")


def test_preamble_from_another_process_is_checked_again() -> None:
    good = handshake.encode_preamble(PROCESS, is_tls=True)
    assert handshake.read_preamble(good) == handshake.Preamble(PROCESS, True, good)
    for wrong in (b"", good[:-1], good + b"x", b"x" + good[1:]):
        assert isinstance(handshake.read_preamble(wrong), Failed)


@pytest.mark.parametrize(
    "target",
    [
        handshake.process(b"short"),
        handshake.Target(handshake.TargetKind.AGENT, b"p"),
        handshake.back(b""),
        handshake.meeting(b"t"),
    ],
)
def test_target_that_cannot_be_is_not_sent(target: handshake.Target) -> None:
    with pytest.raises(exceptions.InternalError, match="has an id of"):
        handshake.encode_preamble(target, is_tls=False)


NODE_TAG = b"node-a"


@pytest.mark.parametrize("target", [AGENT, handshake.VALUES, handshake.LEASES, handshake.PACKAGES], ids=str)
def test_a_client_can_say_which_node_it_means(target: handshake.Target) -> None:
    meant = target.at_node(NODE_TAG)
    assert (meant.kind, meant.tag, str(meant)) == (target.kind, NODE_TAG, str(target))
    assert target.tag == b""
    preamble = handshake.read_preamble(handshake.encode_preamble(meant, is_tls=False))
    assert isinstance(preamble, handshake.Preamble)
    assert preamble.target == meant


def test_a_process_says_itself_which_node_it_is_on() -> None:
    process = handshake.process(b"p" * 4 + NODE_TAG + b"p" * 6)
    assert process.tag == NODE_TAG
    assert process.at_node(b"others") == process


def test_another_node_says_that_it_is_not_the_one_that_is_meant_and_proves_that_it_may() -> None:
    wire = Wire(client_token=NODE, target=AGENT.at_node(NODE_TAG), decide=lambda *_: Answer.ELSEWHERE).run()
    assert wire.client.outcome == Failed("another node of the cluster is at that address", Answer.ELSEWHERE)
    assert wire.server.outcome == Failed(f"it wants the node whose id begins with {NODE_TAG.hex()}, which this is not")


def test_a_ticket_is_all_that_is_said_with_it() -> None:
    ticket = bytes(range(16))
    for target in (handshake.back(ticket), handshake.meeting(ticket)):
        data = handshake.encode_preamble(target, is_tls=False)
        assert handshake.read_preamble(data) == handshake.Preamble(target, False, data)
        assert target.tag == b""
