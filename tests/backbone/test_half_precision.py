"""A float16 checkpoint where frozen products are computed in bfloat16: no activation stays in float16."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from orchestrator.backbone.checkpoint import write
from orchestrator.backbone.shared import SharedBackbone, load
from orchestrator.backbone.source import Source

from .conftest import AUTO_CLASSES, CONFIGS, LABELS

Load = Callable[[torch.dtype], SharedBackbone]


@pytest.fixture
def half(tmp_path: Path) -> Load:
    """Loads a float16 checkpoint of a decoder, which lacks the classifier's head."""
    torch.manual_seed(5)
    model: Any = transformers.AutoModelForSequenceClassification.from_config(CONFIGS["llama"]()).half()
    model.base_model.save_pretrained(tmp_path / "model")
    source = Source("half", tmp_path / "model", "", portable=False)
    write(source, AUTO_CLASSES["classification"], "nf4", True, tmp_path / "backbone")

    def make(dtype: torch.dtype) -> SharedBackbone:
        return load(tmp_path / "backbone", "classification", name="half", dtype=dtype, labels=LABELS)

    return make


def _activations(backbone: SharedBackbone) -> set[torch.dtype]:
    """Return the dtypes of what passes between modules."""
    view, seen = backbone.view(0), set[torch.dtype]()

    def note(_: object, __: object, output: Any) -> None:
        seen.update(t.dtype for t in (output if isinstance(output, tuple) else [output]) if torch.is_tensor(t))

    for module in view.modules():
        module.register_forward_hook(note)
    ids = torch.tensor([[5, 6, 7]])
    view(input_ids=ids, attention_mask=torch.ones_like(ids))
    return {dtype for dtype in seen if dtype.is_floating_point}


def test_half_precision_checkpoint_computes_in_bfloat16_between_layers(half: Load) -> None:
    backbone = half(torch.bfloat16)
    assert torch.float16 not in _activations(backbone)
    tensors = [*backbone.view(0).parameters(), *backbone.model.buffers()]
    assert torch.float16 not in {tensor.dtype for tensor in tensors}


def test_half_precision_checkpoint_keeps_its_dtype_with_float32_products(half: Load) -> None:
    backbone = half(torch.float32)
    assert {parameter.dtype for parameter in backbone.model.parameters()} == {torch.float16}


def test_half_precision_values_beyond_float16_stay_finite(half: Load) -> None:
    backbone = half(torch.bfloat16)
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        embedding: Any = backbone.model.get_input_embeddings().weight
        embedding.mul_(1e6)
        logits = backbone.view(0)(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    assert logits.isfinite().all()


def test_half_precision_leaves_the_checksum(half: Load) -> None:
    """It is of what is stored, and always computed for float32 products."""
    assert half(torch.float32).checksum() == half(torch.float32).checksum() != half(torch.bfloat16).checksum()
