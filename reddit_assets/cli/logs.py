"""How commands log: lines for people, or JSON for what collects logs."""

from __future__ import annotations

import json
import logging
import socket
from datetime import UTC, datetime

__all__ = ["JsonFormatter", "start_logging"]

# What `extra=` may add to a line.
_FIELDS = ("kind", "key", "job", "outcome", "reason", "rows", "seconds")


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, host, message; kind, key and job where known."""

    def __init__(self) -> None:
        super().__init__()
        self._host = socket.gethostname()

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "host": self._host,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: getattr(record, name) for name in _FIELDS if hasattr(record, name)}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def start_logging(form: str = "text") -> None:
    """Lines on standard error: with times where they go to a file, short in a terminal.

    Args:
        form: ``text`` or ``json``.
    """
    from rich.console import Console

    if form == "json":
        handler: logging.Handler = logging.StreamHandler()
        handler.setFormatter(JsonFormatter())
        logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    elif Console(stderr=True).is_terminal:
        from rich.logging import RichHandler

        handler = RichHandler(
            console=Console(stderr=True), show_path=False, show_level=False, log_time_format="%X"
        )
        logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[handler])
    else:
        logging.basicConfig(
            level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", force=True
        )
    for noisy in ("httpx", "httpcore", "numba"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
