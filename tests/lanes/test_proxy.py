"""How a trial's process ends, without Ray."""

import signal
import subprocess
import sys

ENDED_WHILE_AN_OBJECT_IS_FREED = """
import os, signal, sys
from orchestrator.lanes.proxy import TrialProxy, Work

class Freed:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)

signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # as Ray does in each of its workers
proxy = TrialProxy.__new__(TrialProxy)
config = {"study": "mail/lora", "number": 0, "params": {}, "seed": 1, "start": 0}
proxy.setup(config, Work(None, (1, 2), {"mail": "loss"}))
freed = Freed()
del freed
"""


def test_process_of_a_trial_ends_at_sigterm_without_a_word() -> None:
    command = [sys.executable, "-c", ENDED_WHILE_AN_OBJECT_IS_FREED]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (-signal.SIGTERM, "")
