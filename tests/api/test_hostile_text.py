"""Five hundred strings that browsers, spreadsheets, subtitles and headers would rather run than show (T25):
as name, tag, metadata and transcript each comes back as the text it is, and as nothing else."""

import csv
import html
import io
import json
import random
from collections.abc import Iterator
from urllib.parse import unquote

import pytest
from flask.testing import FlaskClient

from tests.support.worker_hand import WorkerHand, window

pytestmark = [pytest.mark.redis, pytest.mark.slow]

COUNT = 500
PER_JOB = 20
_SEEDS = (
    "<script>alert(1)</script>",
    "</pre><img src=x onerror=alert(1)>",
    "javascript:alert(1)",
    '"><svg/onload=alert(1)>',
    "' onmouseover='alert(1)",
    "{{7*7}}${7*7}<%= 7*7 %>",
    "=HYPERLINK('http://x','y')",
    "+1+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(1,2)",
    "a -->\u00a0b 00:00:00,000 --> 00:00:09,000",
    "NOTE x STYLE ::cue{color:red}",
    "WEBVTT",
    'file"; filename=evil.html',
    "x'; DROP TABLE jobs; --",
    "\u202egpj.exe",
    "\u200b\ufeff\u2028\u2029",
    "Ω≈ç√∫˜µ≤≥÷ ثم نفس 田中さん 👩‍👩‍👧 𝒯",
    "%0d%0aSet-Cookie: a=b",
    "&lt;script&gt;&#x3c;b&#x3e;",
    "<!--#exec cmd='x'--><![CDATA[x]]>",
    "null undefined NaN ${jndi:ldap://x/a}",
)


def strings() -> list[str]:
    """The seeds, and mixes of them; without control characters, which no field takes."""
    chance = random.Random(25)
    mixed = ("".join(chance.sample(_SEEDS, 2))[chance.randrange(4) :] for _ in range(COUNT))
    return [*_SEEDS, *mixed][:COUNT]


def groups() -> Iterator[list[str]]:
    found = strings()
    return (found[at : at + PER_JOB] for at in range(0, COUNT, PER_JOB))


def test_what_is_said_about_a_job_comes_back_as_it_was(client: FlaskClient, recording: bytes) -> None:
    for text in strings():
        given = text[:60]
        name = given.replace("/", "_").replace("\\", "_")
        sent = client.post(
            "/v1/jobs",
            data=recording,
            content_type="audio/wav",
            query_string={"name": name, "tag": given, "metadata": json.dumps({"said": given})},
        )
        assert sent.status_code == 202, (text, sent.text)
        job = sent.json
        assert job["options"]["tag"] == given
        assert job["metadata"] == {"said": given}
        assert sent.content_type == "application/json"
        with client.get(job["links"]["audio"]) as answer:
            header = answer.headers["Content-Disposition"]
            assert header.startswith('attachment; filename="')
            assert header.count('"') == 2
            assert unquote(header.partition("''")[2]) == job["media"]["name"]
            assert answer.content_type in ("application/octet-stream", "audio/wav")


def test_what_was_said_in_it_is_text_in_every_format(
    client: FlaskClient, worker: WorkerHand, recording: bytes
) -> None:
    worker.come_up()
    for texts in groups():
        sent = client.post("/v1/jobs", data=recording, content_type="audio/wav")
        windows = [window(number, number, number + 1.0, text) for number, text in enumerate(texts)]
        worker.complete(sent.json["id"], *windows)
        path = f"{sent.json['links']['transcript']}?format="

        found = client.get(path + "json")
        assert [segment["text"] for segment in found.json["segments"]] == texts
        for name in ("json", "text", "srt", "vtt", "tsv", "csv"):
            with client.get(path + name) as answer:
                assert not answer.content_type.startswith(("text/html", "image/svg"))
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
                assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
        for name in ("srt", "vtt"):
            assert client.get(path + name).text.count("-->") == len(texts)
        vtt = client.get(path + "vtt").text
        assert "<" not in vtt
        assert html.unescape(vtt).count("alert(1)") == "".join(texts).count("alert(1)")
        rows = csv.reader(io.StringIO(client.get(path + "csv&guard_formulas=true").text, newline=""))
        assert not [row for row in list(rows)[1:] if row[2].startswith(("=", "+", "-", "@", "\t", "\r"))]
