"""A frozen backbone by its name, for training and using adapters outside of a sweep."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from methods.base.spec import Quantization
from orchestrator.backbone.shared import SharedBackbone, load
from orchestrator.backbone.source import resolve
from orchestrator.backbone.store import cache_folder, fetch, publish
from orchestrator.common.storage import Storage
from orchestrator.config import BackboneConfig, GpuSettings
from orchestrator.tasks import TASK_TYPES

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def pretrained(
    model: str,
    task: str,
    *,
    labels: int = 0,
    quantization: Quantization = "nf4",
    double_quantization: bool = True,
    revision: str | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    attention: str = "auto",
    gpu: GpuSettings | None = None,
) -> SharedBackbone:
    """Load a backbone, quantized once per machine, to attach methods or saved adapters to.

    A saved adapter is attached by :func:`methods.load_adapter`; quantization must be as in its training. Methods that
    train backbone weights attach to an unquantized backbone only, which holds the weights that they copy.

    Args:
        model: hub id, folder, GGUF file, or ``package:NAME/SUBFOLDER``.
        task: name of the task's type.
        labels: size of the classification head; 0 for a language model.
        quantization: storage form of the frozen layers.
        double_quantization: whether the scales of 4-bit weights are quantized too.
        revision: commit, tag or branch on the hub.
        dtype: dtype of frozen products.
        device: device to put the backbone on, ``cuda:0`` for instance.
        attention: implementation of attention: ``auto``, ``sdpa``, ``eager`` or ``flash_attention_2``.
        gpu: how to compute on a GPU; ignored on a CPU.

    Raises:
        InputError: if there is no such checkpoint, or transformers cannot load it for the task.
    """
    source = resolve(BackboneConfig(model=model, revision=revision), Path.cwd())
    cache = Storage(str(cache_folder()))
    published = publish(source, TASK_TYPES[task].auto_class, quantization, double_quantization, cache)
    file = fetch(published.digest, cache)
    return load(
        file,
        task,
        name=model,
        dtype=dtype,
        labels=labels,
        device=device,
        original=file if quantization == "none" else None,
        attention=attention,
        gpu=gpu,
    )


def pretrained_tokenizer(model: str, *, revision: str | None = None) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a backbone; where it has no padding token, the end-of-text token pads.

    Args:
        model: hub id, folder, GGUF file, or ``package:NAME/SUBFOLDER``.
        revision: commit, tag or branch on the hub.

    Raises:
        InputError: if there is no such checkpoint.
        OSError: if the checkpoint has no tokenizer.
    """
    return resolve(BackboneConfig(model=model, revision=revision), Path.cwd()).tokenizer()
