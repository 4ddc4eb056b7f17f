"""A frozen backbone by its name, for using adapters outside of a sweep."""

from __future__ import annotations

from pathlib import Path

import torch

from methods.base.spec import Quantization, TaskType
from orchestrator.backbone.shared import SharedBackbone, load
from orchestrator.backbone.source import resolve
from orchestrator.backbone.store import cache_folder, fetch, publish
from orchestrator.common.storage import Storage
from orchestrator.config import BackboneConfig

AUTO_CLASSES = {
    "classification": "AutoModelForSequenceClassification",
    "causal-lm": "AutoModelForCausalLM",
}


def pretrained(
    model: str,
    task: TaskType,
    *,
    labels: int = 0,
    quantization: Quantization = "nf4",
    double_quantization: bool = True,
    revision: str | None = None,
    dtype: torch.dtype = torch.float32,
) -> SharedBackbone:
    """The backbone that :func:`methods.load_adapter` attaches a saved adapter to; quantized once per machine.

    Args:
        model: hub id, folder, GGUF file, or ``package:NAME/SUBFOLDER``.
        task: the type of the adapter's task.
        labels: size of the classification head; 0 for a language model.
        quantization: as the adapter was trained.
        double_quantization: as the adapter was trained.
        revision: commit, tag or branch on the hub.
        dtype: what frozen layers multiply in.

    Raises:
        InputError: if there is no such checkpoint, or transformers cannot load it for the task.
    """
    source = resolve(BackboneConfig(model=model, revision=revision), Path.cwd())
    cache = Storage(str(cache_folder()))
    published = publish(source, AUTO_CLASSES[task], quantization, double_quantization, cache)
    return load(fetch(published.digest, cache), task, name=model, dtype=dtype, labels=labels)
