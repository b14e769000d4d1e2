"""The charts are what the tables of measurements say."""

import re
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))

from charts import Chart, Row, charts, draw

TABLES = """
## Things

| case | blockwright | peer | ratio | bar |
| --- | --- | --- | --- | --- |
| **quick** | 1 s | 4 s | **0.25x** | |
| slow | 4 s | 1 s | 4.0x: missed | 1.0x |
| alone | 1 s | | | |

### Rates

| case | blockwright | nbdkit | to nbdkit |
| --- | --- | --- | --- |
| read | 3,000 (2-4k) | 1,000 (1-1k) | 3.00x |

| words | without |
| --- | --- |
| a | peer |
"""


def test_times_are_turned_over_and_rates_are_not() -> None:
    assert charts(TABLES) == [
        Chart("Things", "", [Row("quick", 4.0), Row("slow", 0.25)]),
        Chart("Rates", "nbdkit", [Row("read", 3.0)]),
    ]


def test_slower_rows_are_drawn_to_the_other_side() -> None:
    drawn = draw(charts(TABLES))
    assert [drawn.count(f'class="{each}"/>') for each in ("quick", "slow")] == [2, 1]
    assert all(f">{each}<" in drawn for each in ("4.00x", "0.25x", "3.00x", "Rates, to nbdkit"))


def test_the_sheet_is_what_the_tables_say() -> None:
    script = Path(__file__).parents[2] / "bench/charts.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_one_command_runs_every_measurement() -> None:
    bench = Path(__file__).parents[2] / "bench"
    run = (bench / "run.py").read_text()
    measuring = {path.stem for path in bench.glob("*.py") if "\ndef main(" in path.read_text()} - {"charts"}
    assert measuring == set(re.findall(r"^    (\w+)\.main\(", run, re.MULTILINE))
    assert len(measuring) > 10
