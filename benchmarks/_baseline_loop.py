"""Baseline without Ray: all trials in turn, in one process that uses all cores.

``python -m benchmarks._baseline_loop COMPARISON.json`` reads a :class:`benchmarks._fixed_trials.Comparison` and prints
a JSON line at the end of each trial, with its number, the Unix time in seconds, and its validation macro-F1.

The checkpoint is read and quantized once. Every trial gets a deep copy, since `peft` modifies the model that it wraps,
and bitsandbytes repacks weights when a model is put into evaluation mode.
"""

from __future__ import annotations

import copy
import json
import os
import sys
import time
from pathlib import Path

import torch

from benchmarks._baseline_trial import add_adapter, load_backbone, tokenize_splits, train
from benchmarks._fixed_trials import Comparison


def main() -> None:
    """Train and score all trials."""
    comparison = Comparison.read(Path(sys.argv[1]))
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    splits, backbone = tokenize_splits(comparison), load_backbone(comparison.model, len(comparison.labels))
    for seed, trial in enumerate(comparison.trials):
        model = add_adapter(copy.deepcopy(backbone), trial.method, trial.params, seed)
        result = train(model, trial.params, splits, comparison.steps, seed)
        print(json.dumps({"trial": seed, "time": time.time(), "score": result.score}), flush=True)


if __name__ == "__main__":
    main()
