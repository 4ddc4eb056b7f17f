"""Baseline with Ray's documented pattern: Ray Tune runs a function that starts a ``TorchTrainer`` for every trial.

``python -m benchmarks._baseline_tune COMPARISON.json`` reads a :class:`benchmarks._fixed_trials.Comparison` and prints
a JSON line per trial once all have ended, with its number, the Unix time in seconds at which Tune received its result,
and its validation macro-F1.

Each trainer's worker loads a backbone of its own. See "Hyperparameter Tuning with Ray Tune" in Ray Train's user guides.
The pattern is tuned for speed: as many concurrent trials as cores, one thread each, reused Tune actors, tokens in the
object store, no checkpoints, concurrent process starts, and a controller that polls its worker every 0.5 s instead of
the default 2 s.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks._fixed_trials import Comparison

ENVIRONMENT = {
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_maximum_startup_concurrency": "8",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",
}


def main() -> None:
    """Train and score all trials."""
    os.environ.update(ENVIRONMENT)
    import ray
    from ray import tune

    from benchmarks._baseline_trial import tokenize_splits

    comparison, cores = Comparison.read(Path(sys.argv[1])), len(os.sched_getaffinity(0))
    ray.init(num_cpus=cores, include_dashboard=False, runtime_env={"env_vars": ENVIRONMENT})
    with tempfile.TemporaryDirectory() as folder:
        tuner = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(
                    run_trial, comparison=comparison, splits=tokenize_splits(comparison), folder=folder
                ),
                {"CPU": 0.1},
            ),
            param_space={"trial": tune.grid_search(list(range(len(comparison.trials))))},
            tune_config=tune.TuneConfig(max_concurrent_trials=cores, reuse_actors=True),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        )
        results = tuner.fit()
    for result in (results[index] for index in range(len(results))):
        if result.error or result.metrics is None:
            raise RuntimeError(f"a trial failed: {result.error}")
        metrics = result.metrics
        print(
            json.dumps({"trial": metrics["config"]["trial"], "time": metrics["timestamp"], "score": metrics["score"]})
        )
    ray.shutdown()


def run_trial(config: dict[str, Any], *, comparison: Comparison, splits: Any, folder: str) -> None:
    """Start a training run of Ray Train with one worker; Tune calls this for every trial."""
    from ray import tune
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    untyped_callback: Any = TuneReportCallback  # Ray publishes no types for it
    TorchTrainer(
        train_in_worker,
        train_loop_config={"seed": config["trial"], "comparison": comparison, "splits": splits},
        scaling_config=ScalingConfig(num_workers=1, resources_per_worker={"CPU": 0.9}),
        run_config=RunConfig(
            name=f"train-{tune.get_context().get_trial_id()}",
            storage_path=folder,
            callbacks=[untyped_callback()],
        ),
    ).fit()


def train_in_worker(config: dict[str, Any]) -> None:
    """Load a backbone, train, score, and report the score; Ray Train calls this in a worker process."""
    import torch
    from ray import train as ray_train

    from benchmarks._baseline_trial import add_adapter, load_backbone, train

    torch.set_num_threads(1)
    os.environ.pop("LOCAL_RANK", None)  # if set, accelerate wraps the model for data-parallel training
    comparison, seed = config["comparison"], config["seed"]
    trial = comparison.trials[seed]
    backbone = load_backbone(comparison.model, len(comparison.labels))
    model = add_adapter(backbone, trial.method, trial.params, seed)
    ray_train.report({"score": train(model, trial.params, config["splits"], comparison.steps, seed).score})


if __name__ == "__main__":
    main()
