"""What `inspect` draws, seen by a browser; and what names in an image cannot make it do."""

import os
import xml.dom.minidom

import pytest

from tests.support.browser import browsing, require_browser
from tests.support.command import blockwright

HOSTILE = [
    b"</script><script>document.title='owned'</script>",
    b"'\"><img src=x onerror=document.title='owned'>",
    b"]]>&amp;<svg onload=alert(1)>",
    b"\x1b[2J\x07\r\n",
    b"\xe2\x80\xaegnp.exe",
    b"\xff\xfe\x80",
    b"</style><style>*{display:none}",
    b"\xef\xbf\xbe\xef\xbf\xbf\x00"[:6],
]


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    """A disk with names that attack whoever shows them."""
    folder = tmp_path_factory.mktemp("disk")
    root = folder / "root"
    for index, name in enumerate(HOSTILE):
        made = os.path.join(os.fsencode(root), name.replace(b"/", b"\xe2\x88\x95"))
        os.makedirs(made)
        with open(os.path.join(made, b"f-" + name.replace(b"/", b"\xe2\x88\x95")), "wb") as file:
            file.write(bytes(100_000 * (index + 1)))
    (root / "etc").mkdir()
    (root / "etc" / "hosts").write_bytes(b"x" * 50_000)
    image = folder / "disk.img"
    label = "<b>&label"
    blockwright(
        "build", root, "-o", image, "--size", "96M",
        "--partition", "type=esp,size=33M", "--partition", f"mount=/,size=40M,label={label}",
        "--partition", "type=swap,size=8M",
    )  # fmt: skip
    return image


@pytest.fixture(scope="module")
def drawn(disk):
    page, sheet = disk.with_suffix(".html"), disk.with_suffix(".svg")
    blockwright("inspect", disk, "--html", page, "--svg", sheet)
    return page, sheet


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    require_browser()
    with browsing(tmp_path_factory.mktemp("browser")) as found:
        yield found


def test_both_are_xml_and_refer_to_nothing_elsewhere(drawn):
    page, sheet = (path.read_text() for path in drawn)
    for text in (page.split("\n", 1)[1], sheet):
        document = xml.dom.minidom.parseString(text)
        names = {each.tagName for each in document.getElementsByTagName("*")}
        assert not names & {"script", "img", "iframe", "object", "foreignObject", "image", "link", "base", "form"}
        for each in document.getElementsByTagName("*"):
            for key, value in each.attributes.items():
                assert not key.startswith("on"), (each.tagName, key)
                if key in ("href", "src", "xlink:href"):
                    assert value.startswith("#"), value


def test_the_same_disk_gives_the_same_bytes(disk, drawn, tmp_path):
    blockwright("inspect", disk, "--html", tmp_path / "a.html", "--svg", tmp_path / "a.svg")
    assert (tmp_path / "a.html").read_bytes() == drawn[0].read_bytes()
    assert (tmp_path / "a.svg").read_bytes() == drawn[1].read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_tells_the_disk(browser, drawn, dark):
    browser.emulate(dark=dark)
    browser.resize(1200, 900)
    browser.open(drawn[0].as_uri())
    text = browser.text("main")
    for expected in ("esp", "linux-generic", "swap", "<b>&label", "No damage found", "33 MiB", "etc/"):
        assert expected in text, expected
    assert browser.run("return getComputedStyle(document.body).backgroundColor") == (
        "rgb(16, 21, 27)" if dark else "rgb(255, 255, 255)"
    )
    assert contrast(browser, "main .muted") >= 4.5
    assert contrast(browser, "td") >= 4.5
    assert browser.errors() == []


@pytest.mark.slow
def test_names_are_shown_and_run_nothing(browser, drawn):
    browser.open(drawn[0].as_uri())
    assert browser.run("return document.title") == f"The disk {os.fspath(drawn[0].with_suffix('.img'))}"
    text = browser.text("main")
    assert "<script>document.title='owned'<" in text
    assert "\\x1b[2J\\x07\\r\\n" in text
    assert "\\u202egnp.exe" in text
    assert "\\xff\\xfe\\x80" in text
    assert not browser.run("return document.querySelectorAll('script, img, iframe').length")
    assert browser.run("return document.styleSheets.length") == 1
    assert browser.errors() == []


