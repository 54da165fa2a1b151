"""JSON log lines: an event name, the job and the request they belong to, numbers as fields.

No media content, no transcript text, no file names and no secrets go in.
"""

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import structlog

CHATTER = ("celery.worker.strategy", "celery.app.trace", "httpx", "httpcore")
"""At INFO, Celery says that a message came and a task went, without the job's id, where our own lines have
it; and httpx gives the whole address of every webhook."""


def configure(level: str = "INFO") -> None:
    """Sets up structlog and the standard library's logging to write the same JSON lines to stderr."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.format_exc_info, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # DEBUG is for our own lines: what libraries say there may be what somebody sent.
    root.setLevel(max(logging.INFO, logging.getLevelNamesMapping()[level]))
    for name in CHATTER:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


def own_process() -> None:
    """What Python itself would write to stderr becomes lines too: warnings, and what ends a thread or all."""
    logging.captureWarnings(True)
    sys.excepthook = _on_end
    threading.excepthook = lambda end: _on_end(end.exc_type, end.exc_value, end.exc_traceback)


def _on_end(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    get_logger().critical("uncaught", exc_info=(kind, error, trace))


def get_logger() -> structlog.typing.FilteringBoundLogger:
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    return logger


@contextmanager
def bound(**values: Any) -> Iterator[None]:
    """Every line logged in this thread while inside carries `values`, and what is added meanwhile."""
    before = structlog.contextvars.get_contextvars()
    structlog.contextvars.bind_contextvars(**values)
    try:
        yield
    finally:
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(**before)


def begin(**values: str) -> None:
    """Lines of this thread carry these values and no others."""
    structlog.contextvars.clear_contextvars()
    add(**values)


def add(**values: str | int) -> None:
    """From now on lines carry `values` too, up to the end of the `bound` around; empty ones are left out."""
    structlog.contextvars.bind_contextvars(**{name: value for name, value in values.items() if value})


def carried() -> dict[str, Any]:
    """What lines of this thread carry, for another thread that works on the same."""
    return structlog.contextvars.get_contextvars()
