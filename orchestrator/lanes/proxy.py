"""What Ray Tune runs: a light stand-in for a trial that sends its work to the lanes, rung by rung."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import tune

from orchestrator.trials import Answer, Job, TrialKey, trial_seed


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
    """One step is one rung. The configuration is a trial's ``study``, ``number``, ``params`` and ``seed``."""

    def setup(self, config: dict[str, Any], work: Work | None = None) -> None:
        """Begin a trial; ``work`` comes with the first."""
        if work:
            self._work = work
        self._trial = TrialKey(config["study"], config["number"])
        self._params, self._seed = config["params"], config["seed"]
        self._step_done, self._seconds = 0, 0.0
        self._token: str | None = None

    def step(self) -> dict[str, Any]:
        """Train to the next rung and score there."""
        rungs = self._work.rungs
        job = Job(
            trial=self._trial,
            params=self._params,
            seed=trial_seed(self._seed, self._trial),
            start=self._step_done,
            stop=next(rung for rung in rungs if rung > self._step_done),
            total=rungs[-1],
            checkpoint=self._token,
        )
        answer: Answer = ray.get(self._work.broker.run.remote(job))
        self._step_done, self._token = answer.step, answer.checkpoint or self._token
        return self._result(answer)

    def _result(self, answer: Answer) -> dict[str, Any]:
        spent = sum(answer.facts.get(f"{kind}_seconds", 0.0) for kind in ("attach", "train", "evaluation"))
        before, self._seconds = self._seconds, spent or self._seconds
        return {
            "status": answer.status,
            "reason": answer.reason,
            "step": answer.step,
            "value": answer.metrics.get(self._work.metrics[self._trial.task], float("nan")),
            "lane_seconds": max(0.0, self._seconds - before),
            "metrics": answer.metrics,
            "facts": answer.facts,
            "checkpoint": answer.checkpoint,
            "done": answer.status != "done" or answer.step >= self._work.rungs[-1],
        }

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Let the process serve another trial."""
        self.setup(new_config)
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """The state itself is the lane's; this is where to find it."""
        token = {"step": self._step_done, "token": self._token, "seconds": self._seconds}
        (Path(checkpoint_dir) / "token.json").write_text(json.dumps(token))

    def load_checkpoint(self, checkpoint_dir: str) -> None:  # type: ignore[override]  # as its docstring says
        """Continue from a token."""
        token = json.loads((Path(checkpoint_dir) / "token.json").read_text())
        self._step_done, self._token, self._seconds = token["step"], token["token"], token["seconds"]
