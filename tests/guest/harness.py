"""The host's side: collects guest tests, starts one kernel for all that were selected, and reports each as itself.

Refuses to call anything passed that the guest did not report: a guest that dies, hangs, or runs nothing fails every
test it owes a result for.

A guest test gets its inputs from functions named by a mark, `@pytest.mark.prepare(by=make_image)`, which run on the
host before the kernel starts: each fills a directory of its own, and may return paths of disk images, which the guest
then has as block devices. Inside, the fixtures `prepared` and `prepared_disks` find them again.
"""

import json
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest

from tests.support.guest import GuestError, run_guest
from tests.support.qemu_guest import run_qemu_guest

Prepare = Callable[[Path], Iterable[Path] | None]

FILES = "BLOCKWRIGHT_GUEST_FILES"
"""Pattern of the files whose tests run in the guest; set by the harness's own tests."""
MEMORY = "BLOCKWRIGHT_GUEST_MEMORY"
"""Memory of the guest in MiB."""
TIMEOUT = "BLOCKWRIGHT_GUEST_TIMEOUT"
"""Seconds after which the guest is stopped."""

KERNEL = "BLOCKWRIGHT_GUEST_KERNEL"
"""`uml` for User-Mode Linux, which is meant without it; `qemu` for Debian's cloud kernel in QEMU."""

_SCRIPT = """\
cd "$BLOCKWRIGHT_ROOT" || exit 99
"$BLOCKWRIGHT_PYTHON" -m pytest -q -p no:cacheprovider -p tests.guest.reporter \\
    -o tmp_path_retention_policy=failed --basetemp=/run/tmp/pytest @"$GUEST_SHARE/selected"
"""
"""Files of a test that passed are removed: the guest's memory holds those of all."""

# What pytest returns when it ran tests, whatever came of them.
_RAN = (0, 1)


class GuestModule(pytest.Module):
    """A file of guest tests; its functions are collected as usual and run elsewhere."""


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Collect files of guest tests; pytest itself collects one that was named on the command line."""
    if parent.session.isinitpath(file_path):
        return None
    return pytest_pycollect_makemodule(file_path, parent)


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """A file of guest tests becomes a GuestModule."""
    if not module_path.match(os.environ.get(FILES, "guest_*.py")):
        return None
    module: GuestModule = GuestModule.from_parent(parent, path=module_path)
    module.add_marker("guest")
    module.add_marker(pytest.mark.timeout(0))  # the guest as a whole has one; the first test here waits for all
    return module


def pytest_runtest_protocol(item: pytest.Item) -> bool | None:
    """Report a guest test from what the guest said about it; the first one starts the guest."""
    if not _runs_in_guest(item):
        return None
    run = item.session.stash.get(_RUN, None)
    if run is None:
        run = item.session.stash[_RUN] = GuestRun([each for each in item.session.items if _runs_in_guest(each)])
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in run.reports(item):
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def _runs_in_guest(item: pytest.Item) -> bool:
    """Whether the test is a guest's and was not already marked as one to skip, which pytest does itself."""
    return item.getparent(GuestModule) is not None and item.get_closest_marker("skip") is None


