"""The report page in a real browser: headless Chromium with the network off, at a desk and on a phone."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sqzc.driver.api import WatchOptions, build
from sqzc.driver.options import CodeOptions, ModelOptions

pytest.importorskip("selenium", reason="the report page is not tested in a browser: no selenium (extra `test`)")

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

MAX_PAGE_BYTES = 3_000_000
DESK, PHONE = (1280, 900), (375, 812)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page that --dump-ir writes for SqueezeNet with random weights."""
    folder = tmp_path_factory.mktemp("report") / "dumps"
    build(
        "squeezenet1.1",
        None,
        ModelOptions(weights="random:1"),
        CodeOptions(),
        WatchOptions(dump_ir=folder, verify_passes=1),
        emit_kind="ir",
    )
    return folder / "index.html"


@pytest.fixture(scope="module")
def chromium() -> Iterator[webdriver.Chrome]:
    """A headless browser that is told it has no network."""
    binary = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip(
            "the report page is not tested in a browser: no chromium with chromedriver (Debian: chromium-driver)"
        )
    options = Options()
    options.binary_location = binary
    for argument in ("--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(driver))
    browser.execute_cdp_cmd("Network.enable", {})
    offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    browser.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
    yield browser
    browser.quit()


class Reader:
    """Someone who reads the page in a window of a size."""

    def __init__(self, browser: webdriver.Chrome, page: Path, size: tuple[int, int], *, dark: bool = False) -> None:
        self.browser = browser
        width, height = size
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        browser.get("about:blank")
        for kind in ("browser", "performance"):
            browser.get_log(kind)
        browser.get(page.as_uri())

    def find(self, selector: str) -> WebElement:
        """The first element."""
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        """All elements."""
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def js(self, script: str, *arguments: object) -> Any:
        """The result of a script."""
        return self.browser.execute_script(script, *arguments)

    def see(self, element: WebElement) -> WebElement:
        """Scrolls to an element, clear of the heading that stays on top."""
        self.js("arguments[0].scrollIntoView({block: 'center'})", element)
        return element

    def click(self, selector: str) -> None:
        """Scrolls to an element and clicks it with the mouse."""
        self.see(self.find(selector)).click()

    def open_pass(self, name: str) -> None:
        """Clicks the first pass of a name that changed something."""
        self.see(self.find_pass(name)).click()
        assert name in self.find("#pass-title").text

    def find_pass(self, name: str) -> WebElement:
        """The button of that pass."""
        rows = self.all("#pipeline-table tbody tr:not(.idle) button")
        return next(button for button in rows if button.text == name)

    def click_op(self, side: str, key: str) -> None:
        """Clicks where an op is drawn."""
        canvas = self.see(self.find(f"[data-testid=graph-{side}]"))
        self.js("reportPanes[arguments[0]].show(arguments[1])", side, key)
        x, y = self.js(
            "const at = reportPanes[arguments[0]].node(arguments[1]).renderedPosition(); return [at.x, at.y]", side, key
        )
        size = canvas.size
        offsets = int(x - size["width"] / 2), int(y - size["height"] / 2)
        ActionChains(self.browser).move_to_element_with_offset(canvas, *offsets).click().perform()

    def changed(self, side: str) -> list[str]:
        """The keys of the ops that differ."""
        found: list[str] = self.js("return reportPanes[arguments[0]].changed", side)
        return found

    def press(self, *keys: str) -> None:
        """Presses keys, wherever the focus is."""
        ActionChains(self.browser).send_keys(*keys).perform()

    def check_quiet(self) -> None:
        """No errors or warnings on the console, and nothing asked for but the page's own files."""
        assert self.browser.get_log("browser") == []
        events = [json.loads(entry["message"])["message"] for entry in self.browser.get_log("performance")]
        asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
        assert asked, "the log of requests is empty, so it proves nothing"
        assert [url for url in asked if not url.startswith(("file:", "data:", "about:"))] == []

    def screenshot(self, path: Path) -> Image.Image:
        """What is seen, also written to a file."""
        assert self.browser.save_screenshot(str(path))
        return Image.open(path)


@pytest.fixture(params=[DESK, PHONE], ids=["desk", "phone"])
def reader(request: pytest.FixtureRequest, chromium: webdriver.Chrome, page: Path) -> Reader:
    """A reader at a desk, then on a phone."""
    return Reader(chromium, page, request.param)


@pytest.fixture
def desk(chromium: webdriver.Chrome, page: Path) -> Reader:
    """A reader at a desk."""
    return Reader(chromium, page, DESK)


@pytest.mark.slow
def test_the_page_loads_offline_and_without_a_word_on_the_console(reader: Reader, page: Path) -> None:
    assert page.stat().st_size < MAX_PAGE_BYTES
    assert reader.find("#model").text == "squeezenet1.1"
    assert reader.all("#arena svg .buffer")
    assert len(reader.all("#kernels-body tbody tr.row")) > 20
    reader.check_quiet()


@pytest.mark.slow
def test_a_pass_can_be_opened_a_node_clicked_and_its_difference_seen(reader: Reader, tmp_path: Path) -> None:
    reader.open_pass("fuse-conv-relu")
    assert "Numbers checked: relative error" in reader.find("#pass-check").text
    key = next(
        key
        for key in reader.changed("before")
        if reader.js("return reportPanes.before.states[arguments[0]][0] === 'merged'", key)
    )
    reader.click_op("before", key)
    details = reader.find("[data-testid=details]").text
    assert "relu" in details
    assert f"%{key}" in details
    assert "went into" in details
    image = reader.screenshot(tmp_path / "graph.png")
    assert len(image.convert("RGB").getcolors(1 << 24) or []) > 20, "an empty picture"
    reader.see(reader.find("[data-testid=details]"))
    reader.all("[data-testid=details] button")[-1].click()
    assert "changed by this pass" in reader.find("[data-testid=details]").text
    reader.click("#tab-text")
    texts = [mark.text for mark in reader.all("[data-testid=diff] .plus mark")]
    assert any("act=relu" in text for text in texts)
    assert reader.all("[data-testid=diff] .minus")
    lines = len(reader.all("[data-testid=diff] > .t"))
    reader.click("[data-testid=diff] .gap button")
    assert len(reader.all("[data-testid=diff] > .t")) > lines
    reader.click("#tab-log")
    assert "relu" in reader.find("#panel-log").text
    reader.check_quiet()


@pytest.mark.slow
def test_nothing_is_cut_off(reader: Reader) -> None:
    for tab in ("graph", "text", "log"):
        reader.click(f"#tab-{tab}")
        width, room = reader.js("return [document.documentElement.scrollWidth, innerWidth]")
        assert width <= room, tab


@pytest.mark.slow
def test_source_names_are_kept_through_fusion(desk: Reader) -> None:
    desk.open_pass("fuse-conv-relu")
    desk.click_op("after", desk.changed("after")[0])
    details = desk.find("[data-testid=details]").text
    assert "source names" in details
    assert "conv1" in details
    assert "made of" in details


@pytest.mark.slow
def test_the_keyboard_moves_between_passes_opens_them_and_walks_the_graph(desk: Reader) -> None:
    first = desk.find("#pipeline-table button[tabindex='0']")
    desk.js("arguments[0].focus()", first)
    desk.press(Keys.HOME)
    for _ in range(2):
        desk.press(Keys.ARROW_DOWN)
    wanted = desk.js("return document.activeElement.textContent")
    desk.press(Keys.ENTER)
    assert wanted in desk.find("#pass-title").text
    desk.open_pass("fuse-conv-relu")
    desk.js("document.querySelector('#tab-graph').focus()")
    desk.press(Keys.ARROW_RIGHT)
    assert desk.find("[data-testid=diff]").is_displayed()
    desk.press(Keys.ARROW_LEFT)
    desk.js("document.querySelector('[data-testid=graph-after]').focus()")
    desk.press(Keys.ARROW_DOWN)
    before = desk.find("[data-testid=details]").text
    desk.press("n")
    assert desk.find("[data-testid=details]").text != before
    title = desk.find("#pass-title").text
    desk.js("document.querySelector('#next').focus()")
    desk.press(Keys.ENTER)
    assert desk.find("#pass-title").text != title
    desk.check_quiet()


@pytest.mark.slow
def test_every_control_can_be_reached_by_tab(desk: Reader) -> None:
    desk.js("document.activeElement.blur(); window.scrollTo(0, 0)")
    reached = set()
    for _ in range(40):
        desk.press(Keys.TAB)
        reached.add(desk.js("const e = document.activeElement; return e.id || e.dataset.testid || e.tagName"))
    assert {"theme", "only-changed", "previous", "next", "tab-graph", "graph-before", "graph-after"} <= reached


@pytest.mark.slow
def test_the_arena_and_the_kernels_tell_more_when_asked(reader: Reader) -> None:
    boxes = reader.all("#arena svg .buffer")
    reader.see(boxes[1])
    boxes[1].find_element(By.TAG_NAME, "rect").click()
    assert "alive in steps" in reader.find("[data-testid=buffer]").text
    reader.click("[data-kernel='0']")
    more = reader.find("#kernel-0")
    assert more.is_displayed()
    assert "conv2d" in more.text
    assert reader.find("[data-kernel='0']").get_attribute("aria-expanded") == "true"


@pytest.mark.slow
def test_passes_that_changed_nothing_are_listed_and_can_be_hidden(desk: Reader) -> None:
    idle = desk.all("#pipeline-table tr.idle")
    assert idle
    assert all(row.is_displayed() for row in idle)
    idle[0].find_element(By.TAG_NAME, "button").click()
    assert "Changed nothing" in desk.find("#pass-summary").text
    desk.click("#only-changed")
    assert not any(row.is_displayed() for row in idle)
    desk.check_quiet()


CONTRAST = """
const probe = document.createElement('span');
document.body.append(probe);
const light = (name) => {
  probe.style.color = `var(--${name})`;
  const parts = getComputedStyle(probe).color.match(/[0-9.]+/g).slice(0, 3).map((part) => part / 255);
  const linear = parts.map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
};
return arguments[0].map(([ink, paper]) => {
  const [low, high] = [light(ink), light(paper)].sort((a, b) => a - b);
  return [ink, paper, (high + 0.05) / (low + 0.05)];
});
"""

INKS = [
    *((ink, paper) for ink in ("ink", "soft", "link") for paper in ("paper", "panel", "pick")),
    *((f"{state}-ink", state) for state in ("added", "removed", "changed", "merged")),
    ("added-ink", "added-strong"),
    ("removed-ink", "removed-strong"),
    ("live", "paper"),
]


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_contrast_is_enough_to_read(chromium: webdriver.Chrome, page: Path, dark: bool, tmp_path: Path) -> None:
    reader = Reader(chromium, page, DESK, dark=dark)
    low = [row for row in reader.js(CONTRAST, INKS) if row[2] < 4.5]
    assert low == []
    corner = reader.screenshot(tmp_path / "page.png").convert("L").getpixel((2, 899))
    assert isinstance(corner, int)
    assert (corner < 60) == dark
    reader.click("#theme")
    flipped = reader.screenshot(tmp_path / "flipped.png").convert("L").getpixel((2, 899))
    assert isinstance(flipped, int)
    assert (flipped < 60) != dark
    assert [row for row in reader.js(CONTRAST, INKS) if row[2] < 4.5] == []
