"""What an adapter does to neutral text: nothing at the start, something once it is another model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import methods
from methods.base.spec import Attached
from orchestrator.backbone.checkpoint import write
from orchestrator.backbone.shared import SharedBackbone, load
from orchestrator.backbone.source import Source
from orchestrator.engine.forgetting import NEUTRAL, NeutralText
from orchestrator.tasks.causal_lm import CausalLM
from orchestrator.tasks.classification import Classification

LENGTH = 100  # some lines are cut, and some are padded


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> SharedBackbone:
    folder = tmp_path_factory.mktemp("decoder")
    sizes: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=60, intermediate_size=64, max_position_embeddings=128, initializer_range=0.2, **sizes
    )
    LlamaForCausalLM(config).save_pretrained(folder / "checkpoint")
    source = Source("tiny", folder / "checkpoint", "tiny", portable=False)
    write(source, "AutoModelForCausalLM", "nf4", True, folder / "tiny.safetensors")
    return load(folder / "tiny.safetensors", "causal-lm", name="tiny", dtype=torch.float32)


def tokenize(line: str) -> dict[str, list[int]]:
    """A tokenizer: a token for each letter."""
    return {"input_ids": [3 + ord(letter) % 57 for letter in line]}


def dataset_of(**changes: Any) -> Any:
    fields = {"type": CausalLM(), "text": SimpleNamespace(tokenizer=tokenize), "max_length": LENGTH, "pad": 0}
    return SimpleNamespace(**{**fields, **changes})


def attach(backbone: SharedBackbone, method: str, **params: Any) -> Attached:
    spec = methods.get(method)
    torch.manual_seed(1)
    neutral_text: Attached = spec.attach(backbone.view(1), spec.params_type.from_dict(params), backbone.context)
    return neutral_text


def lines() -> Iterator[list[int]]:
    for line in NEUTRAL.read_text().splitlines():
        yield tokenize(line)["input_ids"][:LENGTH]


def loss_line_by_line(model: Any) -> float:
    """Line by line, without padding, by the model's own logits."""
    total, count = 0.0, 0
    for ids in lines():
        with torch.no_grad():
            logits = model(
                input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.int64)
            ).logits
        log = logits[0, -len(ids) :].double().log_softmax(dim=-1)
        total -= sum(float(log[place, token]) for place, token in enumerate(ids[1:]))
        count += len(ids) - 1
    return total / count


def test_neutral_loss_counts_every_token_but_the_first(decoder: SharedBackbone) -> None:
    neutral_text = NeutralText.for_backbone(decoder, dataset_of())
    assert neutral_text
    assert neutral_text.backbone_loss == pytest.approx(loss_line_by_line(decoder.view(0)), abs=1e-4)


def test_forgetting_is_zero_until_the_adapter_changes(decoder: SharedBackbone) -> None:
    neutral_text = NeutralText.for_backbone(decoder, dataset_of())
    assert neutral_text
    lora = attach(decoder, "lora")
    assert neutral_text.forgetting(lora) == pytest.approx(0, abs=1e-6)
    with torch.no_grad():
        for parameter in lora.trainable().values():
            parameter.add_(torch.randn_like(parameter))
    assert abs(neutral_text.forgetting(lora)) > 0.01
    assert neutral_text.forgetting(lora) == pytest.approx(
        loss_line_by_line(lora.module) - neutral_text.backbone_loss, abs=1e-4
    )


def test_forgetting_skips_the_positions_of_soft_prompts(decoder: SharedBackbone) -> None:
    neutral_text = NeutralText.for_backbone(decoder, dataset_of())
    prompt = attach(decoder, "prompt", tokens=4)
    assert neutral_text
    assert neutral_text.forgetting(prompt) == pytest.approx(
        loss_line_by_line(prompt.module) - neutral_text.backbone_loss, abs=1e-4
    )


def test_forgetting_leaves_the_random_stream_unchanged(decoder: SharedBackbone) -> None:
    neutral_text = NeutralText.for_backbone(decoder, dataset_of())
    lora = attach(decoder, "lora", dropout=0.5)
    assert neutral_text
    before = torch.get_rng_state()
    assert neutral_text.forgetting(lora) == neutral_text.forgetting(lora)
    assert torch.equal(before, torch.get_rng_state())


def test_forgetting_needs_a_language_model_and_a_tokenizer(decoder: SharedBackbone) -> None:
    assert NeutralText.for_backbone(decoder, dataset_of(type=Classification())) is None
    assert NeutralText.for_backbone(decoder, dataset_of(text=None)) is None


def test_neutral_text_is_short() -> None:
    assert 10 <= len(list(lines())) <= 40
    assert Path(NEUTRAL).stat().st_size < 4000
