"""How ``logging`` is set up is state of the process: while a world runs it is the world's.

A world begins as a new process does: the root logger has no handlers; what libraries said of their own loggers as they
were imported holds. What its programs set up (``basicConfig``, levels, handlers) stays in it: the host,
and the next world, have what they had. The programs of one world share it, as they share all modules.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["LogSetup"]

_Setup = dict[str, dict[str, Any]]  # by logger; "" is the root
_FRESH = logging.Logger("")
_NEW_ROOT = logging.Logger("", logging.WARNING)


class LogSetup:
    """One world's."""

    def __init__(self) -> None:
        self._setup: _Setup = {}

    @contextmanager
    def installed(self) -> Iterator[None]:
        host = _read()
        _write({**host, "": _of(_NEW_ROOT), **self._setup})
        try:
            yield
        finally:
            self._setup = _read()
            _write(host)


def _loggers() -> dict[str, logging.Logger]:
    known = logging.root.manager.loggerDict
    found = {name: known[name] for name in sorted(known)}
    return {"": logging.root, **{name: one for name, one in found.items() if isinstance(one, logging.Logger)}}


def _of(logger: logging.Logger) -> dict[str, Any]:
    return {
        "level": logger.level,
        "handlers": list(logger.handlers),
        "filters": list(logger.filters),
        "propagate": logger.propagate,
        "disabled": logger.disabled,
    }


def _read() -> _Setup:
    return {name: _of(logger) for name, logger in _loggers().items()}


def _write(setup: _Setup) -> None:
    """Loggers that are not in it are as new ones."""
    for name, logger in _loggers().items():
        kept = setup.get(name) or _of(_FRESH)
        lists = {key: list(kept[key]) for key in ("handlers", "filters")}  # the logger changes them in place
        vars(logger).update({**kept, **lists})
    logging.root.manager._clear_cache()  # type: ignore[attr-defined]
