"""Measure changes of contents over trees of 250,000 and a million files: ``python bench/content.py``.

The trees are made in memory, so that nothing but the change is measured; in seconds of the processor, of which one
thread is all that a change uses. Linear is what takes four times as long for
four times as many. Labels are by a policy's file_contexts where one is named (``POLICY=…``), else by 5,000 rules of
common shape.
"""

from __future__ import annotations

import gc
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT)]

# Only now are they to be found.
from blockwright.tree.changes.devicetable import apply_table, parse_table  # noqa: E402
from blockwright.tree.changes.owners import map_ids, parse_maps, set_owner  # noqa: E402
from blockwright.tree.changes.patterns import Patterns, exclude  # noqa: E402
from blockwright.tree.mtree.apply import apply_manifest  # noqa: E402
from blockwright.tree.mtree.parse import parse  # noqa: E402
from blockwright.tree.mtree.write import write_manifest  # noqa: E402
from blockwright.tree.node import Directory, File  # noqa: E402
from blockwright.tree.selinux.contexts import Contexts, parse_contexts, read_contexts  # noqa: E402
from blockwright.tree.selinux.label import label  # noqa: E402

ROUNDS = 3
SIZES = (250_000, 1_000_000)


def tree(files: int) -> Directory:
    """Directories of a thousand files below some of the places that rules are for."""
    tops = {name: Directory() for name in (b"usr", b"var", b"home", b"opt")}
    root = Directory(entries=dict(tops))
    for number in range(files // 1000):
        top = tops[(b"usr", b"var", b"home", b"opt")[number % 4]]
        folder = top.entries.setdefault(b"d%02d" % (number % 40), Directory())
        assert isinstance(folder, Directory)
        folder.entries[b"e%04d" % number] = Directory(
            entries={
                b"file-%05d-%08x.%s"
                % (each, each * 2654435761 % 2**32, (b"so", b"py", b"o", b"txt")[each % 4]): File(
                    uid=each % 3000, gid=each % 70
                )
                for each in range(1000)
            }
        )
    return root


def rules() -> Contexts:
    """5,000 rules: half of them paths, half expressions."""
    lines = ["/.* u:r:default_t:s0", "/usr(/.*)? u:r:usr_t:s0", "/usr/.*\\.so(\\.[^/]*)* -- u:r:lib_t:s0"]
    lines += [f"/usr/d{n % 40:02d}/e{n:04d}/file-{n:05d}[^/]* u:r:t{n}_t:s0" for n in range(1250)]
    lines += [f"/var/(lib|cache)/daemon{n}(/.*)? u:r:d{n}_t:s0" for n in range(1250)]
    lines += [f"/usr/bin/program-{n} -- u:r:p{n}_t:s0" for n in range(2497)]
    return Contexts(parse_contexts("\n".join(lines).encode(), "rules"))


def patterns() -> Patterns:
    """200 patterns, half of them with stars."""
    texts = [f"*.x{n}" for n in range(50)] + [f"/usr/**/cache-{n}/*" for n in range(50)]
    texts += [f"name-{n}" for n in range(100)] + ["*.o", "!file-0000*.o"]
    return Patterns([text.encode() for text in texts])


def main() -> None:
    gc.disable()
    named = os.environ.get("POLICY")
    contexts = read_contexts(named) if named else rules()
    unwanted = patterns()
    maps = parse_maps(["0:0:1000", "100000:1000:65536"], "refuse")
    table = parse_table(b"/usr r -1 7 8\n/dev/tty c 620 0 5 4 0 0 1 64\n", "table")
    changes: dict[str, Callable[[Directory], object]] = {
        "ids mapped": lambda root: map_ids(root, *maps),
        "one owner": lambda root: set_owner(root, 7, 8),
        "202 patterns excluded": lambda root: exclude(root, unwanted),
        f"labels ({'a policy' if named else '5,000 rules'})": lambda root: label(root, contexts),
        "a device table, a quarter": lambda root: apply_table(root, table, mtime_ns=0),
        "a manifest written": lambda root: sum(map(len, write_manifest(root))),
    }
    trees = {size: tree(size) for size in SIZES}
    texts = {size: b"".join(write_manifest(trees[size])) for size in SIZES}
    print(f"{'change':<28} " + " ".join(f"{size:>26,}" for size in SIZES) + "   ratio")
    for name, change in changes.items():
        measure(name, {size: _with(change, trees[size]) for size in SIZES})
    manifests = {size: _manifest(trees[size], texts[size]) for size in SIZES}
    measure("a manifest read and applied", manifests)


def _with(change: Callable[[Directory], object], root: Directory) -> Callable[[], object]:
    return lambda: change(root)


def _manifest(root: Directory, text: bytes) -> Callable[[], object]:
    return lambda: apply_manifest(root, parse(text, "m"), mtime_ns=0)


def measure(name: str, runs: dict[int, Callable[[], object]]) -> None:
    shown, medians = [], []
    for run in runs.values():
        seconds = []
        for _ in range(ROUNDS):
            started = time.process_time()
            run()
            seconds.append(time.process_time() - started)
        medians.append(statistics.median(seconds))
        shown.append(f"{medians[-1]:6.2f} s ({min(seconds):5.2f}-{max(seconds):5.2f})")
    print(f"{name:<28} " + " ".join(f"{each:>26}" for each in shown) + f"   {medians[1] / medians[0]:4.1f}x")


if __name__ == "__main__":
    main()
