"""What is shown while a job is on its way, and when something is not as it should be."""

from itertools import pairwise

import pytest
from playwright.sync_api import expect

from shared.job import Failure
from shared.redis_store import RedisStore
from shared.settings import Settings
from tests.page.conftest import OpenTab, Served, served_at
from tests.support.api_server import api_server
from tests.support.browser import until
from tests.support.keys import make_key
from tests.support.worker_hand import window

pytestmark = [pytest.mark.redis, pytest.mark.service]

FIRST = window(0, 0.0, 1.5, "Good morning.")
SECOND = window(1, 2.0, 4.0, "All stories are mine.")


def test_segments_come_as_they_are_final_and_a_reload_loses_none(served: Served, open_tab: OpenTab) -> None:
    served.hand.come_up()
    job_id = served.send()
    tab = open_tab(served.url, f"#/jobs/{job_id}")
    page = tab.page
    expect(page.locator("#told")).to_contain_text("Waiting")

    (part,) = served.hand.cut(served.hand.begin(job_id))
    expect(page.locator("#told")).to_have_text("Transcribing")
    # The second window is done first.
    served.hand.keep(part, SECOND)
    expect(page.locator("#live .words")).to_have_text(["All stories are mine."])
    served.hand.keep(part, FIRST)
    expect(page.locator("#live .words")).to_have_text(["Good morning.", "All stories are mine."])
    expect(page.locator(".going")).to_contain_text("%")

    page.reload()
    expect(page.locator("#live .words")).to_have_text(["Good morning.", "All stories are mine."])
    served.hand.store_part(part, FIRST, SECOND)
    served.hand.end(job_id, FIRST, SECOND)
    expect(page.locator(".transcript .words")).to_have_text(["Good morning.", "All stories are mine."])
    expect(page.locator("#live")).to_be_hidden()
    expect(page.locator(f'#jobs li[data-id="{job_id}"] .state')).to_have_text("Done")


def test_a_hidden_tab_lets_go_of_its_stream_and_takes_it_up_after_the_last_event(
    served: Served, open_tab: OpenTab
) -> None:
    served.hand.come_up()
    job_id = served.send()
    (part,) = served.hand.cut(served.hand.begin(job_id))
    served.hand.keep(part, FIRST)
    tab = open_tab(served.url, f"#/jobs/{job_id}")
    expect(tab.page.locator("#live .words")).to_have_text(["Good morning."])

    _hide(tab.page, True)
    served.hand.keep(part, SECOND)
    _hide(tab.page, False)

    expect(tab.page.locator("#live .words")).to_have_text(["Good morning.", "All stories are mine."])
    asked = [headers["last-event-id"] for _, url, headers in tab.asked if url.endswith("/events")]
    assert asked[0] == "0"
    assert asked[-1] > "0"
    assert all(earlier <= later for earlier, later in pairwise(asked))


def test_without_a_stream_it_asks_now_and_then(served: Served, open_tab: OpenTab) -> None:
    served.hand.come_up()
    job_id = served.send()
    tab = open_tab(served.url)
    refused = '{"code": "unavailable", "title": "Too many clients are waiting.", "status": 503}'
    tab.page.route("**/events", lambda route: route.fulfill(status=503, body=refused))
    tab.page.goto(f"{served.url}/#/jobs/{job_id}")
    expect(tab.page.locator("#told")).to_contain_text("Waiting")

    served.hand.complete(job_id, FIRST)

    expect(tab.page.locator(".transcript .words")).to_have_text(["Good morning."])
    assert tab.page.locator("#trouble").is_hidden()


def test_no_worker(fresh: Served, open_tab: OpenTab) -> None:
    job_id = fresh.send()
    page = open_tab(fresh.url, f"#/jobs/{job_id}").page

    expect(page.locator("#service")).to_have_text("No worker is up: recordings wait")
    expect(page.locator("#told")).to_contain_text("no worker is up for this model")


def test_failed_and_tried_again(served: Served, open_tab: OpenTab) -> None:
    served.hand.come_up()
    job_id = served.send()
    served.hand.fail(job_id, Failure("corrupt_audio", "The audio is damaged at 0:12.", False))
    page = open_tab(served.url, f"#/jobs/{job_id}").page

    expect(page.locator("#outcome")).to_contain_text("The audio is damaged at 0:12.")
    expect(page.locator("#outcome")).to_contain_text("export it anew")
    page.click("#retry")

    until(page, f"location.hash.startsWith('#/jobs/') && !location.hash.endsWith('{job_id}')")
    assert served.job(page.url.rsplit("/", 1)[-1])["retry_of"] == job_id


def test_canceled_keeps_what_was_heard(served: Served, open_tab: OpenTab) -> None:
    served.hand.come_up()
    job_id = served.send()
    (part,) = served.hand.cut(served.hand.begin(job_id))
    served.hand.keep(part, FIRST)
    page = open_tab(served.url, f"#/jobs/{job_id}").page

    page.click("#cancel")
    page.click("#ask-yes")

    expect(page.locator("#outcome")).to_contain_text("Canceled")
    expect(page.locator(".transcript .words")).to_have_text(["Good morning."])
    assert served.job(job_id)["status"] == "canceled"


