"""From a recording to its text, as people go: a file, the microphone, an address that leads nowhere."""

import json
import re
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect

from tests.page.conftest import OpenTab, Served
from tests.support.browser import until
from tests.support.service import SAMPLES

pytestmark = [pytest.mark.redis, pytest.mark.service]


def job_id_of(url: str) -> str:
    return url.rsplit("/", 1)[-1]


def test_a_file_is_sent_transcribed_read_copied_and_downloaded(working: Served, open_tab: OpenTab) -> None:
    page = open_tab(working.url).page
    expect(page.locator("#service")).to_have_text("Ready")

    page.set_input_files("#file", SAMPLES / "short-1.flac")
    page.wait_for_url(re.compile("#/jobs/job_"))
    expect(page.locator(".transcript .segment").first).to_be_visible()

    job_id = job_id_of(page.url)
    made = httpx.get(f"{working.url}/v1/jobs/{job_id}/transcript").json()
    shown = page.locator(".transcript .words").all_text_contents()
    assert " ".join(shown) == made["text"]
    # The file is still in this tab: nothing had to come back for the player.
    expect(page.locator("#wave")).to_have_attribute("data-shaped", "sound")
    assert page.evaluate("document.querySelector('audio').src").startswith("blob:")

    page.click("#copy")
    expect(page.locator("#download-note")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()").split() == made["text"].split()

    for name, ending in (
        ("json", "json"),
        ("text", "txt"),
        ("srt", "srt"),
        ("vtt", "vtt"),
        ("csv", "csv"),
        ("tsv", "tsv"),
    ):
        page.click("#downloads summary")
        with page.expect_download() as coming:
            page.click(f".choice[data-format={name}]")
        assert coming.value.suggested_filename == f"short-1.{ending}"
        content = Path(coming.value.path()).read_text()
        assert json.loads(content) == made if name == "json" else shown[0].split()[0] in content


def test_the_microphone_is_recorded_and_transcribed(working: Served, open_tab: OpenTab) -> None:
    """Chromium's fake device beeps once a second."""
    page = open_tab(working.url).page

    page.click("#record")
    until(page, "document.getElementById('level').value > 0.2")
    until(page, "Number(document.getElementById('recorded').textContent.split(':')[1]) >= 2")
    page.click("#record")
    expect(page.locator("#ask-text")).to_contain_text("of sound")
    page.click("#ask-yes")

    page.wait_for_url(re.compile("#/jobs/job_"))
    expect(page.locator(".player")).to_be_visible()
    job = working.job(job_id_of(page.url))
    assert job["media"]["name"].startswith("Recording ")
    assert job["media"]["duration_s"] > 1
    # Such a recording does not say how long it is; the page found out.
    until(page, "Number.isFinite(document.querySelector('audio').duration)")
    expect(page.locator("#time")).to_contain_text(re.compile(r"0:00 / (?!0:00)\d+:\d\d"))


def test_what_is_no_recording_fails_in_plain_words(
    working: Served, open_tab: OpenTab, tmp_path: Path
) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("no sound in here. " * 50)
    page = open_tab(working.url).page

    page.set_input_files("#file", notes)

    outcome = page.locator("#outcome")
    expect(outcome.locator("h2")).to_have_text("This did not work")
    expect(outcome).to_contain_text("MP3, M4A, WAV")
    expect(page.locator(f'#jobs li[data-id="{job_id_of(page.url)}"] .state')).to_have_text("Failed")
    expect(page.locator("#retry")).to_be_visible()


def test_an_address_that_is_not_gone_to_says_so(working: Served, open_tab: OpenTab) -> None:
    page = open_tab(working.url).page

    page.fill("#url", "not an address")
    page.click("#by-url button")
    expect(page.locator("#submit-trouble")).to_contain_text("begins with https://")
    page.fill("#url", "http://127.0.0.1:9/talk.mp3")
    page.click("#by-url button")

    expect(page.locator("#outcome")).to_contain_text("Download it, and send the file.")


@pytest.mark.model
def test_a_word_is_clicked_heard_and_marked(hearing: Served, open_tab: OpenTab) -> None:
    """With the bundled model, whose words have times and probabilities."""
    page = open_tab(hearing.url).page
    expect(page.locator("#words")).to_be_visible()
    page.set_input_files("#file", SAMPLES / "short-1.flac")
    expect(page.locator(".transcript .word").first).to_be_visible()
    made = httpx.get(f"{hearing.url}/v1/jobs/{job_id_of(page.url)}/transcript").json()
    words = [word for segment in made["segments"] for word in segment["words"]]
    assert page.locator(".word").count() == len(words)

    third = page.locator(".word").nth(3)
    until(page, "document.querySelector('audio').readyState >= 2")
    third.click()
    expect(third).to_have_class(re.compile("now"))
    at = page.evaluate("document.querySelector('audio').currentTime")
    assert at == pytest.approx(words[3]["start"], abs=0.01)

    page.evaluate(
        "window.marks = []; new MutationObserver(() => {"
        " const now = document.querySelector('.word.now'); if (now) marks.push(Number(now.dataset.start)); })"
        ".observe(document.getElementById('segments'), {subtree: true, attributes: true})"
    )
    page.select_option("#speed", "2")
    page.click("#play")
    until(page, "new Set(marks).size > 3")
    marks = page.evaluate("marks")
    assert marks == sorted(marks)
    assert set(marks) <= {word["start"] for word in words}
    assert page.evaluate("document.querySelector('audio').playbackRate") == 2
    page.check("#shade")
    assert page.locator(".word[data-doubt]").count() == len(words)
