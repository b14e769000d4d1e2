import re

from blockwright.nbd.server.exposition import Gauges, render
from blockwright.nbd.server.metrics import BUCKETS_US, OTHER, ServerMetrics

SAMPLE = re.compile(r'[a-z_]+(\{[a-z]+="([^"\\\n]|\\\\|\\"|\\n)*"(,[a-z]+="([^"\\\n]|\\\\|\\"|\\n)*")*\})? [0-9.]+')


def text():
    metrics = ServerMetrics()
    disk = metrics.export('a "disk"\\\n')
    disk.record(0, 7_000, 4096)
    disk.record(0, 9_000, 8192, count=2)
    disk.record(0, 10**12, 0, errors=1)
    disk.record(999, 1, 0, errors=1)
    disk.record(65535, 1, 0, errors=1)
    metrics.count("accepted")
    metrics.count("accepted")
    metrics.count("refused", "too many connections")
    metrics.count("not accepted", "EMFILE")
    metrics.count("ended", "timeout")
    metrics.count("option refused", "ERR_UNKNOWN")
    return render(metrics, Gauges(3, 1024, 4096, {"b": 1, "a": 2}))


def samples():
    return dict(line.rsplit(" ", 1) for line in text().splitlines() if not line.startswith("#"))


def test_every_line_is_of_the_format():
    lines = text().splitlines()
    for line in lines:
        assert line.startswith(("# HELP blockwright_nbd_", "# TYPE blockwright_nbd_")) or SAMPLE.fullmatch(line), line
    names = [line.split(" ")[2] for line in lines if line.startswith("# TYPE")]
    assert len(set(names)) == len(names)
    assert text().endswith("\n")


def test_counts_are_told_by_export_and_command():
    found = samples()
    labels = 'export="a \\"disk\\"\\\\\\n",command="read"'
    assert found[f"blockwright_nbd_requests_total{{{labels}}}"] == "4"
    assert found[f"blockwright_nbd_request_errors_total{{{labels}}}"] == "1"
    assert found[f"blockwright_nbd_request_bytes_total{{{labels}}}"] == "12288"
    name = "blockwright_nbd_request_duration_seconds"
    assert found[f'{name}_bucket{{{labels},le="0.000008"}}'] == "1"
    assert found[f'{name}_bucket{{{labels},le="0.000016"}}'] == "3"
    assert found[f'{name}_bucket{{{labels},le="16.777216"}}'] == "3"
    assert found[f'{name}_bucket{{{labels},le="+Inf"}}'] == "4"
    assert found[f"{name}_count{{{labels}}}"] == "4"
    assert found[f"{name}_sum{{{labels}}}"] == "1000.000025"
    assert sum(f"{name}_bucket{{{labels}" in key for key in found) == len(BUCKETS_US) + 1


def test_commands_that_nobody_knows_are_one():
    assert samples()['blockwright_nbd_requests_total{export="a \\"disk\\"\\\\\\n",command="other"}'] == "2"
    metrics = ServerMetrics().export("x")
    for command in range(9, 2000):
        metrics.record(command, 1, 0)
    assert list(metrics.commands()) == [OTHER]


def test_connections_and_refusals_are_told():
    found = samples()
    assert found["blockwright_nbd_connections"] == "3"
    assert found["blockwright_nbd_bytes_in_flight"] == "1024"
    assert found["blockwright_nbd_connections_total"] == "2"
    assert found['blockwright_nbd_connections_refused_total{reason="too many connections"}'] == "1"
    assert found['blockwright_nbd_accepts_failed_total{reason="EMFILE"}'] == "1"
    assert found['blockwright_nbd_connections_ended_total{reason="timeout"}'] == "1"
    assert found['blockwright_nbd_options_refused_total{reason="ERR_UNKNOWN"}'] == "1"
    assert [key for key in found if "export_connections" in key] == [
        'blockwright_nbd_export_connections{export="a"}',
        'blockwright_nbd_export_connections{export="b"}',
    ]
