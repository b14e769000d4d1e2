"""Certificates for tests, made by certtool in directories as QEMU, nbdkit and libnbd lay them out."""

from collections.abc import Sequence
from pathlib import Path

from tests.support.tools import run, tool

_ECDSA = ("--key-type=ecdsa", "--curve=secp256r1")
ED25519 = ("--key-type=ed25519",)


class Authority:
    """An authority with a key of its own; ``folder`` takes what it makes."""

    def __init__(self, folder: Path, name: str = "Test authority") -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.key = self._new_key("ca")
        self.certificate = folder / "ca.pem"
        template = self._template("ca", [f'cn = "{name}"', "ca", "cert_signing_key", "crl_signing_key"])
        self._certtool(
            ["--generate-self-signed", "--load-privkey", self.key, "--template", template], self.certificate
        )

    def issue(
        self,
        name: str,
        *,
        server: bool,
        hosts: Sequence[str] = (),
        addresses: Sequence[str] = (),
        expired: bool = False,
        kind: Sequence[str] = _ECDSA,
    ) -> tuple[Path, Path]:
        """Return the paths of a certificate for ``name`` and of its key.

        certtool writes every other key of ECDSA a byte longer than it is, which OpenSSL takes and others do not; who
        is strict takes what is made with ``ED25519``.
        """
        stem = f"{len(list(self.folder.iterdir()))}"
        lines = [f'cn = "{name}"', "signing_key", "tls_www_server" if server else "tls_www_client"]
        lines += [f'dns_name = "{each}"' for each in hosts] + [f'ip_address = "{each}"' for each in addresses]
        if expired:
            lines += ['activation_date = "2020-01-01 00:00:00"', 'expiration_date = "2020-02-01 00:00:00"']
        key, certificate = self._new_key(stem, kind), self.folder / f"{stem}.pem"
        arguments = ["--generate-certificate", "--load-privkey", key, "--template", self._template(stem, lines)]
        signer = ["--load-ca-certificate", self.certificate, "--load-ca-privkey", self.key]
        self._certtool([*arguments, *signer], certificate)
        return certificate, key

    def revoke(self, certificate: Path) -> Path:
        """Return the path of a list of revoked certificates with this one in it."""
        revoked = self.folder / f"{certificate.stem}-crl.pem"
        template = self._template("crl", ["crl_next_update = 3650", "crl_number = 1"])
        signer = ["--load-ca-certificate", self.certificate, "--load-ca-privkey", self.key]
        self._certtool(
            ["--generate-crl", *signer, "--load-certificate", certificate, "--template", template], revoked
        )
        return revoked

    def _new_key(self, stem: str, kind: Sequence[str] = _ECDSA) -> Path:
        key = self.folder / f"{stem}.key"
        self._certtool(["--generate-privkey", *kind], key)
        return key

    def _template(self, stem: str, lines: Sequence[str]) -> Path:
        path = self.folder / f"{stem}.cfg"
        path.write_text("\n".join(lines) + "\n")
        return path

    def _certtool(self, arguments: Sequence[str | Path], output: Path) -> None:
        run([tool("certtool"), *arguments, "--outfile", output])


def folder(
    path: Path,
    authority: Authority,
    *,
    server: tuple[Path, Path] | None = None,
    client: tuple[Path, Path] | None = None,
    revoked: Path | None = None,
) -> Path:
    """Return a directory that trusts ``authority`` and has these certificates with their keys."""
    path.mkdir(parents=True)
    (path / "ca-cert.pem").write_bytes(authority.certificate.read_bytes())
    for side, files in (("server", server), ("client", client)):
        if files is not None:
            (path / f"{side}-cert.pem").write_bytes(files[0].read_bytes())
            (path / f"{side}-key.pem").write_bytes(files[1].read_bytes())
    if revoked is not None:
        (path / "ca-crl.pem").write_bytes(revoked.read_bytes())
    return path
