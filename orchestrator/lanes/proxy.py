"""What Ray Tune runs: a light stand-in for a trial that sends its work to the lanes, rung by rung."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray import tune

from orchestrator.common.trial_types import Answer, Job, TrialKey, checkpoint_path, trial_seed


@dataclass(frozen=True)
class Work:
    """What all proxies of a sweep know.

    Args:
        broker: the actor that takes jobs.
        rungs: steps at which trials report; a full trial ends at the last.
        metrics: the metric of each task.
    """

    broker: Any
    rungs: tuple[int, ...]
    metrics: Mapping[str, str]


class TrialProxy(tune.Trainable):
    """One step is one rung. The configuration is a trial's ``study``, ``number``, ``params``, ``seed`` and ``start``.

    A trial that starts above 0 goes on from its checkpoint there. The state is the lanes'; Tune keeps none.
    """

    def setup(self, config: dict[str, Any], work: Work | None = None) -> None:
        """Begin a piece of a trial; ``work`` comes with the first."""
        if work:
            self._work = work
        self._trial = TrialKey(config["study"], config["number"])
        self._params, self._seed, self._done = config["params"], config["seed"], config["start"]
        self._checkpoint = checkpoint_path(self._trial, self._done) if self._done else None

    def step(self) -> dict[str, Any]:
        """Train to the next rung and score there."""
        rungs = self._work.rungs
        job = Job(
            trial=self._trial,
            params=self._params,
            seed=trial_seed(self._seed, self._trial),
            start=self._done,
            stop=next(rung for rung in rungs if rung > self._done),
            total=rungs[-1],
            checkpoint=self._checkpoint,
        )
        answer: Answer = ray.get(self._work.broker.run.remote(job))
        self._done, self._checkpoint = answer.step, answer.checkpoint or self._checkpoint
        return self._result(answer)

    def _result(self, answer: Answer) -> dict[str, Any]:
        return {
            "status": answer.status,
            "reason": answer.reason,
            "step": answer.step,
            "value": answer.metrics.get(self._work.metrics[self._trial.task], float("nan")),
            "metrics": answer.metrics,
            "measurements": answer.measurements,
            "done": answer.status != "done" or answer.step >= self._work.rungs[-1],
        }

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Let the process serve another piece."""
        self.setup(new_config)
        return True
