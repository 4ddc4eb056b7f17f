from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from orchestrator.backbone.checkpoint import write
from orchestrator.backbone.shared import SharedBackbone, load
from orchestrator.backbone.source import Source
from orchestrator.tasks.causal_lm import CausalLM

from ..architectures import DECODERS, ENCODER_DECODERS, config_of


def backbone_of(name: str, task: str, folder: Path) -> SharedBackbone:
    auto_class = {"causal-lm": "AutoModelForCausalLM", "classification": "AutoModelForSequenceClassification"}[task]
    torch.manual_seed(3)
    model = getattr(transformers, auto_class).from_config(config_of(name))
    (model if task == "causal-lm" else model.base_model).save_pretrained(folder / "checkpoint")
    source = Source("tiny", folder / "checkpoint", "tiny", portable=False)
    write(source, auto_class, "nf4", True, folder / "tiny.safetensors")
    return load(folder / "tiny.safetensors", task, name="tiny", dtype=torch.float32, labels=3 * (task != "causal-lm"))


def inputs() -> dict[str, Tensor]:
    ids = torch.randint(3, 100, (2, 6), generator=torch.Generator().manual_seed(1))
    ids[:, -1] = 1  # encoder-decoders classify at the end-of-text token
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


@pytest.mark.parametrize("task", ["causal-lm", "classification"])
@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma3", "opt", "mixtral", "phi"])
def test_decoders_keep_no_keys_and_values(name: str, task: str, tmp_path: Path) -> None:
    assert backbone_of(name, task, tmp_path).view(1)(**inputs()).past_key_values is None


@pytest.mark.parametrize("name", sorted(ENCODER_DECODERS))
def test_encoder_decoders_keep_no_keys_and_values(name: str, tmp_path: Path) -> None:
    assert backbone_of(name, "classification", tmp_path).view(1)(**inputs()).past_key_values is None


@pytest.mark.parametrize("name", sorted(DECODERS))
def test_generation_keeps_keys_and_values(name: str, tmp_path: Path, tokenizer_of_numbers: Any) -> None:
    view = backbone_of(name, "causal-lm", tmp_path).view(1)
    widths: list[int] = []
    view.get_output_embeddings().register_forward_hook(lambda _, args, __: widths.append(args[0].shape[1]))
    view.get_input_embeddings().register_forward_hook(lambda _, args, __: widths.append(args[0].shape[1]))
    CausalLM(tokenizer=tokenizer_of_numbers, max_new_tokens=3).generate(
        view, list(inputs()["input_ids"].int().numpy()), 0
    )
    assert widths[2:] == [1] * len(widths[2:])
    assert len(widths) > 2


@pytest.fixture
def tokenizer_of_numbers() -> Any:
    class Numbers:
        eos_token_id = 1000  # none of the vocabulary

        def batch_decode(self, ids: Tensor, **_: object) -> list[str]:
            return [" ".join(map(str, row.tolist())) for row in ids]

    return Numbers()
