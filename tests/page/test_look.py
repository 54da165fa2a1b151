"""For every eye, ear and hand: names and roles, contrast in light and dark, a phone's width, the keyboard."""

import re

import pytest
from playwright.sync_api import Page, expect

from shared.job import Failure
from tests.page.conftest import OpenTab, Served
from tests.support.browser import until
from tests.support.worker_hand import window

pytestmark = [pytest.mark.redis, pytest.mark.service]

LEAST_CONTRAST = 4.5

# Every text that can be seen, with the colours it has and stands on, as WCAG 2.2 counts contrast.
CONTRASTS = """() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].map((value) => value / 255);
  };
  const over = (top, under) => top.slice(0, 3).map((value, at) => value * top[3] + under[at] * (1 - top[3]));
  const ground = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) {
      layers.unshift(rgba(getComputedStyle(at).backgroundColor));
    }
    return layers.reduce((under, top) => over(top, under), [1, 1, 1]);
  };
  const light = (colour) => colour
    .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4))
    .reduce((sum, value, at) => sum + value * [0.2126, 0.7152, 0.0722][at], 0);
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !element.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
    if (element.closest(".unseen, :disabled, option")) continue;
    const under = ground(element);
    const text = over(rgba(getComputedStyle(element).color), under);
    const [high, low] = [light(text), light(under)].sort((a, b) => b - a);
    found.push([element.textContent.trim().slice(0, 30), (high + 0.05) / (low + 0.05)]);
  }
  return found;
}"""
UNNAMED = """() => [...document.querySelectorAll(
    "button, a, input, select, textarea, summary, [role=slider], progress, meter")]
  .filter((element) => element.checkVisibility() && !element.getAttribute("aria-label")
    && !element.labels?.length && !element.textContent.trim())
  .map((element) => element.outerHTML.slice(0, 80))"""


@pytest.fixture
def places(served: Served) -> list[str]:
    """The rooms of the page, each in a state with much to see."""
    served.hand.come_up()
    done, running, failed = served.send("done.flac"), served.send("running.flac"), served.send("failed.txt")
    served.hand.complete(done, window(0, 0.0, 1.5, "Good morning, Ama."), window(1, 2.0, 4.0, "All stories."))
    (part,) = served.hand.cut(served.hand.begin(running))
    served.hand.keep(part, window(0, 0.0, 1.5, "Good morning."))
    served.hand.fail(failed, Failure("unsupported_format", "The file is no recording.", False))
    return ["#/", *(f"#/jobs/{job_id}" for job_id in (done, running, failed))]


READY = ("#submit h1", ".transcript .word", "#live .segment", "#outcome h2")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable(served: Served, open_tab: OpenTab, places: list[str], scheme: str) -> None:
    page = open_tab(served.url).page
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
    for place, ready in zip(places, READY, strict=True):
        _visit(page, served, place, ready)
        if "transcript" in ready:
            page.click("#downloads summary")
            page.locator(".word").first.evaluate("(word) => word.classList.add('now')")
        pale = [(text, round(ratio, 2)) for text, ratio in page.evaluate(CONTRASTS) if ratio < LEAST_CONTRAST]
        assert pale == [], (place, scheme)


def test_all_that_can_be_used_has_a_name(served: Served, open_tab: OpenTab, places: list[str]) -> None:
    page = open_tab(served.url).page
    for place, ready in zip(places, READY, strict=True):
        _visit(page, served, place, ready)
        assert page.evaluate(UNNAMED) == [], place
        assert page.locator("h1:visible").count() == 1
        for role in ("banner", "main", "complementary"):
            assert page.get_by_role(role).count() == 1, role  # type: ignore[arg-type]
        ids = page.evaluate("[...document.querySelectorAll('[id]')].map((element) => element.id)")
        assert len(ids) == len(set(ids))


@pytest.mark.parametrize("width", [320, 390])
def test_a_phone_scrolls_only_down(served: Served, open_tab: OpenTab, places: list[str], width: int) -> None:
    page = open_tab(served.url).page
    page.set_viewport_size({"width": width, "height": 700})
    for place, ready in zip(places, READY, strict=True):
        _visit(page, served, place, ready)
        if "transcript" in ready:
            page.click("#downloads summary")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, place
    page.locator(".back").click()
    expect(page.locator("#submit h1")).to_be_visible()


def test_the_keyboard_is_enough(served: Served, open_tab: OpenTab, places: list[str]) -> None:
    page = open_tab(served.url, places[1]).page
    expect(page.locator(".segment")).to_have_count(2)
    until(page, "document.querySelector('audio').readyState >= 2")

    page.locator("#wave").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#wave")).to_have_attribute("aria-valuetext", re.compile("^0:0[1-9] of"))
    page.keyboard.press("Home")
    expect(page.locator("#wave")).to_have_attribute("aria-valuenow", "0")

    page.locator(".segment .at").nth(1).focus()
    page.keyboard.press("Enter")
    until(page, "document.querySelector('audio').currentTime >= 2")
    expect(page.locator("#play")).to_have_attribute("aria-label", re.compile("Play|Pause"))

    page.keyboard.press("Tab")
    expect(page.locator(".fix").nth(1)).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(".segment textarea")).to_be_focused()
    page.keyboard.press("Escape")

    page.locator("#downloads summary").focus()
    page.keyboard.press("Enter")
    expect(page.locator(".sheet")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator(".sheet")).to_be_hidden()


def test_what_happens_is_told_by_ear(served: Served, open_tab: OpenTab) -> None:
    served.hand.come_up()
    job_id = served.send("talk.flac")
    page = open_tab(served.url, f"#/jobs/{job_id}").page
    expect(page.locator("#said")).to_contain_text("talk.flac: Waiting")

    served.hand.complete(job_id)

    expect(page.locator("#said")).to_have_text("talk.wav: Done")
    assert page.locator("#said").get_attribute("aria-live") == "polite"


def _visit(page: Page, served: Served, place: str, ready: str) -> None:
    page.goto(f"{served.url}/{place}")
    expect(page.locator(ready).first).to_be_visible()
