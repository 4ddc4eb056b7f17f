"""Which checkpoints nothing will read again, as the journal's events tell.

A trial continues from its last rung. Of the trials that have ended the final reads, of each method, the best one and
the first, which has the default configuration; the adapters of complete trials are kept for ``export``, and hold no
state of an optimizer. Of all other trials nothing is needed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.common.trial_types import TrialKey, checkpoint_path, partial_state_folder, trial_folder
from orchestrator.journal.events import Event


@dataclass
class _Trial:
    key: TrialKey
    place: int
    step: int = 0
    value: float = math.nan
    complete: bool = False


class UnneededCheckpoints:
    """Follows a journal from its first event on, and tells which checkpoints each event makes unneeded.

    A checkpoint that is told must not be deleted before the journal up to that event is where it cannot be lost: a
    sweep that is resumed without the event still reads the checkpoint.
    """

    def __init__(self) -> None:
        self._higher_is_better: dict[str, bool] = {}
        self._trials: dict[str, _Trial] = {}
        self._best: dict[str, _Trial] = {}  # by study, among those that have ended
        self._kept: dict[str, list[_Trial]] = {}  # by task, those that ended before the last rung

    def after(self, event: Event) -> list[str]:
        """Return the folders that are not needed any more after an event, relative to the sweep's folder."""
        match event["event"]:
            case "sweep":
                self._higher_is_better = {name: task["higher_is_better"] for name, task in event["tasks"].items()}
            case "trial":
                self._trials[event["trial"]] = _Trial(TrialKey.parse(event["trial"]), len(self._trials))
            case "rung":
                return list(self._after_rung(self._trials[event["trial"]], event))
            case "end":
                return list(self._after_end(self._trials[event["trial"]], event["state"]))
            case "answer":
                return [partial_state_folder(event["job"].rsplit(":", 2)[0])]
            case "selection":
                trials = self._kept.pop(event["task"], [])
                return [checkpoint_path(trial.key, trial.step) for trial in trials]
        return []

    def _after_rung(self, trial: _Trial, event: Event) -> Iterator[str]:
        if trial.step:
            yield checkpoint_path(trial.key, trial.step)
        trial.step, trial.value = event["step"], math.nan if event["value"] is None else event["value"]

    def _after_end(self, trial: _Trial, state: str) -> Iterator[str]:
        trial.complete = state == "complete"
        kept = self._kept.setdefault(trial.key.task, [])
        is_finite = math.isfinite(trial.value)
        best = self._best.get(trial.key.study)
        if is_finite and state in ("complete", "pruned") and (best is None or self._rank(trial) > self._rank(best)):
            self._best[trial.key.study] = trial
            if best in kept and best.key.number:
                kept.remove(best)
                yield trial_folder(best.key)
        elif not (trial.complete or (is_finite and trial.key.number == 0)):
            yield trial_folder(trial.key)
            return
        if trial.complete:
            yield partial_state_folder(str(trial.key))
        else:
            kept.append(trial)

    def _rank(self, trial: _Trial) -> tuple[int, float, int]:
        """Return a key that orders trials as the final does: by rung, then by value, the earlier of two equal ones."""
        sign = 1 if self._higher_is_better.get(trial.key.task, True) else -1
        return trial.step, sign * trial.value, -trial.place
