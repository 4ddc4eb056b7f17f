"""Real processes that hang, and are ended from inside."""

import subprocess
import sys

SCRIPT = """
import ctypes, sys, threading
from orchestrator.lanes.hang_guard import HangGuard
from orchestrator.lanes.step_watch import HangLimits, StepWatch, Subject, Work

limits = HangLimits(least_s=1.0, first_s=1.0)
watch = StepWatch(limits, interval_s=0.05)
guard = HangGuard(watch, limits, lambda hang: print("reported:", hang, flush=True))
guard.start()

def hang_with_the_interpreters_lock():
    ctypes.PyDLL(None).sleep(60)

def hang():
    threading.Event().wait()

with watch.during(Work.TRAIN, [Subject("mail/lora/0", "mail", 7)]):
    watch.progress()
    {function}()
"""


def run(function: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT.format(function=function)], capture_output=True, text=True, timeout=50
    )


def test_process_that_hangs_tells_and_ends_with_its_stacks() -> None:
    result = run("hang")
    assert result.returncode == 1
    assert result.stdout == "reported: mail/lora/0 hung at step 7, training: nothing happened for 1 s\n"
    assert " in hang\n" in result.stderr


def test_process_that_lets_no_thread_run_ends_with_its_stacks() -> None:
    result = run("hang_with_the_interpreters_lock")
    assert result.returncode == 1
    assert result.stdout == "", "no thread of Python could tell"
    assert " in hang_with_the_interpreters_lock\n" in result.stderr
