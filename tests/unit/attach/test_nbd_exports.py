"""What a server lists, for whoever is going to attach one of its exports."""

import logging
import os

import pytest

from blockwright.attach import nbd
from blockwright.device.memory import MemoryDevice
from blockwright.errors import NotFound
from blockwright.nbd.server.export import Export
from blockwright.nbd.server.listeners import listen_unix
from blockwright.nbd.server.server import Server


def test_exports_are_listed_and_a_logger_is_told(tmp_path, caplog):
    listener = listen_unix(os.fspath(tmp_path / "s"))
    uri = str(listener.uri)
    with caplog.at_level(logging.INFO), Server([Export("disk", MemoryDevice(4096))], [listener.socket]):
        (found,) = nbd.exports(uri, logger=logging.getLogger())
    assert found.info is not None
    assert (found.name, found.info.size) == ("disk", 4096)
    assert f"{uri}: lists 1 exports" in caplog.messages
    with pytest.raises(NotFound, match="nobody listens there"):
        nbd.exports(uri)
