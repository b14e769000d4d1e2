"""Drawings of disks of every shape: each fits, nothing is lost without colours, what is not markup is escaped."""

import random
import re
import xml.dom.minidom

import pytest

from blockwright.draw import html, svg
from blockwright.draw.markup import Markup, escaped, tag
from blockwright.draw.picture import Bin, Boot, Contents, FileSystem, Folder, Found, Kind, Part, Picture
from blockwright.draw.scale import Scale, resample, shares, whole_shares
from blockwright.draw.terminal import MIN_WIDTH, Style, draw
from blockwright.draw.treemap import Box, squarify
from blockwright.draw.words import cells

NASTY = "<b>&\"'日本</script>"


def part(start, size, number=0, *, kind=Kind.PARTITION, used=None, bins=((1, 1, 1, 1),), problem=""):
    system = None if used is None else FileSystem("ext4", NASTY, "id", size, size - used)
    root = Folder(
        "/", 10, entries=3, children=(Folder(NASTY, 7, entries=1, children=(Folder("x", 7),)), Folder("f", 3))
    )
    contents = None if used is None else Contents(root, 2, 1, complete=False)
    dealt = tuple(Bin(*each) for each in bins)
    return Part(kind, start, size, size, dealt, number, NASTY, NASTY, "id", (), system, contents, problem)


def picture(parts, **more):
    size = sum(each.size for each in parts)
    return Picture(NASTY, size, "", "gpt x", 512, tuple(parts), **more)


def disk(count=3):
    parts = [part(0, 17 << 10, kind=Kind.TABLE)]
    parts += [part((number << 20), 1 << 20, number, used=1 << 19) for number in range(1, count + 1)]
    found = (Found(NASTY, "rule", NASTY, 5),)
    return picture(parts, boot=(Boot(0, 440, NASTY),), findings=found, more_findings=3, checked=(NASTY,))


@pytest.mark.parametrize("count", [0, 1, 3, 128])
@pytest.mark.parametrize("width", [1, MIN_WIDTH, 61, 80, 237])
def test_every_line_fits_the_terminal(count, width):
    for unicode in (True, False):
        lines = draw(disk(count), Style(width, unicode=unicode))
        bars = [line for line in lines if line.endswith("│" if unicode else "|")]
        assert len({cells(line) for line in bars}) == 1
        assert cells(bars[0]) == max(width, MIN_WIDTH)
        edges = [line for line in lines if line.endswith(("┐", "┘", "+"))]
        assert {cells(line) for line in edges} == {max(width, MIN_WIDTH)}


def test_colours_add_nothing_but_colours():
    plain, colored = draw(disk(), Style(90)), draw(disk(), Style(90, color=True))
    assert [re.sub("\x1b\\[[0-9;]*m", "", line) for line in colored] == plain
    assert plain != colored
    assert all(line.isascii() for line in draw(disk(), Style(90, unicode=False)))


def test_what_is_stored_is_told_from_what_is_not():
    bins = ((800, 0, 0, 0), (0, 800, 0, 0), (0, 0, 800, 0), (0, 0, 0, 800), (160, 0, 640, 0))
    lines = draw(picture([part(0, 4000, kind=Kind.WHOLE, bins=bins)]), Style(40 + 12))
    row = next(line for line in lines if line.startswith("on disk"))
    assert row[11:-1] == "█" * 8 + "○" * 8 + "·" * 8 + "?" * 8 + "▂" * 8


@pytest.mark.parametrize("count", [0, 1, 128])
def test_markup_is_xml_and_holds_names_as_text(count):
    for text in (svg.document(disk(count)), html.document(disk(count)).split("\n", 1)[1]):
        document = xml.dom.minidom.parseString(text)
        assert not document.getElementsByTagName("script")
        assert "&lt;b&gt;" in text
    assert "3 more are not listed" in html.document(disk(1))
    assert "were not looked at" in html.document(disk(1))


def test_text_is_escaped_unless_it_is_markup():
    assert tag("p", "<&>", Markup("<br/>"), title="\"'") == '<p title="&quot;&#39;">&lt;&amp;&gt;<br/></p>'
    assert escaped(escaped("&")) == "&amp;"
    assert tag("rect", x=1.0, y=-0.0, class_=None) == '<rect x="1" y="0"/>'


def test_shares_add_up_and_leave_nothing_out():
    source = random.Random(1)
    for _ in range(200):
        sizes = [source.choice([0, 1, 1000, 1 << 40]) for _ in range(source.randrange(1, 30))]
        found = shares(sizes, 100.0, 1.5)
        assert abs(sum(found) - (100.0 if any(sizes) else 0)) < 1e-6
        least = min(1.5, 100 / max(1, sum(map(bool, sizes))))
        assert all((width >= least - 1e-9) == bool(size) for width, size in zip(found, sizes, strict=True))
        assert all(bool(width) == bool(size) for width, size in zip(whole_shares(sizes, 200, 2), sizes, strict=True))


def test_a_byte_has_a_place():
    scale = Scale.of(disk().parts, 100.0, 1.0)
    places = [scale.place(offset) for offset in range(0, 4 << 20, 4096)]
    assert places == sorted(places)
    assert places[0] == 0
    assert scale.place(1 << 60) == 100


def test_bins_keep_their_bytes():
    bins = [Bin(index, 10 - index, 1, 2) for index in range(10)]
    for count in (1, 3, 10, 40):
        found = resample(bins, count)
        for kind in range(4):
            assert abs(sum(each[kind] for each in found) - sum(each[kind] for each in bins)) <= count


def test_boxes_fill_the_whole_and_are_as_large_as_told():
    source = random.Random(2)
    for _ in range(100):
        sizes = sorted((source.randrange(1, 10**6) for _ in range(source.randrange(1, 40))), reverse=True)
        boxes = squarify(sizes, Box(0, 0, 960, 380))
        for size, box in zip(sizes, boxes, strict=True):
            assert abs(box.width * box.height - size * 960 * 380 / sum(sizes)) < 1
            assert box.x >= -1e-6
            assert box.y >= -1e-6
            assert box.x + box.width <= 960 + 1e-6
            assert box.y + box.height <= 380 + 1e-6
    assert squarify([1], Box(0, 0, 0, 5)) == [Box(0, 0, 0, 0)]
