"""Log lines as a collector reads them: one JSON object a line, ours and other people's alike."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

START = """
import logging
from shared import log
log.configure({level!r})
ours = log.get_logger()
"""


def lines(script: str, level: str = "INFO") -> list[dict[str, Any]]:
    """What a process of its own writes to stderr; logging is set up once and for all in it."""
    program = START.format(level=level) + script
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == ""
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_a_line_is_an_event_with_its_numbers() -> None:
    (line,) = lines("ours.info('job_created', size_bytes=7, model='Mɛda')")

    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "job_created", "level": "info", "size_bytes": 7, "model": "Mɛda"}


def test_other_people_s_lines_look_the_same() -> None:
    (line,) = lines("logging.getLogger('celery').warning('lost %s', 'broker')")

    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "lost broker", "level": "warning"}


def test_what_is_bound_stands_in_every_line_inside_and_in_none_after() -> None:
    inside, foreign, nested, after = lines(
        """
with log.bound(job_id='job_1'):
    ours.info('inside')
    logging.getLogger('celery').info('foreign')
    with log.bound(step='part-0'):
        ours.info('nested')
ours.info('after')
"""
    )

    assert (inside["job_id"], foreign["job_id"]) == ("job_1", "job_1")
    assert (nested["job_id"], nested["step"]) == ("job_1", "part-0")
    assert "job_id" not in after


def test_what_is_bound_in_one_thread_is_not_in_another() -> None:
    (line,) = lines(
        """
import threading
with log.bound(job_id='job_1'):
    thread = threading.Thread(target=lambda: ours.info('elsewhere'))
    thread.start()
    thread.join()
"""
    )

    assert "job_id" not in line


def test_lesser_levels_are_left_out() -> None:
    written = lines(
        """
theirs = logging.getLogger('celery')
ours.info('a'); ours.warning('b'); theirs.info('c'); theirs.error('d')
""",
        level="WARNING",
    )

    assert [line["event"] for line in written] == ["b", "d"]


def test_a_trace_is_one_line() -> None:
    (line,) = lines(
        """
try:
    1 / 0
except ZeroDivisionError:
    ours.exception('step_failed')
"""
    )

    assert "ZeroDivisionError" in line["exception"]


def test_what_is_added_inside_ends_with_it() -> None:
    inside, after = lines(
        """
with log.bound(job_id='job_1'):
    log.add(request_id='req_1', trace_id='')
    ours.info('inside')
ours.info('after')
"""
    )

    assert (inside["job_id"], inside["request_id"]) == ("job_1", "req_1")
    assert "trace_id" not in inside
    assert "request_id" not in after


def test_a_thread_starts_anew_with_each_request() -> None:
    (line,) = lines("log.add(job_id='job_1'); log.begin(request_id='req_2'); ours.info('begun')")

    assert line["request_id"] == "req_2"
    assert "job_id" not in line


def test_libraries_say_nothing_at_debug_and_no_addresses() -> None:
    (line,) = lines(
        """
logging.getLogger('httpcore').debug('headers')
logging.getLogger('httpx').info('HTTP Request: POST http://somebody/path')
logging.getLogger('celery.app.trace').info('succeeded')
logging.getLogger('kombu').debug('body')
ours.debug('ours')
""",
        level="DEBUG",
    )

    assert line["event"] == "ours"


def test_warnings_and_what_ends_a_thread_are_lines() -> None:
    warning, end = lines(
        """
import threading, warnings
log.own_process()
warnings.warn('careful')
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
"""
    )

    assert "careful" in warning["event"]
    assert end["event"] == "uncaught"
    assert "ZeroDivisionError" in end["exception"]
