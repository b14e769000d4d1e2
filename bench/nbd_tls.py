"""NBD inside TLS, server by server, round by round: fio's nbd engine against one file over loopback.

python bench/nbd_tls.py     needs fio, nbdkit and certtool (gnutls-bin)
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nbd import BASE, ROUNDS, SECONDS, SIZE_MIB, Load, make_image

LOADS = [
    Load("1 MiB read, depth 8", "read", "1M", 8),
    Load("1 MiB write, depth 8", "write", "1M", 8),
    Load("4 KiB random read, depth 64", "randread", "4k", 64),
    Load("4 KiB random write, depth 64", "randwrite", "4k", 64),
]
NOBODY = 65534
"""Who fio runs as: libnbd takes certificates from a home of our choice, unless it runs as root."""


def certificates(folder: Path) -> None:
    """Make an authority, and a certificate of it for each side, where QEMU, nbdkit and libnbd look."""
    kinds = {
        "ca": ["cn = authority", "ca", "cert_signing_key"],
        "server": ["cn = localhost", 'dns_name = "localhost"', "tls_www_server"],
        "client": ["cn = client", "tls_www_client"],
    }
    for side, lines in kinds.items():
        template, key = folder / f"{side}.cfg", folder / f"{side}-key.pem"
        template.write_text("\n".join(lines) + "\n")
        certtool("--generate-privkey", "--key-type=ecdsa", "--curve=secp256r1", "--outfile", key)
        kind = ["--generate-self-signed"]
        if side != "ca":
            authority = ["--load-ca-certificate", folder / "ca-cert.pem", "--load-ca-privkey", folder / "ca-key.pem"]
            kind = ["--generate-certificate", *map(str, authority)]
        certtool(*kind, "--load-privkey", key, "--template", template, "--outfile", folder / f"{side}-cert.pem")
    for each in folder.iterdir():
        each.chmod(0o644)


def certtool(*arguments: str | Path) -> None:
    subprocess.run(["certtool", *map(str, arguments)], check=True, stderr=subprocess.DEVNULL)


def command(name: str, port: int, image: Path, certificates: Path) -> list[str]:
    """Return the command that serves ``image`` in the foreground, only to clients with a certificate."""
    if name == "blockwright":
        program = [sys.executable, "-m", "blockwright", "serve", str(image), "--from", "raw"]
        tls = ["--tls-certificates", str(certificates), "--tls-verify-clients"]
        return [*program, "--listen", f"127.0.0.1:{port}", *tls]
    if name == "nbdkit":
        tls = ["--tls=require", "--tls-verify-peer", f"--tls-certificates={certificates}"]
        return ["nbdkit", "-f", "-i", "127.0.0.1", "-p", str(port), *tls, "file", str(image)]
    creds = f"tls-creds-x509,id=t,dir={certificates},endpoint=server,verify-peer=yes"
    where = ["-b", "127.0.0.1", "-p", str(port), "-t", "-e", "16", "-x", ""]
    return ["qemu-nbd", "-f", "raw", *where, "--object", creds, "--tls-creds", "t", str(image)]


@contextmanager
def serving(name: str, image: Path, certificates: Path) -> Iterator[int]:
    """Run a server until the context ends; gives its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    argv = command(name, port, image, certificates)
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(2000):
            if process.poll() is not None:
                raise SystemExit(f"{argv}: exit {process.returncode}")
            with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.005)
        yield port
    finally:
        process.terminate()
        process.wait(20)


def fio(port: int, load: Load, home: Path) -> float:
    """Return requests a second."""
    argv = ["fio", f"--name={load.rw}", "--ioengine=nbd", f"--uri=nbds://localhost:{port}/", f"--rw={load.rw}"]
    argv += [f"--bs={load.block}", f"--iodepth={load.depth}", "--time_based", f"--runtime={SECONDS}"]
    argv += [f"--size={SIZE_MIB}M", "--output-format=json"]
    identity = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
    environment = {**os.environ, "HOME": str(home)}
    done = subprocess.run(argv, check=True, capture_output=True, text=True, cwd=home, env=environment, **identity)
    job = json.loads(done.stdout[done.stdout.index("{") :])["jobs"][0]
    return float(job["read"]["iops"] + job["write"]["iops"])


def measure(load: Load, image: Path, home: Path) -> None:
    """Print a line for each server: median, range, and our ratio to it."""
    found: dict[str, list[float]] = {}
    for turn in range(ROUNDS + 1):
        for name in ("blockwright", "nbdkit", "qemu-nbd"):
            if name != "blockwright" and not shutil.which(name):
                continue
            with serving(name, image, home / ".pki" / "libnbd") as port:
                value = fio(port, load, home)
                found.setdefault(name, []).extend([value] if turn else [])  # the first one warms up
    print(f"\n{load.name}, inside TLS")
    ours = statistics.median(found["blockwright"])
    for name, values in found.items():
        median = statistics.median(values)
        ratio = "" if name == "blockwright" else f"  ours {ours / median:5.2f}x"
        print(f"  {name:<12} {median:10.0f}/s  ({min(values):.0f}-{max(values):.0f}){ratio}", flush=True)


def main() -> None:
    """Measure every load."""
    image = make_image(BASE)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / ".pki" / "libnbd").mkdir(parents=True)
        home.chmod(0o777)
        certificates(home / ".pki" / "libnbd")
        for load in LOADS:
            measure(load, image, home)


if __name__ == "__main__":
    main()
