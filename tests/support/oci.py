"""Container images made document by document, so that any of them can be wrong."""

import gzip
import hashlib
import json
from pathlib import Path

from tests.support.tarmaker import archive, header, member

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


def sha(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Image:
    """The files of an OCI layout, by name; documents can be changed before `seal` refers to them."""

    def __init__(self, layers: list[bytes], *, compress=gzip.compress, kind: str = LAYER + "+gzip") -> None:
        self.files: dict[str, bytes] = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}'}
        self.layers = []
        for layer in layers:
            self.layers.append(self.blob(compress(layer), kind))
        self.config = {
            "os": "linux",
            "architecture": "amd64",
            "rootfs": {"type": "layers", "diff_ids": [sha(layer) for layer in layers]},
        }
        self.index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": []}
        self.manifest: dict = {"schemaVersion": 2, "mediaType": MANIFEST, "layers": self.layers}

    def blob(self, data: bytes, kind: str) -> dict:
        self.files[f"blobs/sha256/{sha(data)[7:]}"] = data
        return {"mediaType": kind, "digest": sha(data), "size": len(data)}

    def seal(self, *, name: str | None = "one", platform: dict | None = None) -> "Image":
        """Add the manifest, as it is now, to the index."""
        self.manifest.setdefault("config", self.blob(json.dumps(self.config).encode(), CONFIG))
        described = self.blob(json.dumps(self.manifest).encode(), MANIFEST)
        if name is not None:
            described["annotations"] = {"org.opencontainers.image.ref.name": name}
        if platform is not None:
            described["platform"] = platform
        self.index["manifests"].append(described)
        self.files["index.json"] = json.dumps(self.index).encode()
        return self

    def directory(self, path: Path) -> Path:
        for name, data in self.files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
        return path

    def archive(self) -> bytes:
        return archive(*[member(name.encode(), data) for name, data in self.files.items()])


def docker(layers: list[bytes], *, links: bool = False, patch: dict | None = None) -> bytes:
    """A docker-archive; with `links` each layer has a second name, a link to it, and is referred to by that."""
    config = json.dumps(
        {
            "os": "linux",
            "architecture": "amd64",
            "rootfs": {"type": "layers", "diff_ids": [sha(layer) for layer in layers]},
        }
    ).encode()
    names = [f"{sha(layer)[7:]}.tar" for layer in layers]
    members = [member(name.encode(), layer) for name, layer in dict(zip(names, layers, strict=True)).items()]
    if links:
        for number, name in enumerate(names):
            members.append(header(b"l%d/" % number, kind=b"5"))
            members.append(header(b"l%d/layer.tar" % number, kind=b"2", link=b"../" + name.encode()))
        names = [f"l{number}/layer.tar" for number in range(len(names))]
    document = {"Config": f"{sha(config)[7:]}.json", "RepoTags": ["one:latest"], "Layers": names, **(patch or {})}
    members.append(member(f"{sha(config)[7:]}.json".encode(), config))
    members.append(member(b"manifest.json", json.dumps([document]).encode()))
    return archive(*members)