def test_expired_deleted_and_unknown(served: Served, open_tab: OpenTab) -> None:
    served.hand.come_up()
    expired, deleted = served.send(), served.send("gone.flac")
    served.hand.complete(expired, FIRST)
    served.jobs.expire(expired, 3600)
    page = open_tab(served.url, f"#/jobs/{expired}").page
    expect(page.locator("#outcome")).to_contain_text("kept for a limited time")

    page.goto(f"{served.url}/#/jobs/{deleted}")
    expect(page.locator("#job h1")).to_have_text("gone.flac")
    page.click("#delete")
    page.click("#ask-yes")
    expect(page.locator("#submit h1")).to_be_visible()
    expect(page.locator(f'#jobs li[data-id="{deleted}"]')).to_have_count(0)

    page.goto(f"{served.url}/#/jobs/{deleted}")
    expect(page.locator("#outcome")).to_contain_text("There is no such recording")


def test_a_service_that_is_gone_and_comes_back(
    store: RedisStore, settings: Settings, open_tab: OpenTab
) -> None:
    with api_server(settings) as server:
        job_id = served_at(server.url, settings, store).send()
        page = open_tab(server.url, f"#/jobs/{job_id}").page
        expect(page.locator("#told")).to_contain_text("Waiting")
        port = server.url.rsplit(":", 1)[-1]
    expect(page.locator("#trouble")).to_contain_text("The service does not answer")
    with api_server(settings, ANANSE_PORT=port):
        expect(page.locator("#trouble")).to_be_hidden()
        expect(page.locator("#told")).to_contain_text("Waiting")


def test_a_key_is_asked_for_kept_in_the_tab_and_never_in_an_address(fresh: Served, open_tab: OpenTab) -> None:
    fresh.hand.come_up()
    job_id = fresh.send()
    _, key = make_key(fresh.ring, tenant="default")
    tab = open_tab(fresh.url, f"#/jobs/{job_id}")
    page = tab.page
    expect(page.locator("#key")).to_be_visible()

    page.fill("#key-field", "ananse_wrong")
    page.click("#key-form button[type=submit]")
    expect(page.locator("#key-why")).to_contain_text("no API key of this service")
    page.fill("#key-field", key)
    page.click("#key-form button[type=submit]")

    expect(page.locator("#told")).to_contain_text("Waiting")
    fresh.hand.complete(job_id, FIRST)
    expect(page.locator(".transcript .words")).to_have_text(["Good morning."])
    # A player cannot send the key: the recording was fetched for it.
    expect(page.locator("#wave")).to_have_attribute("data-shaped", "sound")
    assert page.evaluate("[localStorage.length, Object.values(sessionStorage)]")[1] == [key]
    assert not [url for url in tab.urls() if key in url or "ananse_" in url]
    for part in ("/events", "/audio", "/transcript?format=json"):
        (last, *_) = [h for _, url, h in reversed(tab.asked) if url.endswith(part)]
        assert last["authorization"] == f"Bearer {key}", part

    page.reload()
    expect(page.locator(".transcript .words")).to_have_text(["Good morning."])
    page.click("#key-open")
    page.click("#key-forget")
    expect(page.locator("#key")).to_be_visible()
    assert page.evaluate("sessionStorage.length") == 0


def test_two_tabs_know_of_each_other(served: Served, open_tab: OpenTab) -> None:
    served.hand.come_up()
    job_id = served.send()
    served.hand.complete(job_id, FIRST, SECOND)
    one = open_tab(served.url, f"#/jobs/{job_id}").page
    other = open_tab(served.url, f"#/jobs/{job_id}").page
    expect(one.locator(".transcript .words")).to_have_count(2)
    expect(other.locator(".transcript .words")).to_have_count(2)

    _correct(one, 1, "All stories are yours.")
    expect(other.locator(".transcript .words").nth(1)).to_have_text("All stories are yours.")
    one.click("#delete")
    one.click("#ask-yes")
    expect(other.locator(f'#jobs li[data-id="{job_id}"]')).to_have_count(0)


def _hide(page: object, is_hidden: bool) -> None:
    page.evaluate(  # type: ignore[attr-defined]
        "(is) => { Object.defineProperty(document, 'hidden', {get: () => is, configurable: true});"
        " document.dispatchEvent(new Event('visibilitychange')); }",
        is_hidden,
    )


def _correct(page: object, at: int, text: str) -> None:
    row = page.locator(".transcript .segment").nth(at)  # type: ignore[attr-defined]
    row.hover()
    row.locator(".fix").click()
    row.locator("textarea").fill(text)
    row.locator("textarea").press("Enter")
