"""Trial after trial in one process with all cores, as ``python -m benchmarks._baseline_loop COMPARISON.json``.

The checkpoint is read and quantized once; every trial has a copy of it, since `peft` writes into the model that it is
given and bitsandbytes repacks weights when they are evaluated.
"""

from __future__ import annotations

import copy
import json
import os
import sys
import time
from pathlib import Path

import torch

from benchmarks._baseline_trial import load_backbone, tokenized, train, with_adapter
from benchmarks._fixed_trials import Comparison


def main() -> None:
    """Do all trials; one JSON line as each ends."""
    asked = Comparison.read(Path(sys.argv[1]))
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    rows, backbone = tokenized(asked), load_backbone(asked.model, len(asked.labels))
    for seed, trial in enumerate(asked.trials):
        model = with_adapter(copy.deepcopy(backbone), trial.method, trial.params, seed)
        found = train(model, trial.params, rows, asked.steps, seed)
        print(json.dumps({"trial": seed, "time": time.time(), "score": found.score}), flush=True)


if __name__ == "__main__":
    main()
