"""How the service and the worker log: lines for people, or JSON for machines, one object a line.

`about` says what a piece of work is about; every line that is logged inside it carries that. Neither form ever shows a
token or a webhook's secret, wherever it came from.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal, TextIO, get_args

from layersweep.display.printable import one_record, printable_json

Form = Literal["text", "json"]
FORMS: tuple[Form, ...] = get_args(Form)
VARIABLE = "LAYERSWEEP_LOG_FORMAT"

TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
FACTS = "facts"
"""`extra={FACTS: {...}}`: what belongs to one line beside its words."""

_SECRET = re.compile(r"\b(lsw_|whsec_)[A-Za-z0-9_+/=-]{8,}")
_QUIET = ("httpx2", "httpcore2", "alembic.runtime.migration")
"""Loggers that tell every URL that is called, or what nobody asked for."""

_about: ContextVar[Mapping[str, object] | None] = ContextVar("layersweep_about", default=None)


@contextmanager
def about(**ids: object) -> Generator[None]:
    """Give every line that is logged inside these ids: `request_id`, `sweep`, `trial`, `attempt`."""
    reset = _about.set({**(_about.get() or {}), **ids})
    try:
        yield
    finally:
        _about.reset(reset)


def configure(level: int, form: Form) -> None:
    """Send what is logged to the standard error, in this form; if logging is configured already, that stays."""
    logging.basicConfig(level=level, handlers=[handler(form)])
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))


def handler(form: Form, stream: TextIO | None = None) -> logging.Handler:
    """A handler that writes this form to a stream (left out: the standard error)."""
    made = logging.StreamHandler(stream)
    made.setFormatter(JsonFormatter() if form == "json" else TextFormatter(TEXT))
    made.addFilter(_add_context)
    return made


def line(message: str) -> str:
    """A line in the form that the root logger writes: for where nothing may be logged, as in a handler of signals."""
    formatters = [handler.formatter for handler in logging.getLogger().handlers]
    if not any(isinstance(formatter, JsonFormatter) for formatter in formatters):
        return message
    record = logging.LogRecord("layersweep.worker", logging.INFO, "", 0, message, None, None)
    return JsonFormatter().format(record)


class TextFormatter(logging.Formatter):
    """A line for people, without secrets; what others wrote can neither end it nor command a terminal."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        return one_record(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's own name
        return one_record(super().formatException(ei))

    def format(self, record: logging.LogRecord) -> str:
        return without_secrets(super().format(record))


class JsonFormatter(logging.Formatter):
    """One JSON object: time, level, logger, message, what it is about, its facts, and an exception's traceback."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "about", {}),
            **getattr(record, FACTS, {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return without_secrets(printable_json(json.dumps(line, ensure_ascii=False, default=str)))


def without_secrets(text: str) -> str:
    """`text` with the beginnings of tokens and secrets only."""
    return _SECRET.sub(r"\1...", text)


def _add_context(record: logging.LogRecord) -> bool:
    record.about = _about.get() or {}
    return True
