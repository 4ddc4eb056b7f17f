"""How a trial's process ends, without Ray."""

import signal
import subprocess
import sys
from typing import Any

import pytest
import ray

from orchestrator.common.trial_types import Answer
from orchestrator.lanes.proxy import TrialProxy, Work

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


class OneAnswer:
    """A broker that gives every job one answer."""

    class run:
        @staticmethod
        def remote(job: Any) -> Answer:
            return Answer(status="done", step=job.stop, metrics={"loss": 0.5}, measurements={"train_seconds": 2.0})


def test_result_for_tune_has_few_numbers_that_it_keeps_statistics_of(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.tune.utils import flatten_dict

    monkeypatch.setattr(ray, "get", lambda answer: answer)
    trial = TrialProxy.__new__(TrialProxy)
    trial.setup(
        {"study": "mail/lora", "number": 0, "params": {}, "seed": 1, "start": 0},
        Work(OneAnswer, (1, 2), {"mail": "loss"}),
    )
    result = trial.step()
    numbers = {key for key, value in flatten_dict(result).items() if isinstance(value, int | float)}
    assert numbers == {"step", "value", "done"}
    assert (dict(result["metrics"]), dict(result["measurements"])) == ({"loss": 0.5}, {"train_seconds": 2.0})
