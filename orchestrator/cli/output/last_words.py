"""Say how to continue even when the sweep's process ends without a word.

Ray ends a driver at once whose own Ray processes have died, and the system one that takes too much memory. Nothing in
the process runs then, so a process of a few megabytes beside it waits for its end.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

_WAIT = """
import signal, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
journal, hint = sys.argv[1:]
if not sys.stdin.buffer.read():
    try:
        with open(journal, "rb") as file:
            has_begun = b'"event": "sweep"' in file.read(2 ** 20)
    except OSError:
        has_begun = False
    print("peft-sweep: the sweep's process was ended from outside: it was killed, or Ray's own processes have died; "
          "no trial is at fault", *[hint] * has_begun, sep="\\n", file=sys.stderr)
"""
_DONE = b"done"


@contextmanager
def last_words(journal: Path, hint: str, stream: TextIO) -> Iterator[None]:
    """Print a hint, should this process end inside without leaving.

    Args:
        journal: journal of the sweep; without its first event there is nothing to continue.
        hint: how to continue.
        stream: open stream with a file descriptor, to which the hint is printed.
    """
    waiting = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _WAIT, str(journal), hint],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=stream,
    )
    try:
        yield
    finally:
        with suppress(OSError):  # it has ended: somebody has killed it
            waiting.communicate(_DONE)
