"""Tokens: roles below roles, their text, and the files they are kept in."""

from __future__ import annotations

import hmac
import os
import pickle
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from umbel import exceptions
from umbel._base import token_files, tokens

SECRET = tokens.Token(tokens.Role.HEAD, bytes(range(32)))
TEXT = SECRET.lowered(tokens.Role.SUBMIT).as_text()


# ---- roles ----


def test_each_role_has_another_key() -> None:
    assert len({SECRET.lowered(role).key for role in tokens.Role}) == 5


def test_token_makes_those_of_all_roles_below_it_whichever_way_it_goes() -> None:
    for role in tokens.Role:
        token = SECRET.lowered(role)
        for lower in tokens.Role:
            if lower <= role:
                assert token.lowered(lower) == SECRET.lowered(lower)


def test_token_makes_none_of_a_role_above_it() -> None:
    submit = SECRET.lowered(tokens.Role.SUBMIT)
    with pytest.raises(exceptions.AuthenticationError, match="'admin' cannot be made from one of 'submit'"):
        submit.lowered(tokens.Role.ADMIN)


def test_keys_are_those_that_other_versions_compute() -> None:
    node = hmac.digest(bytes(range(32)), b"umbel role token 1: node\x01", "sha256")
    admin = hmac.digest(node, b"umbel role token 1: admin\x01", "sha256")
    assert SECRET.lowered(tokens.Role.ADMIN) == tokens.Token(tokens.Role.ADMIN, admin)


def test_secrets_are_random() -> None:
    assert tokens.new_secret() != tokens.new_secret()
    assert tokens.new_secret().role is tokens.Role.HEAD


def test_representation_of_a_token_does_not_show_its_key() -> None:
    assert repr(SECRET) == str(SECRET) == f"Token(role={tokens.Role.HEAD!r})"


def test_token_cannot_be_changed() -> None:
    with pytest.raises(AttributeError, match="a Token is frozen"):
        SECRET.key = b""


# ---- text ----


@pytest.mark.parametrize("role", tokens.Role)
def test_token_is_what_its_text_says(role: tokens.Role) -> None:
    token = SECRET.lowered(role)
    text = token.as_text()
    assert text.startswith(f"umbel1.{role.text}.")
    assert tokens.parse(text, source="here") == token
    assert tokens.parse(text[:-56] + text[-56:].upper(), source="here") == token


def test_every_typo_of_one_character_is_told_as_such() -> None:
    start = len(TEXT) - 56
    for position in range(start, len(TEXT)):
        other = "a" if TEXT[position] != "a" else "b"
        with pytest.raises(exceptions.AuthenticationError, match="there is a typo"):
            tokens.parse(TEXT[:position] + other + TEXT[position + 1 :], source="here")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "it is 0 characters in 1 parts"),
        (TEXT.replace("umbel1", "umbel2"), "it does not begin with umbel1"),
        (TEXT.replace("submit", "root"), "its role is none of read, submit, admin, node, head"),
        (TEXT.replace("submit", "admin"), "its checksum does not match"),
        (TEXT[:-1], "it has 55 characters after the role instead of 56"),
        (TEXT + "a", "it has 57 characters after the role instead of 56"),
        (TEXT[:-1] + "1", "it has a character that is neither a letter nor one of the digits 2 to 7"),
        (TEXT[:-1] + "ä", "it has a character that is neither a letter nor one of the digits 2 to 7"),
    ],
)
def test_text_that_is_no_token_is_refused_with_what_is_wrong_and_without_the_key(text: str, what: str) -> None:
    with pytest.raises(exceptions.AuthenticationError) as caught:
        tokens.parse(text, source="the environment variable X")
    assert str(caught.value).startswith(f"the token in the environment variable X cannot be read: {what}")
    assert TEXT[-56:-46] not in str(caught.value)


# ---- files ----


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture(params=[0o000, 0o022, 0o077, 0o777], ids=oct)
def mask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_file_is_created_once_and_read_afterwards(home: Path) -> None:
    path = token_files.default_path("c1")
    assert path == str(home / ".umbel/clusters/c1/token")
    made = token_files.ensure(path)
    assert token_files.ensure(path) == token_files.read(path) == made
    assert os.listdir(os.path.dirname(path)) == ["token"]


