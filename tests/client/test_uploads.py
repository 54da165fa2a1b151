"""The form a recording is sent as: read anew each time, never whole in memory, understood by the API."""

import asyncio
from contextlib import closing
from pathlib import Path

from werkzeug.formparser import parse_form_data

from ananse_client.recordings import CHUNK_BYTES, Form


def form(path: Path, **fields: str) -> Form:
    return Form(path, fields, path.stat().st_size)


def test_both_ways_send_the_same_bytes_as_long_as_they_say(recording: Path) -> None:
    made = form(recording, language="en", prompt="ñandú")

    async def collect() -> bytes:
        return b"".join([chunk async for chunk in made.chunks_async()])

    body = b"".join(made.chunks())
    assert body == b"".join(made.chunks()) == asyncio.run(collect())
    assert int(made.headers()["Content-Length"]) == len(body)


def test_a_form_reader_finds_all_of_it(recording: Path) -> None:
    made = form(recording, language="en", prompt="a\nb ñ")
    body = b"".join(made.chunks())
    path = recording.with_name("body")
    path.write_bytes(body)

    with path.open("rb") as stream:
        _, fields, files = parse_form_data(
            {
                "wsgi.input": stream,
                "CONTENT_TYPE": made.headers()["Content-Type"],
                "CONTENT_LENGTH": made.headers()["Content-Length"],
                "REQUEST_METHOD": "POST",
            }
        )

    with closing(files["file"]) as sent:
        assert fields.to_dict() == {"language": "en", "prompt": "a\nb ñ"}
        assert sent.read() == recording.read_bytes()


def test_a_file_that_grows_is_sent_up_to_where_it_was(recording: Path) -> None:
    made = form(recording)
    with recording.open("ab") as file:
        file.write(b"more" * 100_000)

    assert sum(map(len, made.chunks())) == int(made.headers()["Content-Length"])


def test_chunks_are_small(tmp_path: Path) -> None:
    path = tmp_path / "large.wav"
    path.write_bytes(bytes(10 * CHUNK_BYTES))

    assert max(map(len, form(path).chunks())) == CHUNK_BYTES
