"""Redirect what libraries print to a sweep's log file, so that only the display writes to the terminal."""

from __future__ import annotations

import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from orchestrator.common.uris import mask_secrets


class _MaskedStream(io.TextIOWrapper):
    """Writes a text without the passwords and keys of URIs, which clients of servers put into their messages."""

    def write(self, text: str, /) -> int:
        super().write(mask_secrets(text))
        return len(text)


@contextmanager
def output_to(log: Path) -> Iterator[None]:
    """Redirect file descriptors 1 and 2, Python's streams, logging and warnings to a file.

    Descriptors are redirected because libraries in C++ and child processes write to them directly. A display that
    writes to the terminal meanwhile needs a stream that :func:`terminal_stream` opened before. What this process prints
    by Python's streams has the secrets of URIs masked.

    Args:
        log: the file to append to.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    saved_descriptors = [os.dup(1), os.dup(2)]
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    saved_streams = sys.stdout, sys.stderr
    stream = _MaskedStream(
        os.fdopen(os.dup(file), "ab"), encoding="utf-8", errors="backslashreplace", line_buffering=True
    )
    for descriptor in (1, 2):
        os.dup2(file, descriptor)
    os.close(file)
    sys.stdout = sys.stderr = stream
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.removeHandler(handler)
        sys.stdout, sys.stderr = saved_streams
        for descriptor, saved in zip((1, 2), saved_descriptors, strict=True):
            os.dup2(saved, descriptor)
            os.close(saved)
        with suppress(OSError):  # on a full disk; the error of whoever met that first counts
            stream.close()


def terminal_stream() -> TextIO:
    """Open another stream to standard error, which a later :func:`output_to` does not redirect."""
    return os.fdopen(os.dup(2), "w", buffering=1, encoding=sys.stderr.encoding, errors="replace")


@contextmanager
def no_library_noise() -> Iterator[None]:
    """Suppress warnings, log messages and progress bars of libraries, for commands without a log file."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    disabled_level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled_level)
