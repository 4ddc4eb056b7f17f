"""Ray's documented pattern, as ``python -m benchmarks._baseline_tune COMPARISON.json``: a ``TorchTrainer`` per trial.

Ray Tune runs a function that starts a trainer, whose worker loads its own backbone. See "Hyperparameter Tuning with Ray
Tune" in Ray Train's user guides. What helps within the pattern is done: as many trials at once as there are cores, one
thread each, actors of Tune used again, tokens read from the object store, no checkpoints, processes that start side by
side, and a controller that looks after its worker four times as often as by default, so that nothing waits for it.
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
    """Do all trials; a JSON line for each when all have ended, with the time at which Tune heard of it."""
    os.environ.update(ENVIRONMENT)
    import ray
    from ray import tune

    from benchmarks._baseline_trial import tokenized

    asked, cores = Comparison.read(Path(sys.argv[1])), len(os.sched_getaffinity(0))
    ray.init(num_cpus=cores, include_dashboard=False, runtime_env={"env_vars": ENVIRONMENT})
    with tempfile.TemporaryDirectory() as folder:
        tuner = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(one_trial, asked=asked, rows=tokenized(asked), folder=folder), {"CPU": 0.1}
            ),
            param_space={"trial": tune.grid_search(list(range(len(asked.trials))))},
            tune_config=tune.TuneConfig(max_concurrent_trials=cores, reuse_actors=True),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        )
        results = tuner.fit()
    for result in (results[place] for place in range(len(results))):
        if result.error or result.metrics is None:
            raise RuntimeError(f"a trial failed: {result.error}")
        own = result.metrics
        print(json.dumps({"trial": own["config"]["trial"], "time": own["timestamp"], "score": own["score"]}))
    ray.shutdown()


def one_trial(config: dict[str, Any], *, asked: Comparison, rows: Any, folder: str) -> None:
    """What Tune runs: a whole training run of Ray Train with one worker."""
    from ray import tune
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    to_tune: Any = TuneReportCallback  # it has no types
    TorchTrainer(
        in_worker,
        train_loop_config={"seed": config["trial"], "asked": asked, "rows": rows},
        scaling_config=ScalingConfig(num_workers=1, resources_per_worker={"CPU": 0.9}),
        run_config=RunConfig(
            name=f"train-{tune.get_context().get_trial_id()}",
            storage_path=folder,
            callbacks=[to_tune()],
        ),
    ).fit()


def in_worker(config: dict[str, Any]) -> None:
    """What Ray Train runs in a process of its own: load, train, score, report."""
    import torch
    from ray import train as ray_train

    from benchmarks._baseline_trial import load_backbone, train, with_adapter

    torch.set_num_threads(1)
    os.environ.pop("LOCAL_RANK", None)  # or accelerate wraps the model for data-parallel training with nobody else
    asked, seed = config["asked"], config["seed"]
    trial = asked.trials[seed]
    backbone = load_backbone(asked.model, len(asked.labels))
    model = with_adapter(backbone, trial.method, trial.params, seed)
    ray_train.report({"score": train(model, trial.params, config["rows"], asked.steps, seed).score})


if __name__ == "__main__":
    main()
