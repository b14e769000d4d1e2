"""Tells what coverage found by package, the one with the most lines that no test runs first.

python scripts/coverage_packages.py FILE     what `coverage json` wrote
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

_TOP = "blockwright"


def packages(report: dict[str, Any]) -> list[tuple[str, int, int, float]]:
    """Return (package, lines, lines that were not run, percent with branches) of each package below ours."""
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for name, each in report["files"].items():
        below = name.replace("\\", "/").rpartition(f"{_TOP}/")[2]
        package = below.partition("/")[0] if "/" in below else "(modules)"
        found = each["summary"]
        lines, branches = found["num_statements"], found.get("num_branches", 0)
        run = found["covered_lines"] + found.get("covered_branches", 0)
        for index, value in enumerate((lines, found["missing_lines"], lines + branches, run)):
            sums[package][index] += value
    rows = [
        (name, lines, missing, 100 * run / all_ if all_ else 100.0)
        for name, (lines, missing, all_, run) in sums.items()
    ]
    return sorted(rows, key=lambda row: (-row[2], row[0]))


def main() -> None:
    """Print the table."""
    rows = packages(json.loads(Path(sys.argv[1]).read_text()))
    print(f"{'package':<14} {'lines':>7} {'not run':>8} {'covered':>8}")
    for name, lines, missing, percent in rows:
        print(f"{name:<14} {lines:>7,} {missing:>8,} {percent:>7.1f}%")


if __name__ == "__main__":
    main()
