"""Draws the tables of bench/README.md as bench/charts.svg: how much quicker or slower than the peer each row is.

A table with a column `ratio` or `to PEER` is drawn, every row of it. In tables of requests a second the longer bar is
the better one, so the ratio is taken as it is; in tables of times it is turned over. So to the right of the line is
quicker than the peer, to the left slower, and both have the same scale: each line is twice the one before.

    python bench/charts.py           # writes charts.svg
    python bench/charts.py --check   # says whether it is what the tables give
"""

from __future__ import annotations

import math
import re
import sys
from dataclasses import dataclass
from html import escape
from pathlib import Path

HERE = Path(__file__).parent
WIDTH, LABEL, ROW, SCALE = 960, 470, 20, 46  # pixels; SCALE is one doubling
MIDDLE, MOST = LABEL + 200, 6.0  # doublings that are drawn; what is further is cut, and its number says so

STYLE = """
svg{font:12px system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;
--page:#fff;--ink:#1f2328;--quiet:#656d76;--line:#d0d7de;--quick:#2a78b8;--slow:#c2571a}
@media (prefers-color-scheme:dark){svg{--page:#0d1117;--ink:#e6edf3;--quiet:#8b949e;--line:#30363d;--quick:#58a6e0;
--slow:#e8894f}}
.page{fill:var(--page)}.ink{fill:var(--ink)}.head{fill:var(--ink);font-weight:600;font-size:14px}
.quiet{fill:var(--quiet)}.line{stroke:var(--line);stroke-width:.5}.one{stroke:var(--ink)}
.quick{fill:var(--quick)}.slow{fill:var(--slow)}.end{text-anchor:end}.mid{text-anchor:middle}
"""


@dataclass(frozen=True)
class Row:
    """One row: what was done, and how many times as quick as the peer it was."""

    case: str
    speed: float


@dataclass(frozen=True)
class Chart:
    """One table: its heading, the peer where the table names one, and its rows."""

    title: str
    peer: str
    rows: list[Row]


def plain(cell: str) -> str:
    """A cell without Markdown."""
    return re.sub(r"[*`]", "", cell).strip()


def charts(text: str) -> list[Chart]:
    """Return each table that compares with a peer, and each of its columns that does."""
    found, title = [], ""
    for block in re.split(r"\n\n+", text.strip()):
        if block.startswith("#"):
            title = plain(block.lstrip("# "))
        if not block.startswith("|"):
            continue
        head, _, *lines = ([plain(cell) for cell in line.strip("|").split("|")] for line in block.splitlines())
        for column, name in enumerate(head):
            if not re.fullmatch(r"ratio|ratio to .*|to .*", name) or "blockwright" not in head:
                continue
            rates = [line[head.index("blockwright")] for line in lines]
            is_rate = all(re.match(r"[0-9,]+ \(", each) for each in rates)
            rows = []
            for line in lines:
                ratio = re.match(r"([0-9.]+)x", line[column])
                if ratio and float(ratio[1]):
                    rows.append(Row(line[0], float(ratio[1]) if is_rate else 1 / float(ratio[1])))
            peer = name.removeprefix("ratio").removeprefix(" to ").removeprefix("to ")
            peers = [each for each in head[1:column] if each not in ("blockwright", "peer")]
            if rows:
                found.append(Chart(title, peer or (peers[0] if peers else ""), rows))
    return found


def times(speed: float) -> str:
    """How many times, in as many figures as mean something."""
    return f"{speed:.2f}x" if speed < 10 else f"{speed:.0f}x"


def draw(found: list[Chart]) -> str:
    """Return the sheet."""
    body, y = [], 34

    def text(x: float, at: float, class_: str, words: str) -> None:
        body.append(f'<text x="{x:g}" y="{at:g}" class="{class_}">{escape(words)}</text>')

    text(16, y, "head", "How many times as quick as the peer")
    y += 20
    text(16, y, "quiet", "Right of the line quicker, left of it slower; each thin line is twice the one before.")
    for chart in found:
        y += 40
        text(16, y, "head", f"{chart.title}, to {chart.peer}" if chart.peer else chart.title)
        top = y + 10
        bottom = top + ROW * len(chart.rows)
        for doubling in range(-3, 7):
            x = MIDDLE + doubling * SCALE
            if LABEL - 10 < x < WIDTH:
                body.append(f'<line x1="{x}" y1="{top}" x2="{x}" y2="{bottom}" class="line"/>')
        for row in chart.rows:
            y = top + 14
            long = f"{row.case[:66]}…" if len(row.case) > 67 else row.case
            text(LABEL - 10, y, "ink end", long)
            length = max(-MOST / 2, min(MOST, math.log2(row.speed))) * SCALE
            class_ = "quick" if length >= 0 else "slow"
            x = MIDDLE + min(0.0, length)
            body.append(
                f'<rect x="{x:.1f}" y="{top + 4}" width="{max(1.0, abs(length)):.1f}" height="12" class="{class_}"/>'
            )
            if length < 0:
                text(MIDDLE + length - 6, y, "ink end", times(row.speed))
            elif MIDDLE + length + 50 > WIDTH:
                text(MIDDLE + 8, y, "page", times(row.speed))  # on the bar, where there is no room behind it
            else:
                text(MIDDLE + length + 6, y, "ink", times(row.speed))
            top += ROW
        body.append(
            f'<line x1="{MIDDLE}" y1="{bottom - ROW * len(chart.rows)}" x2="{MIDDLE}" y2="{bottom}" class="one"/>'
        )
        y = bottom
    height = y + 24
    box = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    sheet = f'<svg xmlns="http://www.w3.org/2000/svg" {box} role="img">'
    title = "<title>blockwright beside its peers, from the tables of bench/README.md</title>"
    return "\n".join(
        [
            sheet,
            title,
            f"<style>{STYLE}</style>",
            '<rect width="100%" height="100%" class="page"/>',
            *body,
            "</svg>",
            "",
        ]
    )


def main() -> None:
    """Write the sheet, or hold the one that is there against the tables."""
    drawn = draw(charts((HERE / "README.md").read_text()))
    target = HERE / "charts.svg"
    if sys.argv[1:] != ["--check"]:
        target.write_text(drawn)
    elif not target.exists() or target.read_text() != drawn:
        sys.exit("bench/charts.svg is not what bench/README.md says: python bench/charts.py")


if __name__ == "__main__":
    main()
