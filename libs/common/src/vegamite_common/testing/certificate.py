"""Certificates for tests of servers that speak TLS."""

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Certificate:
    """A self-signed certificate, its private key, and the two in one file, as some servers want them (all PEM)."""

    certificate: Path
    key: Path
    both: Path


def make_certificate(
    folder: Path, *, addresses: Sequence[str] = ("127.0.0.1",), names: Sequence[str] = ()
) -> Certificate:
    """Make a certificate for IP addresses and host names, valid for 30 days, and put its files into `folder`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, [*names, *addresses][0])])
    now = datetime.datetime.now(datetime.UTC)
    alternatives: list[x509.GeneralName] = [x509.DNSName(host) for host in names]
    alternatives += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    public = signed.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    made = Certificate(folder / "certificate.pem", folder / "key.pem", folder / "both.pem")
    made.certificate.write_bytes(public)
    made.key.write_bytes(private)
    made.both.write_bytes(private + public)
    return made
