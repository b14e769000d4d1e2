"""What `make coverage` tells of packages."""

import importlib.util
from pathlib import Path

PLACE = Path(__file__).parents[2] / "scripts" / "coverage_packages.py"
SPEC = importlib.util.spec_from_file_location("coverage_packages", PLACE)
assert SPEC is not None
assert SPEC.loader is not None
MODULE = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(MODULE)


def summary(lines: int, missing: int, branches: int = 0, covered: int = 0) -> dict[str, dict[str, int]]:
    values = {"num_statements": lines, "missing_lines": missing, "covered_lines": lines - missing}
    return {"summary": {**values, "num_branches": branches, "covered_branches": covered}}


def test_modules_of_a_package_are_one_row_and_the_worst_is_first() -> None:
    files = {
        "src/blockwright/cli/fs.py": summary(10, 1),
        "src/blockwright/cli/deep/er.py": summary(30, 1, 10, 5),
        "src/blockwright/fs/ext4/plan.py": summary(20, 8),
        "src/blockwright/units.py": summary(4, 0),
    }
    assert MODULE.packages({"files": files}) == [
        ("fs", 20, 8, 60.0),
        ("cli", 40, 2, 86.0),
        ("(modules)", 4, 0, 100.0),
    ]
