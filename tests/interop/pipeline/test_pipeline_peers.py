"""Images that skopeo and umoci made, in volumes that e2fsck and debugfs read."""

import hashlib
import os
from pathlib import Path

import pytest

from tests.support.oci import Image
from tests.support.pipeline import FILES, LAYERS, POOL, fetch, home, request
from tests.support.tools import run, tool

__all__ = ["home"]


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive", "oci gzip", "oci zstd"])
def test_what_skopeo_writes_is_sound_and_has_its_files(home, tmp_path: Path, form: str):
    Image(LAYERS).seal(platform={"os": "linux", "architecture": "amd64"}).directory(tmp_path / "layout")
    where = tmp_path / "copied"
    kind, _, compression = form.partition(" ")
    options = ["--dest-compress-format", compression] if compression else []
    target = f"{kind}:{where}:one" if kind == "oci" else f"{kind}:{where}:app:one"
    run([tool("skopeo"), "--insecure-policy", "copy", "-q", *options, f"oci:{tmp_path}/layout:one", target])
    outcome = fetch(request(str(where)))
    (file,) = (home.parent / "volumes").glob("*.raw")
    run([tool("e2fsck"), "-fn", file])
    for path, data in FILES.items():
        out = run([tool("debugfs"), "-R", f"cat {os.fsdecode(path)}", file]).stdout
        assert out == (data if isinstance(out, bytes) else data.decode())
    hashed = outcome.receipts[-1].outputs["filesystem"]
    assert hashed == f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"
    assert outcome.run.request.pool == POOL
    assert len(outcome.receipts[1].outputs["layers"]) == len(LAYERS)
