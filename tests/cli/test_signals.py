"""What signals do to a process that runs a sweep."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from ..polling import until

RUN = """
import subprocess, sys, threading
from orchestrator.cli.output.signals import signals_stop

stop = threading.Event()
with signals_stop(stop, lambda: print("continue with: resume", flush=True)):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print(child.pid, flush=True)
    while not stop.wait(0.05):  # as the driver waits, in short pieces
        pass
    print("stopping", flush=True)
    if sys.argv[1] == "hangs":
        threading.Event().wait(600)
    child.kill()
    child.wait()
print("stopped", flush=True)
"""


@contextmanager
def driver(ending: str) -> Iterator[subprocess.Popen[str]]:
    """Run a process that stops at a signal, or ``hangs`` while it stops; its first line is its child's id."""
    command = [sys.executable, "-c", RUN, ending]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_first_signal_stops_the_sweep_in_order(number: signal.Signals) -> None:
    with driver("ends") as process:
        line(process)
        process.send_signal(number)
        assert process.communicate(timeout=60)[0] == "stopping\nstopped\n"
    assert process.returncode == 0


def test_signals_at_once_are_one() -> None:
    with driver("ends") as process:
        line(process)
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            process.send_signal(number)
        assert process.communicate(timeout=60)[0] == "stopping\nstopped\n"
    assert process.returncode == 0


def test_later_signal_ends_everything_with_the_command_to_continue() -> None:
    with driver("hangs") as process:
        child = psutil.Process(int(line(process)))
        process.send_signal(signal.SIGINT)
        assert line(process) == "stopping"
        until(lambda: process.send_signal(signal.SIGINT) or process.poll() is not None, pause=0.6)
        assert process.communicate(timeout=5)[0] == "continue with: resume\n"
    assert process.returncode == 130
    psutil.wait_procs([child], timeout=5)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
