"""What one process does with one backbone: attach methods, train, score and save them, several in one pass.

The engine knows no Ray, Optuna or MLflow: lanes, notebooks and servers run it, and ``examples/engine.py`` shows how.
The way through the folder:

1. ``task_dataset`` holds a task's tokenized rows, ``evaluation`` scores a model on them, ``source_batches`` mixes
   several tasks.
2. ``trial_run`` is one trial: a method attached to a view of the backbone, its optimizer (``optimizers``) and
   ``learning_rate``, its random stream (``random_stream``) and its position in the data. It can be saved and restored
   between any two steps.
3. ``step`` takes a training step with several trials, or scores them. ``packing`` runs their forward passes in lockstep
   (with ``thread_state``), ``matmul`` computes a frozen layer once for all of them, and ``pack_sizes`` decides how many
   step together.
4. ``frozen_prefix`` computes the lowest blocks once per row, for all trials that leave them unchanged (``frozen_depth``
   finds how many those are, ``activation_cache`` keeps their output, ``skip_prefix`` feeds it into a trial's view).
5. ``micro_batches`` and ``micro_batch_memory`` split batches that do not fit into memory, which ``memory`` measures;
   ``checkpointed_blocks`` computes blocks again in the backward pass, and ``out_of_memory`` recognizes and frees.
6. ``ranks`` and ``data_parallel`` let several processes train one trial together.
7. ``measurements`` and ``forgetting`` are what a trial reports beside its score.

Names are imported at their first use, since torch and transformers take seconds to import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.common.lazy_names import lazy_names

if TYPE_CHECKING:
    from orchestrator.backbone.pretrained import pretrained, pretrained_tokenizer
    from orchestrator.engine.frozen_prefix import FrozenPrefix
    from orchestrator.engine.pack_sizes import PackSizes
    from orchestrator.engine.step import score_trials, train_step
    from orchestrator.engine.task_dataset import TaskDataset
    from orchestrator.engine.trial_run import DivergedError, TrialRun

__all__ = [
    "DivergedError",
    "FrozenPrefix",
    "PackSizes",
    "TaskDataset",
    "TrialRun",
    "pretrained",
    "pretrained_tokenizer",
    "score_trials",
    "train_step",
]
_MODULES = {
    "DivergedError": "orchestrator.engine.trial_run",
    "FrozenPrefix": "orchestrator.engine.frozen_prefix",
    "PackSizes": "orchestrator.engine.pack_sizes",
    "TaskDataset": "orchestrator.engine.task_dataset",
    "TrialRun": "orchestrator.engine.trial_run",
    "pretrained": "orchestrator.backbone.pretrained",
    "pretrained_tokenizer": "orchestrator.backbone.pretrained",
    "score_trials": "orchestrator.engine.step",
    "train_step": "orchestrator.engine.step",
}

__getattr__ = lazy_names(__name__, _MODULES)
