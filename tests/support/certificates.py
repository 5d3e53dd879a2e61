"""TLS certificates for tests: a certificate authority and certificates that it signs."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from actors.rpc.tls import TlsFiles

_LIFE = timedelta(days=1)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _certificate(
    subject: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    signed_by: ec.EllipticCurvePrivateKey,
    life: timedelta,
) -> x509.Certificate:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _LIFE)
        .not_valid_after(now + life)
        .add_extension(x509.BasicConstraints(ca=subject == issuer, path_length=None), critical=True)
        .sign(signed_by, hashes.SHA256())
    )


def tls_files(folder: Path, *, life: timedelta = _LIFE) -> TlsFiles:
    """Create a new authority in ``folder`` and a certificate signed by it."""
    folder.mkdir(parents=True, exist_ok=True)
    signing, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    pem = serialization.Encoding.PEM
    contents = {
        "authority.pem": _certificate("cluster", signing, "cluster", signing, _LIFE).public_bytes(
            pem
        ),
        "node.pem": _certificate("node", key, "cluster", signing, life).public_bytes(pem),
        "node.key": key.private_bytes(
            pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return TlsFiles(
        shard_tls_certificate=str(folder / "node.pem"),
        shard_tls_key=str(folder / "node.key"),
        shard_tls_authority=str(folder / "authority.pem"),
    )
