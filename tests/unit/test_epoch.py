"""SOURCE_DATE_EPOCH is one rule for all that looks at it."""

import pytest

from blockwright import loopless
from blockwright.epoch import now_ns, source_date_epoch
from blockwright.errors import UsageError


def test_seconds(monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1600000000")
    assert (source_date_epoch(), now_ns()) == (1_600_000_000, 1_600_000_000 * 10**9)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "")
    assert source_date_epoch() is None
    assert now_ns() > 1_600_000_000 * 10**9


@pytest.mark.parametrize("text", ["yesterday", "-1", "\u0661", "1" * 5000])
def test_what_is_no_number_is_refused_by_loopless_too(tmp_path, monkeypatch, text):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", text)
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(1 << 20))
    with pytest.raises(UsageError, match="SOURCE_DATE_EPOCH"):
        loopless.mkfs(str(path))
