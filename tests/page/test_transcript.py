"""Reading, searching and putting right; and that text is only ever text."""

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.page.conftest import OpenTab, Served
from tests.support.worker_hand import window

pytestmark = [pytest.mark.redis, pytest.mark.service]

SAID = (
    window(0, 0.0, 1.5, "Good morning, Ama."),
    window(1, 2.0, 4.0, "All storys are mine."),
    window(2, 4.0, 5.5, "Good night."),
)
HOSTILE = '<img src=x onerror="document.title=1"><script>document.title=2</script>{{7*7}}'


@pytest.fixture
def job_id(served: Served) -> str:
    served.hand.come_up()
    job_id = served.send()
    served.hand.complete(job_id, *SAID)
    return job_id


def test_a_correction_is_shown_kept_exported_and_undone(
    served: Served, open_tab: OpenTab, job_id: str
) -> None:
    page = open_tab(served.url, f"#/jobs/{job_id}").page
    second = page.locator(".segment").nth(1)

    second.locator(".words").dblclick()
    second.locator("textarea").fill("  All stories\nare mine. ")
    second.locator("textarea").press("Enter")

    expect(second.locator(".words")).to_have_text("All stories are mine.")
    expect(page.locator("#corrections")).to_contain_text("1 correction of yours")
    page.reload()
    expect(second.locator(".words")).to_have_text("All stories are mine.")
    assert _saved(page, "srt").split("\n\n")[1] == ("2\n00:00:02,000 --> 00:00:04,000\nAll stories are mine.")
    assert "All stories are mine." in _saved(page, "text")

    second.hover()
    second.get_by_text("Undo").click()
    expect(second.locator(".words")).to_have_text("All storys are mine.")
    assert "storys" in _saved(page, "srt")
    assert page.evaluate("Object.keys(localStorage).filter((name) => name.includes('corrections'))") == []


def test_a_correction_is_given_up_with_escape_and_a_segment_may_be_taken_out(
    served: Served, open_tab: OpenTab, job_id: str
) -> None:
    page = open_tab(served.url, f"#/jobs/{job_id}").page
    first = page.locator(".segment").first

    first.locator(".words").dblclick()
    first.locator("textarea").fill("Nothing")
    first.locator("textarea").press("Escape")
    expect(first.locator(".words")).to_have_text("Good morning, Ama.")
    expect(first.locator(".fix")).to_be_focused()

    page.keyboard.press("Enter")
    first.locator("textarea").fill("")
    first.get_by_text("Save").click()
    expect(first).to_contain_text("Taken out")
    assert _saved(page, "text") == "All storys are mine.\nGood night.\n"


def test_the_transcript_is_searched(served: Served, open_tab: OpenTab, job_id: str) -> None:
    page = open_tab(served.url, f"#/jobs/{job_id}").page
    expect(page.locator(".segment")).to_have_count(3)

    page.fill("#find", "GOOD ")
    expect(page.locator("#found")).to_have_text("1 of 2")
    assert page.evaluate("CSS.highlights.get('found').size") == 2
    page.press("#find", "Enter")
    expect(page.locator("#found")).to_have_text("2 of 2")
    page.fill("#find", "evening")
    expect(page.locator("#found")).to_have_text("Not found")


def test_the_list_is_searched_by_name_tag_and_state(served: Served, open_tab: OpenTab, job_id: str) -> None:
    other = served.send("Ananse and the pot.flac")
    tagged = served.send(tag="market")
    page = open_tab(served.url).page
    expect(page.locator("#jobs li").first).to_be_visible()

    for wanted, found in (("ananse AND", other), ("MARKET", tagged), (job_id[4:16], job_id)):
        page.fill("#jobs-search", wanted)
        expect(page.locator("#jobs li")).to_have_count(1)
        expect(page.locator("#jobs li")).to_have_attribute("data-id", found)
    page.fill("#jobs-search", "nobody")
    expect(page.locator("#jobs-note")).to_contain_text("None of the newest")
    page.fill("#jobs-search", other)
    page.select_option("#jobs-status", "completed")
    expect(page.locator("#jobs li")).to_have_count(0)
    page.select_option("#jobs-status", "queued")
    expect(page.locator("#jobs li")).to_have_count(1)
    page.click("#jobs li a")
    page.wait_for_url(re.compile(other))


def test_what_comes_from_elsewhere_is_text(served: Served, open_tab: OpenTab) -> None:
    served.hand.come_up()
    name = HOSTILE.replace("/", "_").replace('"', "'")
    named, said = served.send(name, tag=HOSTILE[:60]), served.send()
    served.hand.complete(said, window(0, 0.0, 1.5, HOSTILE))
    page = open_tab(served.url, f"#/jobs/{named}").page

    expect(page.locator("#job h1")).to_have_text(name)
    expect(page.locator(f'#jobs li[data-id="{named}"] .name')).to_have_text(name)
    page.goto(f"{served.url}/#/jobs/{said}")
    expect(page.locator(".words")).to_have_text(HOSTILE)
    assert page.locator("main img, main script").count() == 0
    assert page.title() == "talk.wav · Ananse"


def test_markup_and_inline_scripts_are_refused_by_the_policy(served: Served, open_tab: OpenTab) -> None:
    """What the page never does would not work either: `script-src 'self'`, and no trusted types."""
    tab = open_tab(served.url)
    tries: dict[str, Any] = {
        "markup": "document.body.innerHTML = '<b>x</b>'",
        "script": "document.createElement('script').text = 'window.ran = 1'",
    }
    for name, code in tries.items():
        refused = tab.page.evaluate(f"() => {{ try {{ {code} }} catch (e) {{ return e.name; }} return ''; }}")
        assert refused == "TypeError", name
    assert tab.page.evaluate("window.ran") is None
    assert all("Trusted" in wrong for wrong in tab.wrong)
    tab.wrong.clear()


def _saved(page: Page, name: str) -> str:
    page.click("#downloads summary")
    with page.expect_download() as coming:
        page.click(f".choice[data-format={name}]")
    return Path(coming.value.path()).read_text()
