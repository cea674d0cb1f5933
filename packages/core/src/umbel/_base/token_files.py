"""Where a cluster's token is kept: a file that its owner alone can read, or the environment.

A file is complete from the moment at which it has its name, has the mode 0600 from the moment at which it exists, and is
never replaced: of several processes that create it at once, one does, and all get what that one wrote.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Mapping

from umbel import exceptions
from umbel._base import tokens

TOKEN_VARIABLE = "UMBEL_TOKEN"
FILE_VARIABLE = "UMBEL_TOKEN_FILE"
FILE_BYTES_MAX = 4096  # a token has 80; whatever is larger is another file
_ID_CHARS_MAX = 100
_MODE = stat.S_IRUSR | stat.S_IWUSR


def default_path(cluster_id: str) -> str:
    """Where this user keeps the token of a cluster. Raises InvalidOption for an id that cannot be a directory's name."""
    is_plain = cluster_id.replace("-", "").replace("_", "").isalnum() and cluster_id.isascii()
    if not is_plain or len(cluster_id) > _ID_CHARS_MAX:
        raise exceptions.InvalidOption(
            f"a cluster's id must be 1 to {_ID_CHARS_MAX} letters, digits, - or _, got {cluster_id!r:.200}",
            option="cluster_id",
        )
    return os.path.join(os.path.expanduser("~"), ".umbel", "clusters", cluster_id, "token")


def find(environment: Mapping[str, str], *, cluster_id: str = "") -> tokens.Token | None:
    """The token of the environment, or of the file it names, or of the cluster's default file if there is one.

    Raises AuthenticationError when the first of these that is there cannot be used.
    """
    text = environment.get(TOKEN_VARIABLE, "").strip()
    if text:
        return tokens.parse(text, source=f"the environment variable {TOKEN_VARIABLE}")
    path = environment.get(FILE_VARIABLE, "")
    if path:
        return read(path)
    if cluster_id and os.path.lexists(default_path(cluster_id)):
        return read(default_path(cluster_id))
    return None


def read(path: str) -> tokens.Token:
    """The token in the file. Raises AuthenticationError when there is none, or others could have read or written it."""
    try:
        # Without blocking: opening a pipe would wait for whoever writes into it.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise exceptions.AuthenticationError(
            f"the token file {path} cannot be opened: {error.strerror}; set {FILE_VARIABLE} to another, or "
            f"{TOKEN_VARIABLE} to the token"
        ) from error
    try:
        _check(path, os.fstat(descriptor))
        content = os.read(descriptor, FILE_BYTES_MAX)
    except OSError as error:
        raise exceptions.AuthenticationError(f"the token file {path} cannot be read: {error.strerror}") from error
    finally:
        os.close(descriptor)
    return tokens.parse(content.decode("ascii", "replace").strip(), source=f"the file {path}")


def _check(path: str, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise exceptions.AuthenticationError(f"the token file {path} is not a plain file")
    if found.st_uid not in (os.geteuid(), 0):
        raise exceptions.AuthenticationError(
            f"the token file {path} belongs to the user {found.st_uid}, it must belong to {os.geteuid()} or root; copy "
            f"it, or create another token"
        )
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o077:
        raise exceptions.AuthenticationError(
            f"the token file {path} has the mode {mode:04o}, so that others may use it; it must have {_MODE:04o}: "
            f"run `chmod 600 {path}`, and create another token if somebody may have read this one"
        )
    if found.st_size > FILE_BYTES_MAX:
        raise exceptions.AuthenticationError(
            f"the token file {path} has {found.st_size} bytes, a token has less than {FILE_BYTES_MAX}; name another file"
        )


def ensure(path: str, fresh: tokens.Token | None = None) -> tokens.Token:
    """The token in the file, created if it is not there. fresh: what to write then; a new secret by default.

    Raises AuthenticationError as `read` does, and where no file can be made.
    """
    if not os.path.lexists(path):
        try:
            _create(path, (fresh or tokens.new_secret()).as_text())
        except OSError as error:
            raise exceptions.AuthenticationError(
                f"the token file {path} cannot be created: {error.strerror}; set {FILE_VARIABLE} to a path on a local disk "
                f"where this user may write"
            ) from error
    return read(path)


def _make_private(directory: str) -> None:
    """Make what is missing of the path, for this user alone; `os.makedirs` leaves the upper ones to the umask."""
    if not os.path.isdir(directory):
        _make_private(os.path.dirname(directory))
        with contextlib.suppress(FileExistsError):
            os.mkdir(directory, 0o700)


def _create(path: str, text: str) -> None:
    """Write the file, unless somebody else does at the same time."""
    directory = os.path.dirname(os.path.abspath(path))
    _make_private(directory)
    draft = os.path.join(directory, f".token-{os.getpid()}-{os.urandom(8).hex()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, _MODE)
    try:
        try:
            os.fchmod(descriptor, _MODE)  # a umask can have taken bits away, and none can have been added
            os.write(descriptor, f"{text}\n".encode())  # far less than what a file takes at once
            os.fsync(descriptor)  # a name without content after a crash would lock everybody out
        finally:
            os.close(descriptor)
        with contextlib.suppress(FileExistsError):  # then it is another's, and complete
            os.link(draft, path)
    finally:
        os.unlink(draft)