class GuestRun:
    """One guest that runs the given tests, and what it reported about each."""

    def __init__(self, items: Sequence[pytest.Item]) -> None:
        self._found: dict[str, list[pytest.TestReport]] = {}
        self._without_input: dict[str, BaseException] = {}
        self._missing: str | None = None
        self._why_no_result = "the guest did not report this test"
        with tempfile.TemporaryDirectory(prefix="guest-share-") as share:
            try:
                self._start(items, Path(share))
            except GuestError as error:
                self._why_no_result = str(error)
            except pytest.skip.Exception as skipped:
                self._missing = str(skipped)
            except pytest.fail.Exception as failed:
                self._why_no_result = str(failed)
            self._read(items, Path(share) / "reports")

    def _start(self, items: Sequence[pytest.Item], share: Path) -> None:
        """Make the inputs, then run the tests that have theirs."""
        disks = self._prepare(items, share)
        selected = [item.nodeid for item in items if item.nodeid not in self._without_input]
        if not selected:
            return
        (share / "selected").write_text("".join(f"{nodeid}\n" for nodeid in selected))
        root = items[0].config.rootpath
        environment = {
            "BLOCKWRIGHT_IN_GUEST": "1",
            "BLOCKWRIGHT_ROOT": str(root),
            "BLOCKWRIGHT_PYTHON": sys.executable,
            "GUEST_SHARE": str(share),
            "HYPOTHESIS_STORAGE_DIRECTORY": "/run/tmp/hypothesis",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": os.pathsep.join([str(root), str(root / "src"), os.environ.get("PYTHONPATH", "")]),
            **_measured_in(share, root),
        }
        launch = run_qemu_guest if _in_qemu() else run_guest
        try:
            status, console = launch(
                _SCRIPT,
                share,
                environment=environment,
                disks=disks,
                memory=int(os.environ.get(MEMORY, "512")),
                timeout=float(os.environ.get(TIMEOUT, "2400")),
            )
        finally:
            _take_measurements(share)
        if status not in _RAN:
            raise GuestError(f"pytest in the guest returned {status}\n--- console\n{console[-6000:]}")
        self._why_no_result += f"\n--- console\n{console[-6000:]}"

    def _prepare(self, items: Sequence[pytest.Item], share: Path) -> list[Path]:
        """Run each input function once; the disks they made, in the order the guest sees them."""
        disks: list[Path] = []
        named: dict[str, list[str]] = {}
        failed: dict[str, BaseException] = {}
        for item in items:
            for function in functions_of(item):
                name = directory_name(function)
                if name not in named and name not in failed:
                    (share / name).mkdir()
                    try:
                        made = list(function(share / name) or ())
                    except (Exception, pytest.skip.Exception, pytest.fail.Exception) as error:  # noqa: BLE001 - reported
                        failed[name] = error
                    else:
                        named[name] = [_disk_node(len(disks) + n) for n in range(len(made))]
                        disks += made
                if name in failed:
                    self._without_input[item.nodeid] = failed[name]
        (share / "disks.json").write_text(json.dumps(named))
        return disks

    def _read(self, items: Sequence[pytest.Item], path: Path) -> None:
        """Take in the guest's reports, whole lines only: a guest may die in the middle of one."""
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        config = items[0].config
        for line in lines:
            if line.endswith("\n"):
                report = config.hook.pytest_report_from_serializable(config=config, data=json.loads(line))
                if isinstance(report.longrepr, list):
                    report.longrepr = tuple(report.longrepr)  # JSON has no tuples, and pytest wants one here
                self._found.setdefault(report.nodeid, []).append(report)

    def reports(self, item: pytest.Item) -> list[pytest.TestReport]:
        """What to report about `item`: its own reports where they are whole, else a failure that says why."""
        found = self._found.get(item.nodeid, [])
        if found and found[-1].when == "teardown":
            return found
        error = self._without_input.get(item.nodeid)
        if error is None and self._missing is not None:
            return [_report(item, "skipped", self._missing)]
        if isinstance(error, pytest.skip.Exception):
            return [_report(item, "skipped", str(error))]
        if error is not None:
            return [_report(item, "failed", "".join(traceback.format_exception(error)))]
        return [_report(item, "failed", self._why_no_result)]


def _measured_in(share: Path, root: Path) -> dict[str, str]:
    """What has the guest's processes measured by coverage where the host's are, into a directory of the share."""
    if not os.environ.get("COVERAGE_PROCESS_CONFIG") or "COVERAGE_FILE" not in os.environ:
        return {}
    directory = share / "coverage"
    directory.mkdir()
    directory.chmod(0o1777)  # processes of the guest's other users are measured too
    return {"COVERAGE_PROCESS_START": str(root / "pyproject.toml"), "COVERAGE_FILE": str(directory / "data")}


def _take_measurements(share: Path) -> None:
    """Put what the guest measured beside what the host did."""
    for file in (share / "coverage").glob("data.*"):
        shutil.move(file, Path(os.environ["COVERAGE_FILE"]).parent)


def _in_qemu() -> bool:
    return os.environ.get(KERNEL) == "qemu"


def _disk_node(number: int) -> str:
    """The node that the guest has for the disk of that number."""
    return f"/dev/nvme{number}n1" if _in_qemu() else f"/dev/ubd{chr(ord('a') + number)}"


_RUN = pytest.StashKey[GuestRun]()


def functions_of(item: pytest.Item) -> list[Prepare]:
    """The input functions a test's marks name, nearest first."""
    return [mark.kwargs["by"] for mark in item.iter_markers("prepare")]


def directory_name(function: Prepare) -> str:
    """The name of the directory an input function fills, the same on both sides."""
    return f"{function.__module__.rpartition('.')[2]}.{function.__qualname__}"


def _report(item: pytest.Item, outcome: str, text: str) -> pytest.TestReport:
    path, line, _ = item.location
    return pytest.TestReport(
        nodeid=item.nodeid,
        location=item.location,
        keywords=dict.fromkeys(item.keywords, 1),
        outcome=outcome,  # type: ignore[arg-type]  # "skipped" and "failed" are of the literal type
        longrepr=(path, line or 0, f"Skipped: {text}") if outcome == "skipped" else text,
        when="setup" if outcome == "skipped" else "call",
    )
