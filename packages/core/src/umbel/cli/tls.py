"""`umbel tls`: the certificates of a cluster's nodes, by an authority of its own."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable
from typing import Any

import click

from umbel._transport import own_tls

AUTHORITY_KEY = "ca.key"
AUTHORITY_DAYS = 3650
NODE_DAYS = 825
_CLOCK_SKEW = datetime.timedelta(hours=1)  # of other machines, which would see a certificate that is not yet valid
_AUTHORITY_NAME = "Umbel cluster"


def make_tls() -> click.Command:
    @click.group("tls")
    def tls() -> None:
        """Certificates for a cluster whose nodes talk by TLS."""

    @tls.command("init")
    @click.argument("directory")
    def init(directory: str) -> None:
        """Make a new cluster's authority, and its first node's certificate, in DIRECTORY.

        `umbel start --tls DIRECTORY` then uses them. Whoever has ca.key can make certificates; no node needs it.
        """
        x509 = _library()
        authority, key = _new_authority(x509)
        _write(
            directory,
            {
                own_tls.AUTHORITY: _text_of(authority),
                AUTHORITY_KEY: _text_of_key(key),
                **_issued(x509, authority, key, NODE_DAYS),
            },
        )
        click.echo(
            f"{directory} has the authority of a new cluster and a certificate of a node, good for {NODE_DAYS} days.\n"
            f"  umbel start --head --port PORT --tls {directory}\n"
            f"  umbel tls issue {directory} OTHER   makes one for another node; copy OTHER to it, and {AUTHORITY_KEY} nowhere"
        )

    @tls.command("issue")
    @click.argument("directory")
    @click.argument("other")
    @click.option("--days", type=click.IntRange(1, AUTHORITY_DAYS), default=NODE_DAYS, show_default=True)
    def issue(directory: str, other: str, days: int) -> None:
        """Make a certificate for another node, in the directory OTHER, by the authority in DIRECTORY."""
        x509 = _library()
        authority, key = _authority(x509, directory)
        _write(other, {own_tls.AUTHORITY: _text_of(authority), **_issued(x509, authority, key, days)})
        click.echo(
            f"{other} has a certificate of a node, good for {days} days: umbel start --address HEAD --tls {other}"
        )

    return tls


def _library() -> Any:
    try:
        from cryptography import x509
    except ImportError as error:
        raise click.ClickException(
            'certificates are made by the package cryptography, which is not installed; run: pip install "umbel[tls]". Nodes '
            "that use certificates do not need it"
        ) from error
    return x509


def _new_key() -> Any:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def _new_authority(x509: Any) -> tuple[Any, Any]:
    key = _new_key()
    subject = _name(x509, f"{_AUTHORITY_NAME} {os.urandom(4).hex()}")
    certificate = _signed(
        x509,
        subject,
        key.public_key(),
        (subject, key),
        AUTHORITY_DAYS,
        lambda builder: builder.add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        ).add_extension(_usage(x509, "key_cert_sign", "crl_sign"), critical=True),
    )
    return certificate, key


def _issued(x509: Any, authority: Any, authority_key: Any, days: int) -> dict[str, bytes]:
    """The files of a new node."""
    key = _new_key()
    purposes = [x509.oid.ExtendedKeyUsageOID.SERVER_AUTH, x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH]
    certificate = _signed(
        x509,
        _name(x509, own_tls.SERVER_NAME),
        key.public_key(),
        (authority.subject, authority_key),
        days,
        lambda builder: (
            builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(own_tls.SERVER_NAME)]), critical=False)
            .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
            .add_extension(_usage(x509, "digital_signature"), critical=True)
        ),
    )
    return {own_tls.CERTIFICATE: _text_of(certificate), own_tls.KEY: _text_of_key(key)}


def _signed(
    x509: Any, subject: Any, public: Any, signer: tuple[Any, Any], days: int, extended: Callable[[Any], Any]
) -> Any:
    from cryptography.hazmat.primitives import hashes

    issuer, key = signer
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
    )
    return extended(builder).sign(key, hashes.SHA256())


def _usage(x509: Any, *wanted: str) -> Any:
    every = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "key_cert_sign",
        "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{one: one in wanted for one in every})


def _name(x509: Any, text: str) -> Any:
    return x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, text)])


def _authority(x509: Any, directory: str) -> tuple[Any, Any]:
    from cryptography.hazmat.primitives import serialization

    found = []
    for name, read in (
        (own_tls.AUTHORITY, x509.load_pem_x509_certificate),
        (AUTHORITY_KEY, lambda data: serialization.load_pem_private_key(data, password=None)),
    ):
        path = os.path.join(directory, name)
        try:
            with open(path, "rb") as file:
                found.append(read(file.read()))
        except OSError as error:
            raise click.ClickException(
                f"{path} cannot be read: {error.strerror}; DIRECTORY is where `umbel tls init` made the cluster's authority"
            ) from error
        except ValueError as error:
            raise click.ClickException(f"{path} is not what `umbel tls init` has made: {error}") from error
    return found[0], found[1]


def _text_of(certificate: Any) -> bytes:
    from cryptography.hazmat.primitives import serialization

    text: bytes = certificate.public_bytes(serialization.Encoding.PEM)
    return text


def _text_of_key(key: Any) -> bytes:
    from cryptography.hazmat.primitives import serialization

    text: bytes = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return text


def _write(directory: str, files: dict[str, bytes]) -> None:
    """Keys are this user's alone from the moment at which they exist. Nothing is replaced: a cluster may be using it."""
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        there = [name for name in files if os.path.lexists(os.path.join(directory, name))]
        if there:
            raise click.ClickException(
                f"{directory} has {', '.join(there)} already, which nodes may be using; name another directory"
            )
        for name, content in files.items():
            mode = 0o600 if name.endswith(".key") else 0o644
            path = os.path.join(directory, name)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
            with open(descriptor, "wb") as file:
                file.write(content)
    except OSError as error:
        raise click.ClickException(
            f"{directory} cannot be written: {error.strerror}; name another directory"
        ) from error
