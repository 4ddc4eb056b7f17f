"""One study per method and task: which configuration comes next.

What a study asks for depends on the seed, the study's name, the trial's number and the trials of its task before it,
and on nothing that is lost when the driver dies. Optuna is told what happened and asked where to look next; it decides
nothing else. The trials are kept here, as Optuna's samplers read them, and not in a storage of Optuna's: the journal of
the sweep is what is true, and a storage would look through all trials for each that it is asked for. For people, and
for Optuna's own tools, they are written to Optuna's file as well.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from orchestrator.common.trial_types import Ending, TrialRecord
from orchestrator.search.history import History, made
from orchestrator.search.optuna_file import OptunaFile, open_storage
from orchestrator.search.prior_gate import PriorGate
from orchestrator.search.queue import Queue
from orchestrator.search.samplers import SAMPLERS, propose
from orchestrator.search.settings import TrainingSettings
from search_spaces._base import SearchSpace

__all__ = ["Study", "open_storage"]

OWN_TURN = 3
"""Every so many trials the sampler has its own way: what suits other methods may not suit this one."""
Constraints = Callable[[Mapping[str, Any]], tuple[float, ...]]
ATTEMPTS = 16
"""How often a sampler is asked before a proposal that breaks a constraint is moved towards the default."""


class Study:
    """One method's trials on one task.

    Args:
        name: ``task/method``.
        space: where to look; its default is the first trial.
        higher_is_better: the direction of the metric.
        storage: Optuna's file.
        seed: the sweep's.
        sampler: one of :data:`orchestrator.search.samplers.SAMPLERS`.
        prior: configurations from earlier sweeps, tried after the default.
        constraints: what is known of a configuration before it is trained; only what has no value above 0 is proposed.
        settings: of the studies of its task; its own if left out.
        trust: in what the studies of its task borrow; its own if left out.

    Raises:
        ValueError: if the default breaks a constraint.
    """

    def __init__(
        self,
        name: str,
        space: SearchSpace,
        *,
        higher_is_better: bool,
        storage: OptunaFile,
        seed: int,
        sampler: str = "tpe",
        prior: Sequence[Mapping[str, Any]] = (),
        constraints: Constraints | None = None,
        settings: TrainingSettings | None = None,
        trust: PriorGate | None = None,
    ) -> None:
        self.name = name
        self.higher_is_better = higher_is_better
        self._space = space
        self._seed = seed
        self._sampler = SAMPLERS[sampler]
        self._constraints = constraints
        if not self._allowed(space.default):
            raise ValueError(f"the default configuration of {name} breaks a constraint")
        grid = sampler == "grid"
        self._queue = Queue(space, prior, allowed=self._allowed, grid=grid, seed=self._hash(-1))
        self._history = History(
            space.distributions,
            higher_is_better=higher_is_better,
            learns_from_rungs=self._sampler.learns_from_rungs,
            best=self._sampler.best,
            recent=self._sampler.recent,
        )
        self._settings = settings or TrainingSettings()
        self._settings.join(name, space, self._history, higher_is_better=higher_is_better)
        self._prior_gate = trust or PriorGate()
        self._prior_gate.join(self._history, self._queue.prior, higher_is_better=higher_is_better)
        self._file = storage
        self._file.create(name, higher_is_better=higher_is_better)

    @property
    def asked(self) -> int:
        """How many trials have started."""
        return len(self._history)

    def exhausted_by(self, trials: int) -> bool:
        """Whether so many trials have tried every point of its space."""
        return self._queue.length is not None and trials >= self._queue.length

    def ask(self) -> tuple[int, dict[str, Any]]:
        """Start the next trial: its number and its parameters."""
        number = self.asked
        params = self._queue.at(number, use_prior=self._prior_gate.use_prior)
        if params is None:
            params = self._sampled(number)
        self._start(params)
        return number, params

    def report(self, number: int, rung: int, value: float) -> None:
        """Record a running trial's result at a rung, counted from 0."""
        self._history.report(number, rung, value)
        self._file.report(self.name, number, rung, value)

    def tell(self, number: int, state: Ending, value: float, reason: str) -> None:
        """End a trial; only a complete one's value counts."""
        self._history.end(number, state, value)
        self._file.end(self.name, number, state, value, reason)

    def restore(self, records: Sequence[TrialRecord], rungs: Sequence[int]) -> None:
        """Take up the trials of an interrupted sweep; ask, report and tell go on from there.

        Args:
            records: all of the study's, in the order of their numbers.
            rungs: optimizer steps at which trials report.
        """
        for record in records:
            number = record.key.number
            self._start(dict(record.params))
            for step, value in record.values.items():
                self.report(number, rungs.index(step), value)
            if record.state != "running" and record.state != "paused":
                self.tell(number, record.state, record.value, record.reason)
        self._file.flush()

    def _start(self, params: Mapping[str, Any]) -> None:
        constraints = self._named(params)
        number = self.asked
        self._history.start(params, constraints)
        self._file.start(self.name, number, params, self._space.distributions, constraints)

    def _sampled(self, number: int) -> dict[str, Any]:
        """A proposal that breaks no constraint.

        The sampler is shown what it proposed in vain and asked again. If nothing it proposes will do, the last
        proposal takes the default's values, one after the other, until it does.
        """
        shown = self._history.shown()
        for attempt in range(ATTEMPTS):
            seed = self._hash(number, attempt)
            params = propose(self._sampler, seed, self._space, shown, higher_is_better=self.higher_is_better)
            if number < self._sampler.at_random and number % OWN_TURN:
                params |= self._settings.propose(self.name, seed)
            if self._allowed(params):
                return params
            shown.append(self._in_vain(number + attempt, params))
        for name in sorted(params):
            params[name] = self._space.default[name]
            if self._allowed(params):
                break
        return params

    def _in_vain(self, number: int, params: Mapping[str, Any]) -> FrozenTrial:
        trial = made(number, params, self._space.distributions, self._named(params))
        trial.state = TrialState.PRUNED
        return trial

    def _named(self, params: Mapping[str, Any]) -> dict[str, float]:
        """Constraints as Optuna takes them."""
        values = self._constraints(params) if self._constraints else ()
        return {f"constraint {place}": value for place, value in enumerate(values)}

    def _allowed(self, params: Mapping[str, Any]) -> bool:
        return self._constraints is None or all(value <= 0 for value in self._constraints(params))

    def _hash(self, number: int, attempt: int = 0) -> int:
        """A seed of 32 bits for whatever is random about a trial's parameters."""
        text = f"{self._seed}:{self.name}:{number}" + (f":{attempt}" if attempt else "")
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])
