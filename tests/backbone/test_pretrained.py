"""A backbone by its name: which weights methods may train on it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

import methods
from methods.base.spec import MethodError
from orchestrator.backbone.pretrained import pretrained
from orchestrator.backbone.source import Source

from .conftest import LABELS

TOKENS = torch.tensor([[5, 6, 7, 8]])


@pytest.fixture
def folder(sources: Callable[..., Source], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("PEFT_SWEEP_CACHE", str(tmp_path / "cache"))
    return str(sources("bert").path)


@pytest.mark.parametrize("method", ["full", "last_layers"])
def test_pretrained_unquantized_backbone_lets_its_own_weights_train(folder: str, method: str) -> None:
    backbone = pretrained(folder, "classification", labels=LABELS, quantization="none")
    spec = methods.get(method)
    attached = spec.attach(backbone.view(3), spec.params_type(), backbone.context)
    attached.train(False)
    plain = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=LABELS).eval()
    for head in backbone.context.head:
        plain.get_submodule(head).load_state_dict(attached.module.get_submodule(head).state_dict())
    with torch.no_grad():
        logits = attached.module(input_ids=TOKENS).logits
        torch.testing.assert_close(logits, plain(input_ids=TOKENS).logits, atol=1e-5, rtol=1e-5)
    trained = dict(attached.module.named_parameters())["bert.encoder.layer.1.output.dense.weight"]
    weight = plain.get_parameter("bert.encoder.layer.1.output.dense.weight")
    assert trained.requires_grad
    assert torch.equal(trained, weight)


def test_pretrained_quantized_backbone_has_no_original_weights(folder: str) -> None:
    backbone = pretrained(folder, "classification", labels=LABELS)
    spec = methods.get("full")
    with pytest.raises(MethodError, match="the original weights are needed: the unquantized checkpoint was not"):
        spec.attach(backbone.view(3), spec.params_type(), backbone.context)
