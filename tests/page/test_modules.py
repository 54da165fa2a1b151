"""The page's pure modules, run where they are meant to run."""

import json
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.page.conftest import OpenTab, Served

pytestmark = [pytest.mark.redis, pytest.mark.service]


@pytest.fixture
def page(served: Served, open_tab: OpenTab) -> Page:
    return open_tab(served.url).page


def run(page: Page, module: str, code: str) -> Any:
    return page.evaluate(f"async () => {{ const m = await import('/page/{module}'); return {code}; }}")


def test_events_are_read_however_the_stream_is_cut(page: Page) -> None:
    stream = (
        'retry: 3000\n\n: ping\n\nid: 1-0\nevent: state\ndata: {"a":1}\n\nid: 2-0\ndata: x\ndata: y\r\n\r\n'
    )
    code = """(() => {
      const text = TEXT, found = [];
      for (let cut = 1; cut < text.length; cut += 1) {
        const reader = new m.EventReader();
        found.push(JSON.stringify([...reader.push(text.slice(0, cut)), ...reader.push(text.slice(cut))]));
      }
      return [...new Set(found)];
    })()""".replace("TEXT", json.dumps(stream))
    assert run(page, "sse.js", code) == [
        '[{"id":"1-0","event":"state","data":"{\\"a\\":1}"},{"id":"2-0","event":"message","data":"x\\ny"}]'
    ]


def test_times_and_sizes(page: Page) -> None:
    assert run(page, "times.js", "[0, 59.99, 61, 3599.9, 3600, 36061].map(m.clock)") == [
        *("0:00", "0:59", "1:01", "59:59", "1:00:00", "10:01:01"),
    ]
    assert run(page, "times.js", "[0.2, 30, 120, 7200, 200000].map(m.span)") == [
        *("a second", "30 seconds", "2 minutes", "2 hours", "2 days"),
    ]
    assert run(page, "times.js", "[999, 1000, 127836, 999600, 5e9].map(m.size)") == [
        *("999 B", "1.0 kB", "128 kB", "1.0 MB", "5.0 GB"),
    ]
    assert run(page, "times.js", "[0, 0.999, 1].map(m.percent)") == ["0 %", "99 %", "100 %"]


def test_words_are_placed_in_the_text_and_the_text_stays_whole(page: Page) -> None:
    segment = """{start: 1, end: 3, text: " Oh, oh! Ananse", words: [
      {start: 1, end: 1.5, text: " Oh,", probability: 0.9},
      {start: 1.5, end: 2, text: "oh", probability: 0.3}]}"""
    found = run(page, "placing.js", f"m.pieces({segment})")
    assert "".join(piece["text"] for piece in found) == "Oh, oh! Ananse"
    assert [(piece["text"], piece["word"]["start"]) for piece in found if "word" in piece] == [
        *(("Oh,", 1), ("oh", 1.5)),
    ]
    guessed = run(page, "placing.js", "m.pieces({start: 0, end: 10, text: 'aaaa bbbbb', words: null})")
    assert [(p["word"]["start"], p["word"]["end"]) for p in guessed if "word" in p] == [(0, 4), (5, 10)]
    chinese = run(page, "placing.js", "m.pieces({start: 0, end: 2, text: '早上好，安娜西。', words: null})")
    assert "".join(piece["text"] for piece in chinese) == "早上好，安娜西。"
    assert len([piece for piece in chinese if "word" in piece]) > 1


def test_the_latest_word_and_merged_segments(page: Page) -> None:
    words = "[{start: 1}, {start: 2}, {start: 2}, {start: 5}]"
    assert run(page, "placing.js", f"[0, 1, 1.9, 2, 9].map((at) => m.latest({words}, at))") == [
        -1,
        0,
        0,
        2,
        3,
    ]
    merged = "m.merge([{start: 4, text: 'b'}], [{start: 1, text: 'a'}, {start: 4, text: 'B'}])"
    assert run(page, "placing.js", merged) == [{"start": 1, "text": "a"}, {"start": 4, "text": "B"}]


def test_folding_changes_no_length(page: Page) -> None:
    text = "İSTANBUL Ɔkɔm ß Ω"
    assert run(page, "finding.js", f"m.fold('{text}')") == "İstanbul ɔkɔm ß ω"


def test_the_level_is_in_decibels(page: Page) -> None:
    level = "m.level(new Float32Array(64).fill(amplitude))"
    code = f"[0, 0.001, 0.1, 1].map((amplitude) => Math.round({level} * 100))"
    assert run(page, "recorder.js", code) == [0, 0, 67, 100]
