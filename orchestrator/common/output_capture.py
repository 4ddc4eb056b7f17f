"""Everything that libraries print goes to the sweep's log file; the terminal is the display's alone."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


@contextmanager
def output_to(log: Path) -> Iterator[None]:
    """Send file descriptors 1 and 2 and all logging to a file.

    A display that should still reach the terminal opens its own descriptor before; see :func:`terminal_stream`.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    terminal = [os.dup(1), os.dup(2)]
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    before = sys.stdout, sys.stderr
    with os.fdopen(os.dup(file), "a", buffering=1) as stream:
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
            sys.stdout, sys.stderr = before
            for descriptor, saved in zip((1, 2), terminal, strict=True):
                os.dup2(saved, descriptor)
                os.close(saved)


def terminal_stream() -> TextIO:
    """A stream to where errors go now, which stays there when descriptors 1 and 2 are sent elsewhere."""
    return os.fdopen(os.dup(2), "w", buffering=1)


@contextmanager
def no_library_noise() -> Iterator[None]:
    """Keep the warnings and progress bars of libraries off the terminal, for work too short for a log file."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
