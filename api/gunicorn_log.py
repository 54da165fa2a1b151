"""gunicorn's own lines, without what strangers wrote: request lines, addresses and headers stay out."""

from typing import Any

from gunicorn.glogging import Logger

_REFUSED = "Invalid request from ip="
_FAILED = "Error handling request"


class Log(Logger):  # type: ignore[misc]
    def access(self, *_: Any) -> None:
        """The line of each request is written by `requests.py`."""

    def warning(self, msg: str, *args: Any, **more: Any) -> None:
        if msg.startswith(_REFUSED):
            msg, args = "Invalid request", ()
        super().warning(msg, *args, **more)

    def exception(self, msg: str, *args: Any, **more: Any) -> None:
        if msg.startswith(_FAILED):
            msg, args = _FAILED, ()
        super().exception(msg, *args, **more)
