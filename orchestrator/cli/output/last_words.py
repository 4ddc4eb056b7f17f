"""Say how to continue even when the sweep's process ends without a word.

Ray ends a driver at once whose own Ray processes have died, and the system one that takes too much memory. Nothing in
the process runs then, so a process of a few megabytes beside it waits for its end. It also ends what such a driver has
left: Ray's processes end with it, but once in some tens of times one of them misses that.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from orchestrator.common.own_processes import MARK

_WAIT = r"""
import os, signal, sys, time

def tell():
    try:
        with open(journal, "rb") as file:
            has_begun = b'"event": "sweep"' in file.read(2 ** 20)
    except OSError:
        has_begun = False
    print("peft-sweep: the sweep's process was ended from outside: it was killed, or Ray's own processes have died; "
          "no trial is at fault", *[hint] * has_begun, sep="\n", file=sys.stderr)

def left():
    for pid in os.listdir("/proc"):
        try:
            if pid.isdigit() and int(pid) != os.getpid():
                with open(f"/proc/{pid}/environ", "rb") as file:
                    if mark in file.read().split(b"\0"):
                        yield int(pid)
        except OSError:  # of another user, or ended meanwhile
            pass

def end_what_is_left():
    patience_ends = time.monotonic() + 3
    for _ in range(100):
        pids = list(left())
        if not pids:
            return
        if time.monotonic() > patience_ends:
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except OSError:
                    pass
        time.sleep(0.2)

for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
journal, hint, mark_name = sys.argv[1:]
if not sys.stdin.buffer.read():
    tell()
    if mark_name in os.environ and os.path.isdir("/proc"):
        mark = f"{mark_name}={os.environ[mark_name]}".encode()
        end_what_is_left()
"""
_DONE = b"done"


@contextmanager
def last_words(journal: Path, hint: str, stream: TextIO) -> Iterator[None]:
    """Print a hint, should this process end inside without leaving, and end what it has started and left.

    Args:
        journal: journal of the sweep; without its first event there is nothing to continue.
        hint: how to continue.
        stream: open stream with a file descriptor, to which the hint is printed.
    """
    waiting = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _WAIT, str(journal), hint, MARK],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=stream,
    )
    try:
        yield
    finally:
        with suppress(OSError):  # it has ended: somebody has killed it
            waiting.communicate(_DONE)