@pytest.mark.slow
def test_a_script_in_the_page_would_not_run(browser, drawn, tmp_path):
    """The second lock: what escaping would have let through, the page's policy holds."""
    text = drawn[0].read_text()
    attacked = tmp_path / "attacked.html"
    attacked.write_text(text.replace("</main>", "<script>document.title='owned'</script></main>", 1))
    browser.open(attacked.as_uri())
    assert browser.run("return document.title") != "owned"
    assert any("Content Security Policy" in each for each in browser.errors())
    (tmp_path / "open.html").write_text(attacked.read_text().replace("Content-Security-Policy", "X-None"))
    browser.open((tmp_path / "open.html").as_uri())
    assert browser.run("return document.title") == "owned"


@pytest.mark.slow
def test_a_keyboard_reaches_everything(browser, drawn):
    browser.open(drawn[0].as_uri())
    seen = []
    for _ in range(5):
        browser.press("Tab")
        seen.append(browser.focused())
    assert seen[0][2] == "Skip to the findings"
    assert [each[2].partition(";")[0] for each in seen[1:4]] == [
        "partition 1, type esp", "partition 2, type linux-generic", "partition 3, type swap",
    ]  # fmt: skip
    assert seen[4][2] == "Partitions" or "name" in seen[4][2] or seen[4][0] == "div"
    browser.open(drawn[0].as_uri())
    browser.press("Tab", "Enter")
    assert browser.run("return location.hash") == "#findings"


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1200])
def test_nothing_sticks_out(browser, drawn, width):
    browser.resize(width, 844)
    browser.emulate()
    browser.open(drawn[0].as_uri())
    assert browser.run("return document.documentElement.scrollWidth") <= width


@pytest.mark.slow
def test_words_end_before_their_boxes_do(browser, tmp_path):
    """On a full page; what is narrower cuts at the edge."""
    names = {"BOOTX64-with-a-name-that-is-long.EFI": 900_000, "usr": 6_000_000, "not-large": 1_500_000}
    for name, size in names.items():
        (tmp_path / "root" / name).mkdir(parents=True)
        (tmp_path / "root" / name / f"{name}.data").write_bytes(bytes([1]) * size)
    parts = [
        f"--partition=type={each}" for each in ("esp,size=34M", "linux-generic,mount=/,label=quite-long,size=30M")
    ]
    parts += [f"--partition=type=swap,size={size}M" for size in (1, 2, 3, 5, 8, 13, 21, 34, 89, 200)]
    image, page, sheet = (tmp_path / f"disk.{each}" for each in ("img", "html", "svg"))
    blockwright("build", tmp_path / "root", "-o", image, "--size", "480M", *parts)
    blockwright("inspect", image, "--html", page, "--svg", sheet)
    browser.resize(1100, 900)
    for drawn in (page, sheet):
        browser.open(drawn.as_uri())
        texts, cut = browser.run(
            "const texts = [...document.querySelectorAll('title + rect ~ text')].filter(e => e.textContent);"
            "const cut = texts.filter(e => e.getBoundingClientRect().right > "
            "  e.parentNode.querySelector('rect').getBoundingClientRect().right);"
            "return [texts.map(e => e.textContent), cut.map(e => e.textContent)];"
        )
        assert cut == [], drawn
        assert "12 swap" in texts, drawn
        for start in ("2 l", "BOOTX64-with"):
            assert any(text.startswith(start) and text.endswith("…") for text in texts), (drawn, texts)


@pytest.mark.slow
def test_printed_it_is_light(browser, drawn):
    browser.emulate(dark=True, printed=True)
    browser.open(drawn[0].as_uri())
    background = browser.run("return getComputedStyle(document.body).backgroundColor")
    browser.emulate()
    assert background == "rgb(255, 255, 255)"


@pytest.mark.slow
def test_the_sheet_is_a_document_with_a_name(browser, drawn):
    browser.open(drawn[1].as_uri())
    assert browser.run("return document.documentElement.tagName") == "svg"
    assert browser.run("return document.getElementById('desc').textContent").startswith("96 MiB, ")
    labels = browser.run("return [...document.querySelectorAll('text')].map(e => e.textContent)")
    assert "2 linux-generic" in labels
    assert "No damage found" in " ".join(labels)
    assert browser.errors() == []


def contrast(browser, selector):
    """The contrast of an element's text to the page behind it, as WCAG 2.2 defines it."""
    colors = browser.run(
        "const e = document.querySelector(arguments[0]);"
        "return [getComputedStyle(e).color, getComputedStyle(document.body).backgroundColor]",
        selector,
    )
    text, behind = (luminance(each) for each in colors)
    return (max(text, behind) + 0.05) / (min(text, behind) + 0.05)


def luminance(color):
    channels = [int(each) / 255 for each in color[color.index("(") + 1 : -1].split(",")[:3]]
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
