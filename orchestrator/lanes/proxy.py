"""What Ray Tune runs: a light proxy of a trial that sends its work to the lanes, rung by rung."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray import tune

from orchestrator.common.trial_types import Answer, Job, TrialKey, checkpoint_path, trial_seed


@dataclass(frozen=True)
class Work:
    """What all proxies of a sweep have in common.

    Args:
        broker: actor that takes jobs.
        rungs: steps at which trials report; a full trial ends at the last.
        metrics: name of the metric of each task.
    """

    broker: Any
    rungs: tuple[int, ...]
    metrics: Mapping[str, str]


class TrialProxy(tune.Trainable):
    """A trainable whose step is one rung.

    Its configuration holds a trial's ``study``, ``number``, ``params`` and ``seed``, and ``start``, its steps so far.

    A trial with ``start`` above 0 continues from its checkpoint there. Its state is in the lanes; Tune has none of it.
    """

    def setup(self, config: dict[str, Any], work: Work | None = None) -> None:
        """Begin with a trial at its rung; ``work`` is passed in a process's first call only.

        The process ends at SIGTERM at once, since nothing in it needs saving. Ray's handler would raise ``SystemExit``
        in the next line of Python, often a callback of a freed object, which prints a traceback.
        """
        if work:
            self._work = work
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self._trial = TrialKey(config["study"], config["number"])
        self._params, self._seed, self._done_steps = config["params"], config["seed"], config["start"]
        self._checkpoint = checkpoint_path(self._trial, self._done_steps) if self._done_steps else None

    def step(self) -> dict[str, Any]:
        """Train to the next rung and score there."""
        rungs = self._work.rungs
        job = Job(
            trial=self._trial,
            params=self._params,
            seed=trial_seed(self._seed, self._trial),
            start=self._done_steps,
            stop=next(rung for rung in rungs if rung > self._done_steps),
            total=rungs[-1],
            checkpoint=self._checkpoint,
        )
        answer: Answer = ray.get(self._work.broker.run.remote(job))
        self._done_steps, self._checkpoint = answer.step, answer.checkpoint or self._checkpoint
        return self._result(answer)

    def _result(self, answer: Answer) -> dict[str, Any]:
        """Return an answer as Tune's result.

        Metrics, measurements and the curve are pairs: Tune keeps statistics of every number in a mapping, for each
        trial and as long as the sweep runs.
        """
        return {
            "status": answer.status,
            "reason": answer.reason,
            "step": answer.step,
            "value": answer.metrics.get(self._work.metrics[self._trial.task], float("nan")),
            "metrics": list(answer.metrics.items()),
            "measurements": list(answer.measurements.items()),
            "curve": list(answer.curve.items()),
            "done": answer.status != "done" or answer.step >= self._work.rungs[-1],
        }

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Reuse the process for another trial, which saves Tune the start of a new one."""
        self.setup(new_config)
        return True
