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
from orchestrator.tasks import CausalLM, Classification

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


def read(line: str) -> dict[str, list[int]]:
    """A tokenizer: a token for each letter."""
    return {"input_ids": [3 + ord(letter) % 57 for letter in line]}


def rows(**changes: Any) -> Any:
    fields = {"type": CausalLM(), "text": SimpleNamespace(tokenizer=read), "max_length": LENGTH, "pad": 0}
    return SimpleNamespace(**{**fields, **changes})


def attached(backbone: SharedBackbone, method: str, **params: Any) -> Attached:
    spec = methods.get(method)
    torch.manual_seed(1)
    found: Attached = spec.attach(backbone.view(1), spec.params_type.from_dict(params), backbone.context)
    return found


def lines() -> Iterator[list[int]]:
    for line in NEUTRAL.read_text().splitlines():
        yield read(line)["input_ids"][:LENGTH]


def longhand(model: Any) -> float:
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


def test_the_bare_backbones_loss_is_that_of_every_token_but_the_first(decoder: SharedBackbone) -> None:
    found = NeutralText.of(decoder, rows())
    assert found
    assert found.bare == pytest.approx(longhand(decoder.view(0)), abs=1e-4)


def test_what_begins_as_the_backbone_forgets_nothing_until_it_is_changed(decoder: SharedBackbone) -> None:
    found = NeutralText.of(decoder, rows())
    assert found
    lora = attached(decoder, "lora")
    assert found.forgetting(lora) == pytest.approx(0, abs=1e-6)
    with torch.no_grad():
        for parameter in lora.trainable().values():
            parameter.add_(torch.randn_like(parameter))
    assert abs(found.forgetting(lora)) > 0.01
    assert found.forgetting(lora) == pytest.approx(longhand(lora.module) - found.bare, abs=1e-4)


def test_soft_prompts_are_read_past(decoder: SharedBackbone) -> None:
    found = NeutralText.of(decoder, rows())
    prompt = attached(decoder, "prompt", tokens=4)
    assert found
    assert found.forgetting(prompt) == pytest.approx(longhand(prompt.module) - found.bare, abs=1e-4)


def test_measuring_leaves_the_random_stream_alone(decoder: SharedBackbone) -> None:
    found = NeutralText.of(decoder, rows())
    lora = attached(decoder, "lora", dropout=0.5)
    assert found
    before = torch.get_rng_state()
    assert found.forgetting(lora) == found.forgetting(lora)
    assert torch.equal(before, torch.get_rng_state())


def test_where_there_is_no_language_model_or_no_tokenizer_nothing_is_measured(decoder: SharedBackbone) -> None:
    assert NeutralText.of(decoder, rows(type=Classification())) is None
    assert NeutralText.of(decoder, rows(text=None)) is None


def test_the_text_is_plain_and_short() -> None:
    assert 10 <= len(list(lines())) <= 40
    assert Path(NEUTRAL).stat().st_size < 4000
