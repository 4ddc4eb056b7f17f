"""Tune's searcher, scheduler and stopper under a real Tune, with a trainable that trains nothing."""

from __future__ import annotations

import copy
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"

import ray
from ray import cloudpickle, tune

from orchestrator.lanes.endings import RESTARTS
from orchestrator.lanes.tune import CoreScheduler, CoreSearcher, CoreStopper
from orchestrator.lanes.tune_bridge import TuneBridge

pytestmark = pytest.mark.ray

RUNGS = (25, 50, 100)


@pytest.fixture(scope="module", autouse=True)
def _ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    os.environ["TOY_FOLDER"] = str(tmp_path_factory.mktemp("toys"))
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def is_first(name: str) -> bool:
    """Return whether no process has asked for this name before."""
    marker = Path(os.environ["TOY_FOLDER"]) / name
    was_there = marker.exists()
    marker.touch()
    return not was_there


class Toy(tune.Trainable):
    """Reports a curve; by its number a trial's first process raises or dies, or it reports a failure, or the end."""

    def setup(self, config: dict[str, Any]) -> None:
        self.config = config
        self.rung = RUNGS.index(config["start"]) + 1 if config["start"] else 0

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        number = self.config["number"]
        step = RUNGS[self.rung]
        self.rung += 1
        if step == 50 and number == 1 and is_first("raised"):
            raise RuntimeError("the lane\nran out of luck")
        if step == 50 and number == 2:
            return {"status": "failed", "reason": "out of memory", "step": 25}
        if step == 25 and number == 3 and is_first("died"):
            os._exit(1)
        value = 1 / (1 + number) + step / 1000  # earlier trials are better, and continue where they paused
        return {
            "status": "done",
            "step": step,
            "value": value,
            "metrics": [("macro_f1", value)],
            "measurements": [("trainable", 64.0), ("train_seconds", float(self.rung))],
            "done": step == RUNGS[-1] and number == 0,
        }


def fit(sweep: Any, trainable: type[tune.Trainable], folder: Path, *callbacks: tune.Callback) -> tune.ResultGrid:
    bridge = TuneBridge(sweep.search)
    return tune.Tuner(
        tune.with_resources(trainable, {"cpu": 0.1}),
        tune_config=tune.TuneConfig(
            search_alg=CoreSearcher(sweep.search, bridge),
            scheduler=CoreScheduler(bridge),
            num_samples=-1,
            max_concurrent_trials=3,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            storage_path=str(folder),
            name="tune",
            stop=CoreStopper(sweep.search),
            failure_config=tune.FailureConfig(max_failures=RESTARTS),
            callbacks=list(callbacks),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=0,
        ),
    ).fit()


class Steps(tune.Callback):
    """Keeps the last step of each trial that Tune received."""

    def __init__(self) -> None:
        self.last: dict[int, int] = {}

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any) -> None:
        if "step" in result:
            self.last[trial.config["number"]] = result["step"]


def test_tune_follows_the_core_and_every_trial_ends(make_sweep: Any, tmp_path: Path) -> None:
    sweep = make_sweep(("mail/lora",), trials=16)
    steps = Steps()
    results = fit(sweep, Toy, tmp_path, steps)
    promoted = sweep.events("promote")
    assert sweep.events("pause")
    assert len(results) == 16 + len(promoted)
    open_trials = sweep.search.close("finished")
    assert open_trials == tuple(record.key for record in sweep.search.trials() if record.reason.startswith("behind"))
    ended = sweep.ended()
    assert len(ended) == 16
    assert ended["mail/lora/0"] == "complete"  # its last result had done: true, which Tune passes to no scheduler
    assert {key for key, state in ended.items() if state == "failed"} == {"mail/lora/2"}, "of its own"
    assert {path.name for path in Path(os.environ["TOY_FOLDER"]).iterdir()} == {"raised", "died"}
    assert Counter(ended.values())["pruned"] >= 3
    reasons = {record.key.number: record.reason for record in sweep.search.trials()}
    assert reasons[2] == "out of memory"
    rung = sweep.events("rung")[0]
    assert rung["metrics"] == {"macro_f1": rung["value"]}
    assert (rung["measurements"], rung["lane_seconds"]) == ({"trainable": 64.0, "train_seconds": 1.0}, 1.0)
    for record in sweep.search.trials():
        if record.state in ("complete", "pruned"):  # no step was trained after the core said stop
            assert steps.last[record.key.number] == record.step
    sweep.assert_optuna_agrees()


class Endless(Toy):
    """Reports once, and then never again."""

    def step(self) -> dict[str, Any]:
        if self.rung:
            threading.Event().wait()
        return super().step()


class After(tune.Callback):
    """Runs an action on the driver after the third result."""

    def __init__(self, action: Callable[[], Any]) -> None:
        self._action = action
        self._results = 0

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tuner pickles its callbacks, and an action holds a lock

    def on_trial_result(self, *args: Any, **kwargs: Any) -> None:
        self._results += 1
        if self._results == 3:
            self._action()


@pytest.mark.parametrize(("reason", "state"), [("budget", "pruned"), ("interrupted", "running")])
def test_tune_run_ends_between_two_rungs(make_sweep: Any, tmp_path: Path, reason: str, state: str) -> None:
    sweep = make_sweep(("mail/lora", "mail/ia3"), halving=None, wall_seconds=100)

    def time_goes_by() -> None:
        sweep.clock.now += 100

    def interrupt() -> None:
        threading.Thread(target=sweep.search.close, args=("interrupted",)).start()

    fit(sweep, Endless, tmp_path, After(time_goes_by if reason == "budget" else interrupt))
    assert [record.state for record in sweep.search.trials()] == [state] * 3, "an interruption ends no trial"
    assert [event["reason"] for event in sweep.events("end")] == ["budget"] * 3 * (reason == "budget")
    assert all(list(record.values) == [25] for record in sweep.search.trials())


def test_tune_adapters_are_not_copied_with_their_search(make_sweep: Any) -> None:
    search = make_sweep().search
    bridge = TuneBridge(search)
    for adapter in (CoreSearcher(search, bridge), CoreScheduler(bridge), CoreStopper(search)):
        assert copy.deepcopy(adapter) is adapter
        assert not vars(cloudpickle.loads(cloudpickle.dumps(adapter)))
