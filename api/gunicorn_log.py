"""gunicorn's own lines, without what strangers wrote: request lines, addresses and headers stay out. Those of
requests it refuses are written by `refusals.py`."""

from typing import Any

from gunicorn.glogging import Logger

_FAILED = "Error handling request"


class Log(Logger):  # type: ignore[misc]
    def access(self, *_: Any) -> None:
        """The line of each request is written by `requests.py`."""

    def exception(self, msg: str, *args: Any, **more: Any) -> None:
        if msg.startswith(_FAILED):
            msg, args = _FAILED, ()
        super().exception(msg, *args, **more)