def test_file_and_its_directories_are_for_this_user_alone_whatever_the_umask(home: Path, mask: int) -> None:
    path = Path(token_files.default_path("c1"))
    if mask & 0o700:  # such a mask makes directories that their owner cannot enter, so they are there before
        os.umask(0o022)
        path.parent.mkdir(parents=True, mode=0o700)
        os.umask(mask)
    token_files.ensure(str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    if not mask & 0o700:
        modes = {stat.S_IMODE(one.stat().st_mode) for one in (path.parent, path.parent.parent, home / ".umbel")}
        assert modes == {0o700}


def test_file_has_its_mode_from_the_moment_at_which_it_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looked at between each two system calls that make it."""
    seen = set()
    before = os.umask(0)

    def look(name: str) -> None:
        call = getattr(os, name)

        def looking(*args: object, **more: object) -> object:
            seen.update((one, stat.S_IMODE((tmp_path / one).stat().st_mode)) for one in os.listdir(tmp_path))
            result = call(*args, **more)
            seen.update((one, stat.S_IMODE((tmp_path / one).stat().st_mode)) for one in os.listdir(tmp_path))
            return result

        monkeypatch.setattr(token_files.os, name, looking)

    for name in ("open", "fchmod", "write", "fsync", "link", "unlink"):
        look(name)
    token_files.ensure(str(tmp_path / "token"))
    os.umask(before)
    assert {mode for _name, mode in seen} == {0o600}
    assert "token" in {name for name, _mode in seen}


def test_file_that_exists_is_never_incomplete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is killed before the last step leaves no file of that name."""
    monkeypatch.setattr(token_files.os, "link", _killed)
    with pytest.raises(KeyboardInterrupt):
        token_files.ensure(str(tmp_path / "token"))
    assert os.listdir(tmp_path) == []


def _killed(*_args: object) -> None:
    raise KeyboardInterrupt


def test_processes_that_create_at_once_get_the_same_token(tmp_path: Path) -> None:
    path = str(tmp_path / "token")
    gate_read, gate_write = os.pipe()
    results_read, results_write = os.pipe()
    children = []
    for _ in range(8):
        pid = os.fork()
        if pid == 0:
            try:
                os.close(gate_write)
                os.read(gate_read, 1)  # returns in all of them at once, when the parent closes its end
                os.write(results_write, token_files.ensure(path).as_text().encode() + b"\n")
            finally:
                os._exit(0)
        children.append(pid)
    os.close(gate_write)
    os.close(results_write)
    for pid in children:
        os.waitpid(pid, 0)
    with open(results_read) as results:
        told = results.read().split()
    os.close(gate_read)
    assert len(told) == 8
    assert set(told) == {token_files.read(path).as_text()}
    assert os.listdir(tmp_path) == ["token"]


def test_the_one_that_is_slower_takes_what_the_quicker_one_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "token")
    link = os.link

    def link_after_another(draft: str, name: str) -> None:
        monkeypatch.undo()
        token_files.ensure(name, SECRET)
        link(draft, name)

    monkeypatch.setattr(token_files.os, "link", link_after_another)
    assert token_files.ensure(path) == SECRET
    assert os.listdir(tmp_path) == ["token"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o660, 0o644])
def test_file_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "token"
    token_files.ensure(str(path))
    path.chmod(mode)
    with pytest.raises(exceptions.AuthenticationError, match=f"has the mode {mode:04o}.*chmod 600 {path}"):
        token_files.read(str(path))


def test_file_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "token"
    token_files.ensure(str(path))
    if os.geteuid() == 0:
        os.chown(path, 12345, -1)
        owner = 12345
    else:
        owner = os.geteuid()
        monkeypatch.setattr(token_files.os, "geteuid", lambda: owner + 1)
    with pytest.raises(exceptions.AuthenticationError, match=f"belongs to the user {owner}, it must belong to"):
        token_files.read(str(path))


def test_file_that_is_a_link_is_judged_by_where_it_leads(tmp_path: Path) -> None:
    """Kubernetes mounts secrets as links."""
    made = token_files.ensure(str(tmp_path / "token"))
    (tmp_path / "link").symlink_to("token")
    assert token_files.read(str(tmp_path / "link")) == made
    (tmp_path / "token").chmod(0o644)
    with pytest.raises(exceptions.AuthenticationError, match="has the mode 0644"):
        token_files.read(str(tmp_path / "link"))


def test_what_is_no_plain_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(exceptions.AuthenticationError, match="is not a plain file"):
            token_files.read(str(path))


def test_file_without_a_token_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "token"
    with pytest.raises(exceptions.AuthenticationError, match="cannot be opened: No such file or directory; set"):
        token_files.read(str(path))
    for content in (b"", b"\xff\x00", b"x" * 5000):
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(exceptions.AuthenticationError):
            token_files.read(str(path))


def test_directory_that_cannot_be_written_to_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        exceptions.AuthenticationError, match=r"file/token cannot be (created|opened).*UMBEL_TOKEN_FILE"
    ):
        token_files.ensure(str(tmp_path / "file/token"))


@pytest.mark.parametrize("cluster_id", ["", "..", "a/b", "a b", "ä", "x" * 101])
def test_cluster_id_that_is_no_name_of_a_directory_is_refused(cluster_id: str) -> None:
    with pytest.raises(exceptions.InvalidOption, match="a cluster's id must be"):
        token_files.default_path(cluster_id)


# ---- where it is looked for ----


def test_token_is_looked_for_in_the_variable_then_the_file_it_names_then_the_default_one(home: Path) -> None:
    of_cluster = token_files.ensure(token_files.default_path("c1"))
    of_file = token_files.ensure(str(home / "other"))
    environment = {"UMBEL_TOKEN": f" {TEXT}\n", "UMBEL_TOKEN_FILE": str(home / "other")}
    assert token_files.find(environment, cluster_id="c1") == tokens.parse(TEXT, source="")
    del environment["UMBEL_TOKEN"]
    assert token_files.find(environment, cluster_id="c1") == of_file
    assert token_files.find({}, cluster_id="c1") == of_cluster
    assert token_files.find({}, cluster_id="c2") is None
    assert token_files.find({}) is None


def test_wrong_variable_is_told_by_its_name(home: Path) -> None:
    with pytest.raises(exceptions.AuthenticationError, match="in the environment variable UMBEL_TOKEN cannot be read"):
        token_files.find({"UMBEL_TOKEN": "x"}, cluster_id="c1")
    with pytest.raises(exceptions.AuthenticationError, match=f"the token file {home}/none cannot be opened"):
        token_files.find({"UMBEL_TOKEN_FILE": f"{home}/none"})


def test_error_about_a_token_crosses_processes() -> None:
    with pytest.raises(exceptions.AuthenticationError) as caught:
        tokens.parse("x", source="here")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
