"""Workflows of GitHub's: what its schema asks of the parts that ours have, and that what they run is there."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FILES = [*sorted((ROOT / ".github" / "workflows").glob("*.yml")), ROOT / "examples" / "github-actions" / "disk.yml"]
TOP = {"name", "on", "permissions", "concurrency", "env", "jobs"}
JOB = {"strategy", "runs-on", "container", "timeout-minutes", "env", "steps"}
STEP = {"name", "uses", "with", "run"}


def load(path: Path) -> dict[Any, Any]:
    yaml = pytest.importorskip("yaml")
    found: dict[Any, Any] = yaml.safe_load(path.read_text())
    found["on"] = found.pop(True)  # YAML 1.1 reads the word so
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_workflows_have_the_shape_that_is_asked(path: Path) -> None:
    workflow = load(path)
    assert {"on", "jobs"} <= set(workflow) <= TOP
    assert workflow["permissions"] == {"contents": "read"}, "no more than is needed"
    for name, job in workflow["jobs"].items():
        assert re.fullmatch(r"[A-Za-z_][\w-]*", name)
        assert {"runs-on", "steps"} <= set(job) <= JOB
        for step in job["steps"]:
            assert set(step) <= STEP
            assert ("uses" in step) != ("run" in step), step
            if "uses" in step:
                assert re.fullmatch(r"[\w.-]+/[\w./-]+@v\d+", step["uses"])
            else:
                assert "with" not in step
                done = subprocess.run(["bash", "-n"], input=step["run"], capture_output=True, text=True, check=False)
                assert (done.returncode, done.stderr) == (0, ""), step["run"]


def test_ours_runs_scripts_that_there_are() -> None:
    text = FILES[0].read_text()
    named = set(re.findall(r"\b(scripts/\w+|Containerfile)", text))
    assert {"scripts/test", "scripts/zipapp", "scripts/deb", "Containerfile"} <= named
    assert [name for name in named if not (ROOT / name).is_file()] == []
    expressions = re.findall(r"\$\{\{ *([\w.]+) *\}\}", text)
    assert {name for name in expressions if not name.startswith("github.")} == {"matrix.python"}
