"""A disk's picture as one HTML page: no script, nothing from elsewhere, and a policy that allows neither.

The page is XML too. Its policy (Content-Security-Policy) names the one style sheet by its hash.

Knows: the page. Refuses to know: what is drawn on it (``strip``, ``filling``).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from typing import Final

from blockwright.draw import filling
from blockwright.draw.facts import boot_lines, columns, findings_summary, headline, legend, summary
from blockwright.draw.markup import Markup, joined, tag
from blockwright.draw.palette import css
from blockwright.draw.picture import Folder, Kind, Part, Picture
from blockwright.draw.strip import STYLE as STRIP_STYLE
from blockwright.draw.strip import patterns, strip, strip_height, usage
from blockwright.draw.svg import counted, swatch
from blockwright.units import format_size

_STYLE: Final = """
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink)}
body{font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
main,header,footer{max-width:72rem;margin:0 auto;padding:0 1rem}
header{padding-top:1.5rem}h1{font-size:1.6rem;line-height:1.25;margin:0 0 .25rem;overflow-wrap:anywhere}
h2{font-size:1.15rem;margin:2rem 0 .5rem}h3{font-size:1rem;margin:1.5rem 0 .5rem;overflow-wrap:anywhere}
p{margin:.25rem 0}.muted{color:var(--quiet)}a{color:var(--data)}
svg{display:block;overflow:hidden}svg.wide{width:100%;font-family:inherit}
.skip{position:absolute;left:-99rem}.skip:focus{left:1rem;top:.5rem;background:var(--page);padding:.25rem .5rem}
:focus-visible{outline:3px solid var(--boot);outline-offset:2px}
svg a:focus-visible{outline:none}svg a:focus-visible>svg>rect{stroke:var(--boot);stroke-width:4}
:target{background:var(--panel);outline:2px solid var(--boot);outline-offset:2px}
.legend,.marks{list-style:none;padding:0;margin:.75rem 0;display:flex;flex-wrap:wrap;gap:.25rem 1.25rem}
.legend li{display:flex;align-items:center;gap:.5rem}.marks{flex-direction:column}
.marks b{color:var(--boot);display:inline-block;width:1.25rem}.marks li{overflow-wrap:anywhere}
.scroll{overflow-x:auto;margin:0 -.4rem;padding:.1rem .4rem}table{border-collapse:collapse;width:100%;font-size:.9rem}
th,td{text-align:left;padding:.3rem .75rem .3rem 0;border-bottom:1px solid var(--line);vertical-align:top}
td.number,th.number{padding-right:1.5rem}th{color:var(--quiet);font-weight:600}td.number,th.number{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
td{white-space:nowrap}td.path{white-space:normal;min-width:8rem}td.path bdi{overflow-wrap:anywhere}
.verdict{border-left:4px solid var(--good);padding:.5rem .75rem;background:var(--panel);overflow-wrap:anywhere}
.verdict.bad{border-color:var(--bad)}
.findings{padding-left:1.25rem}.findings li{margin:.5rem 0;overflow-wrap:anywhere}
code{font-family:ui-monospace,"Cascadia Mono",Menlo,"DejaVu Sans Mono",monospace;font-size:.9em}
summary{cursor:pointer}details{margin:.5rem 0}svg.mark{overflow:visible}
footer{padding:2rem 1rem;font-size:.85rem;color:var(--quiet)}
.treemap{height:380px}h1 bdi,h3 bdi,li bdi{overflow-wrap:anywhere}
@media (max-width:40rem){.treemap{height:300px}h1{font-size:1.35rem}}
@media print{body{font-size:11pt}.skip{display:none}details:not([open])>*{display:block}
section{break-inside:avoid}svg *{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
"""


def document(picture: Picture) -> str:
    """Return the whole page; the same picture gives the same text."""
    sheet = Markup(css() + _STYLE + STRIP_STYLE + filling.STYLE)
    digest = base64.b64encode(hashlib.sha256(sheet.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", headline(picture)),
        tag("style", sheet),
    )
    body = tag(
        "body",
        tag("a", "Skip to the findings", href="#findings", class_="skip"),
        tag("header", tag("h1", tag("bdi", picture.source)), tag("p", summary(picture), class_="muted")),
        tag("main", _disk(picture), _table(picture), _contents(picture), _findings(picture)),
        tag("footer", "Drawn by blockwright inspect. This page loads nothing and runs nothing."),
    )
    return "<!DOCTYPE html>\n" + tag("html", head, body, lang="en", xmlns="http://www.w3.org/1999/xhtml") + "\n"


def _svg(inner: str, label: str, *, height: int | None = None, class_: str = "wide", role: str = "group") -> Markup:
    return tag(
        "svg", inner, xmlns="http://www.w3.org/2000/svg", class_=class_, height=height, role=role, aria_label=label
    )


def _disk(picture: Picture) -> Markup:
    remarks = [text for class_, text in legend(picture) if not class_]
    return tag(
        "section",
        tag("h2", "The disk", id="disk"),
        _svg(
            joined([patterns(), strip(picture, linked=True)]),
            "Layout of the disk, to scale",
            height=strip_height(picture),
        ),
        tag("ul", [_legend_item(class_, text) for class_, text in legend(picture) if class_], class_="legend muted"),
        [tag("p", text, class_="muted") for text in remarks],
        _marks(picture),
        aria_labelledby="disk",
    )


def _legend_item(class_: str, text: str) -> Markup:
    drawn = tag("svg", swatch(class_), width=18, height=12, aria_hidden="true")
    return tag("li", drawn, text)


def _marks(picture: Picture) -> Markup:
    if not picture.boot:
        return Markup()
    items = [tag("li", tag("b", letter), " ", tag("bdi", line)) for letter, line in boot_lines(picture)]
    return joined([tag("h3", "What takes part in its start"), tag("ol", items, class_="marks")])


def _table(picture: Picture) -> Markup:
    names, rows = columns(picture)
    numbers = {"start", "size", "stored"}
    head = [
        tag("th", name or tag("abbr", "#", title="number"), scope="col", class_="number" if name in numbers else None)
        for name in names
    ]
    parts = [(index, part) for index, part in enumerate(picture.parts) if part.kind in (Kind.PARTITION, Kind.WHOLE)]
    body = []
    for (index, part), row in zip(parts, rows, strict=True):
        cells = [
            tag("td", tag("bdi", cell), class_="number" if name in numbers else None)
            for name, cell in zip(names, row, strict=True)
        ]
        body.append(tag("tr", cells, id=f"part-{index}"))
        if part.problem:
            body.append(
                tag("tr", tag("td"), tag("td", tag("bdi", part.problem), colspan=str(len(names) - 1), class_="path"))
            )
    told = tag("table", tag("thead", tag("tr", head)), tag("tbody", body))
    return tag(
        "section",
        tag("h2", "Partitions", id="partitions"),
        tag("div", told, class_="scroll", tabindex="0", role="region", aria_labelledby="partitions"),
    )


def _contents(picture: Picture) -> Markup:
    found = [(index, part) for index, part in enumerate(picture.parts) if part.contents]
    if not found:
        return Markup()
    return tag(
        "section",
        tag("h2", "What fills it", id="contents"),
        [each for index, part in found for each in _filling(index, part)],
        aria_labelledby="contents",
    )


def _filling(index: int, part: Part) -> Iterator[Markup]:
    contents = part.contents
    assert contents is not None
    system = part.file_system
    name = f"Partition {part.number} ({part.type})" if part.number else "The file system"
    label = f", {system.kind} {system.label}".rstrip() if system else ""
    yield tag("h3", tag("bdi", f"{name}{label}: {usage(part)} in use"))
    if not contents.root.children:
        yield tag("p", f"Nothing in it takes room. {counted(part)}.", class_="muted")
        return
    prefix = f"fill-{index}"
    yield _svg(
        filling.treemap(contents, prefix), f"Treemap of {name}; the table below tells the same", class_="wide treemap"
    )
    yield tag("p", counted(part), class_="muted")
    rows = [row for place, child in enumerate(contents.root.children) for row in _rows(child, f"{prefix}-{place}")]
    head = tag(
        "tr",
        tag("th", "name", scope="col"),
        *(tag("th", each, scope="col", class_="number") for each in ("size", "entries")),
    )
    yield tag(
        "details",
        tag("summary", "The same as a table"),
        tag("div", tag("table", tag("thead", head), tag("tbody", rows)), class_="scroll"),
        open="open",
    )


def _rows(folder: Folder, anchor: str) -> Iterator[Markup]:
    yield _folder_row(folder, "/", anchor)
    for child in folder.children[:3]:
        if child.is_directory:
            yield _folder_row(child, f"/{folder.name}/", None)


def _folder_row(folder: Folder, above: str, anchor: str | None) -> Markup:
    path = folder.is_directory or folder.is_file
    name = f"{above}{folder.name}{'/' * folder.is_directory}" if path else f"{above}: {folder.name}"
    return tag(
        "tr",
        tag("td", tag("bdi", name), class_="path"),
        tag("td", format_size(folder.size), class_="number"),
        tag("td", str(folder.entries), class_="number"),
        id=anchor,
    )


def _findings(picture: Picture) -> Markup:
    found = picture.findings or ()
    items = [
        tag(
            "li",
            tag("bdi", each.place),
            ": ",
            tag("code", each.rule),
            tag("br"),
            tag("bdi", each.message),
            f" (byte {each.offset} of the disk)" if each.offset is not None else "",
        )
        for each in found
    ]
    more = [tag("p", f"{picture.more_findings} more are not listed; blockwright check tells all.")]
    return tag(
        "section",
        tag("h2", "Findings", id="findings", tabindex="-1"),
        tag("p", findings_summary(picture), class_="verdict bad" if found else "verdict"),
        tag("ol", items, class_="findings") if items else "",
        more if picture.more_findings else "",
        aria_labelledby="findings",
    )
