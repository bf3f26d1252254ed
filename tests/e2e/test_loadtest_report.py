"""The load test's page and plots in a real browser without a network: what a reader sees, and what the pointer shows."""

import itertools
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.browser import Browser, Page, program
from harness.gateway import binary
from harness.imagined import SECONDS, VARIANTS, failed, hour, of_points, report

pytestmark = pytest.mark.skipif(program() is None, reason="no Chromium: it is what shows the report")

PLOTS = ["connections", "rates", "latency", "processor", "memory", "waiting", "bus"]
CONNECTIONS, RATES, LATENCY, PROCESSOR, MEMORY, WAITING, BUS = range(7)


def loadtest(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    tool = os.environ.get("OCPP_LOADTEST_BIN", binary().parent / "ocpp-loadtest")
    return subprocess.run([tool, *arguments], capture_output=True, text=True, timeout=30, check=False)


# -- tools of these tests ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser")) as one:
        yield one


@pytest.fixture
def page(browser: Browser, tmp_path: Path) -> Callable[..., Page]:
    """`page(report, **options)`: opens the page that the binary renders."""

    def factory(whole: dict[str, Any], **options: Any) -> Page:
        source, made = tmp_path / "report.json", tmp_path / "report.html"
        source.write_text(json.dumps(whole), encoding="utf-8")
        done = loadtest("html", source, made)
        assert done.returncode == 0, done.stderr
        return browser.open(made, **options)

    return factory


# Every piece of text with its box, and the box that it must stay in: the plot's, the page's, or what scrolls.
TEXTS = """(() => {
  const found = [], walker = document.createTreeWalker(document.body ?? document.documentElement, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode, parent = node.parentElement;
    if (!node.data.trim() || parent.closest('script, style, title, desc') || !parent.checkVisibility()) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    const round = parent.closest('figure, .card, .reasons, .scroll, pre') ?? document.documentElement;
    const frame = round.getBoundingClientRect(), wide = Math.max(frame.width, round.scrollWidth);
    for (const { left, top, right, bottom } of range.getClientRects())
      found.push({ text: node.data.trim(), box: [left, top, right, bottom],
                   frame: [frame.left, frame.top, frame.left + wide, frame.bottom] });
  }
  return found;
})()"""

# The points of every line, in parts of its plot's area, and the areas themselves.
LINES = """[...document.querySelectorAll('svg[data-plot]')].map((svg) => {
  const area = svg.querySelector('.area').getBoundingClientRect();
  const lines = [...svg.querySelectorAll('.lines path')].map((path) => {
    const matrix = path.getScreenCTM();
    let x = 0, y = 0;
    const points = [...path.getAttribute('d').matchAll(/([Mlh])(-?[0-9]+)(?: (-?[0-9]+))?/g)].map(([, how, one, other]) => {
      [x, y] = how === 'M' ? [+one, +other] : [x + +one, y + +(other ?? 0)];
      const at = new DOMPoint(x, y).matrixTransform(matrix);
      return [(at.x - area.left) / area.width, (area.bottom - at.y) / area.height];
    });
    return { class: path.getAttribute('class'), points, width: parseFloat(getComputedStyle(path).strokeWidth),
             colour: getComputedStyle(path).stroke };
  });
  return { area: [area.width, area.height], lines };
})"""

TIP = """document.querySelector('svg[data-plot="%d"]').parentElement.querySelector('.tip')"""


def check_texts(texts: list[dict[str, Any]]) -> None:
    """No text is clipped or overlaps another. Boxes of adjacent lines touch, so a pixel is not an overlap."""
    for one in texts:
        (left, top, right, bottom), frame = one["box"], one["frame"]
        inside = left >= frame[0] - 1 and top >= frame[1] - 1 and right <= frame[2] + 1 and bottom <= frame[3] + 1
        assert inside, f"{one['text']!r} is cut: {one['box']} in {frame}"
    for one, other in itertools.combinations(texts, 2):
        across = min(one["box"][2], other["box"][2]) - max(one["box"][0], other["box"][0])
        down = min(one["box"][3], other["box"][3]) - max(one["box"][1], other["box"][1])
        assert min(across, down) <= 2, f"{one['text']!r} lies on {other['text']!r}: {one['box']}, {other['box']}"


def check_quiet(page: Page) -> None:
    assert page.requests() == [page.url], "it loads nothing but itself"
    assert page.complaints() == []


def hover(page: Page, plot: int, part: float) -> str:
    """What the page shows with the pointer over a plot, at this part of its width."""
    area = f"document.querySelectorAll('svg[data-plot] .area')[{plot}]"
    box = page.run(f"({area}.scrollIntoView({{ block: 'center' }}), {area}.getBoundingClientRect().toJSON())")
    page.point_at(box["left"] + box["width"] * part, box["top"] + box["height"] / 2)
    return tip(page, plot)


def tip(page: Page, plot: int) -> str:
    """The text of the tooltip; empty when it is hidden."""
    return page.run(f"((tip) => tip?.checkVisibility() ? tip.innerText : '')({TIP % plot})")


# -- the page ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1400, 400])
@pytest.mark.parametrize("variant", VARIANTS)
def test_all_text_can_be_read(page, variant, width):
    shown = page(VARIANTS[variant](), width=width)
    texts = shown.run(TEXTS)
    assert len(texts) > 60
    check_texts(texts)
    assert shown.run("document.documentElement.scrollWidth") <= width, "the page does not scroll sideways"
    sizes = shown.run(
        "[...document.querySelectorAll('svg text')].map((text) => parseFloat(getComputedStyle(text).fontSize))"
    )
    assert min(sizes) >= 10, "text does not shrink with the plot"
    check_quiet(shown)


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without scripts"])
@pytest.mark.parametrize("width", [1400, 400])
def test_every_plot_draws_its_data(page, width, scripts):
    whole = report()
    shown = page(whole, width=width, scripts=scripts)
    plots = shown.run(LINES)
    assert len(plots) == len(PLOTS)
    assert [len(plot["lines"]) for plot in plots] == [2, 4, 5, 8, 4, 4, 0]
    for plot in plots:
        assert plot["area"][0] > 250
        for line in plot["lines"]:
            assert line["width"] >= 1, "the stroke does not shrink with the plot"
            for x, y in line["points"]:
                assert -0.001 <= x <= 1.001, line
                assert -0.001 <= y <= 1.001, line
        assert len({line["colour"] for line in plot["lines"]}) == len(plot["lines"])

    def line(plot: int, number: int) -> list[list[float]]:
        return plots[plot]["lines"][number]["points"]

    connected = line(CONNECTIONS, 0)
    assert len(connected) == SECONDS
    for (x, y), point in zip(connected, whole["timeline"], strict=True):
        assert x == pytest.approx(point["at"] / SECONDS, abs=0.001)
        assert y == pytest.approx(point["connected"] / 12_500, abs=0.001), "the scale ends at 12,500"
    assert len(line(CONNECTIONS, 1)) == SECONDS - 10, "ten seconds without a scrape are a gap"
    assert len(line(LATENCY, 0)) == SECONDS - 1, "a second without an answer has no latency"
    p50, p90, p99, longest = (line(LATENCY, number)[50][1] for number in range(4))
    assert p50 < p90 < p99 < longest
    states = shown.run("[...document.querySelectorAll('.plot .state')].map((one) => one.getBoundingClientRect().width)")
    assert [round(wide / plots[BUS]["area"][0] * SECONDS) for wide in states] == [39, 10, 20, 21]
    check_quiet(shown)


@pytest.mark.parametrize("width", [1400, 400])
def test_the_pointer_shows_the_values_of_that_time(page, width):
    shown = page(report(), width=width)
    for second in (1, 30, 60, 90):
        part = min(second / SECONDS, 0.999)
        values = hover(shown, CONNECTIONS, part).split("\n")
        minutes = f"{second // 60}:{second % 60:02}"
        assert values[0] == minutes
        assert values[1:] == [
            f"stations connected\t{11_003 + second:,}",
            f"sessions of the gateway\t{11_000 + second:,}",
        ]
        cores = hover(shown, PROCESSOR, part).split("\n")
        assert cores[0] == f"{minutes} (% of a core)"
        assert cores[1] == f"gateway-1\t{20 + second / 10:g}"
        check_inside(shown, PROCESSOR, width)
    assert "sessions of the gateway\t–" in hover(shown, CONNECTIONS, 45 / SECONDS), "there was no scrape"
    assert "p50\t–" in hover(shown, LATENCY, 20 / SECONDS), "nothing was answered"
    assert hover(shown, BUS, 60 / SECONDS) == "1:00\nstate\tspooling"
    shown.point_at(1, 1)
    assert tip(shown, BUS) == "", "it disappears with the pointer"
    check_quiet(shown)


def check_inside(shown: Page, plot: int, width: int) -> None:
    """The tooltip is inside the window."""
    box = shown.run(f"{TIP % plot}.getBoundingClientRect().toJSON()")
    assert box["left"] >= 0
    assert box["right"] <= width


def test_the_keyboard_shows_the_values_as_well(page):
    shown = page(report())
    shown.run(f"document.querySelector('svg[data-plot=\"{RATES}\"]').focus()")
    for key, time in [("ArrowRight", "0:01"), ("ArrowRight", "0:02"), ("End", "1:30"), ("ArrowLeft", "1:29")]:
        shown.press(key)
        assert tip(shown, RATES).startswith(f"{time} (per second)\n")
    shown.press("Escape")
    assert tip(shown, RATES) == ""
    assert shown.run("document.activeElement.getAttribute('aria-labelledby')") == f"title-{RATES}"


def test_without_scripts_only_the_pointer_does_nothing(page):
    shown = page(failed(), width=800, scripts=False)
    text = shown.run("document.body.innerText")
    for part in ("FAILED", "lost: 3", "of 94,095 CALLs were answered", "BootNotification", "of these lost\t3"):
        assert part in text
    assert "Point at a plot" not in text, "it does not offer what it cannot do"
    assert "Point at a plot" in page(failed()).run("document.body.innerText")


def test_a_failure_is_shown_in_red_before_anything_else(page):
    shown = page(failed())
    assert shown.run("document.title").startswith("FAILED: example")
    boxes = shown.run(
        "[...document.querySelectorAll('.reasons')].map((one) => [getComputedStyle(one).backgroundColor, one.innerText])"
    )
    assert [box[0] for box in boxes] == ["rgb(185, 28, 28)", "rgb(185, 28, 28)", "rgb(138, 90, 10)"]
    assert "lost: 3" in boxes[0][1]
    assert "LT-000017" in boxes[1][1]
    assert "worker 0" in boxes[2][1]
    assert shown.run("document.querySelector('.reasons').getBoundingClientRect().bottom") < 900, "without scrolling"
    bad = shown.run("[...document.querySelectorAll('.bad')].map((one) => one.innerText)")
    assert bad == ["93,195\nof 94,095 CALLs were answered", "3 / 0 / 0\nlost / duplicated / reordered"]
    assert "not verified" in page(report(verification=None)).run(
        "[...document.querySelectorAll('.bad')].at(-1).innerText"
    )


def test_a_second_without_stations_shows_in_a_plot_of_an_hour(page):
    plots = page(hour(), width=800).run(LINES)
    lowest = min(plots[CONNECTIONS]["lines"][0]["points"], key=lambda point: point[1])
    assert lowest == [pytest.approx(1802 / 3600, abs=0.001), pytest.approx(0, abs=0.001)]


def test_one_point_is_a_dot_and_none_is_reported(page):
    lines = page(of_points(1)).run(LINES)[RATES]["lines"]
    dots = [line for line in lines if line["points"]]
    assert [line["class"].split()[-1] for line in dots] == ["dot"] * 4
    assert all(line["width"] >= 5 for line in dots)
    assert page(of_points(0)).run("document.body.innerText.match(/nothing was measured/g).length") == 6


def test_light_and_dark_can_both_be_read(page):
    contrast = """(() => {
      const light = (colour) => {
        const parts = colour.match(/[0-9.]+/g).map((part) => part / 255)
          .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
      };
      const ground = light(getComputedStyle(document.querySelector('figure')).backgroundColor);
      const ratio = (colour) => (Math.max(light(colour), ground) + 0.05) / (Math.min(light(colour), ground) + 0.05);
      const lines = [...document.querySelectorAll('.lines path, .plot .state')].map((one) => ratio(getComputedStyle(one).color));
      const texts = [...document.querySelectorAll('svg text')].map((one) => ratio(getComputedStyle(one).fill));
      return { ground, lines: Math.min(...lines), texts: Math.min(...texts) };
    })()"""
    light, dark = (page(report(), dark=dark).run(contrast) for dark in (False, True))
    assert light["ground"] > 0.8
    assert dark["ground"] < 0.05
    for mode in (light, dark):
        assert mode["lines"] >= 3, "WCAG 1.4.11"
        assert mode["texts"] >= 4.5, "WCAG 1.4.3"


# -- the plots as files -----------------------------------------------------------------------------------------


def test_each_plot_can_be_a_file_of_its_own(browser, tmp_path):
    source, folder = tmp_path / "report.json", tmp_path / "plots"
    source.write_text(json.dumps(report()), encoding="utf-8")
    assert loadtest("plots", source, folder).returncode == 0
    files = {file.stem: file for file in folder.iterdir()}
    assert sorted(files) == sorted(PLOTS)
    grounds = set()
    for file, dark in itertools.product(files.values(), (False, True)):
        shown = browser.open(file, dark=dark)
        texts = shown.run(TEXTS)
        assert len(texts) > 5
        check_texts(texts)
        assert shown.requests() == [shown.url]
        assert shown.run("document.documentElement.getAttribute('role')") == "img"
        grounds.add(shown.run("getComputedStyle(document.querySelector('.ground')).fill"))
        # As documents show it: an image without scripts, styles or size from its surroundings.
        around = tmp_path / "around.html"
        around.write_text(f'<img src="{file.as_uri()}">', encoding="utf-8")
        image = browser.open(around)
        assert image.run("document.images[0].decode().then(() => document.images[0].naturalWidth)") == 900
    assert len(grounds) == 2, "it has a background of its own, light or dark"


def test_plots_can_be_selected_by_name(tmp_path):
    source, folder = tmp_path / "report.json", tmp_path / "plots"
    source.write_text(json.dumps(report()), encoding="utf-8")
    assert loadtest("plots", source, folder, "--only", "latency,memory").returncode == 0
    assert sorted(file.name for file in folder.iterdir()) == ["latency.svg", "memory.svg"]
    wrong = loadtest("plots", source, folder, "--only", "latenzy")
    assert wrong.returncode == 2
    assert re.search("latenzy.*connections, rates, latency", wrong.stderr)
