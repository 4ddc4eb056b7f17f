"""Checkpoints that cannot be used as they are, and what is said of them before anything is loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
    RobertaConfig,
    T5Config,
    T5ForConditionalGeneration,
)

from orchestrator.backbone.checkpoint import write
from orchestrator.backbone.examine import file_problems, own_head, positions, tokenizer_problems, weight_problems
from orchestrator.backbone.source import Source, resolve
from orchestrator.common.errors import InputError
from orchestrator.config import BackboneConfig

SIZES: dict[str, Any] = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 64, "pad_token_id": 0}
SIZES |= {"num_hidden_layers": 1, "num_attention_heads": 4}


@pytest.fixture
def folder(sources: Callable[..., Source], tmp_path: Path) -> Path:
    """A checkpoint to damage."""
    return Path(shutil.copytree(sources("bert").path, tmp_path / "model"))


def change_config(folder: Path, **fields: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def split(folder: Path) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "quantized": (lambda folder: change_config(folder, quantization_config={"quant_method": "gptq"}), "(gptq)"),
    "adapter": (lambda folder: (folder / "adapter_config.json").write_text("{}"), "adapter beside its weights"),
    "cut": (cut, "model.safetensors is damaged or was not copied as a whole"),
    "split": (split, "names model-2.safetensors, which is not there"),
    "pointer": (
        lambda folder: (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n"),
        "pointer of Git LFS",
    ),
    "no config": (lambda folder: (folder / "config.json").write_text("{"), "config.json is not JSON"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checkpoint_is_refused_in_one_line(folder: Path, damage: str) -> None:
    assert list(file_problems(folder)) == []
    change, words = DAMAGES[damage]
    change(folder)
    with pytest.raises(InputError, match=r"backbone\.model") as caught:
        resolve(BackboneConfig(model=str(folder)), Path())
    (line,) = caught.value.lines()
    assert words in line


def tokenizer_of(tokens: int, **special: str) -> PreTrainedTokenizerFast:
    words = {f"w{number}": number for number in range(tokens)}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="w0")), **special)


def test_tokenizer_that_is_larger_than_the_embeddings_is_told() -> None:
    config = BertConfig(**SIZES)
    assert list(tokenizer_problems(config, tokenizer_of(96, pad_token="w0"))) == []
    (problem,) = tokenizer_problems(config, tokenizer_of(97, pad_token="w0"))
    assert "tokens up to 96, and its embeddings have 96 rows" in problem


def test_tokenizer_without_any_padding_token_is_told() -> None:
    (problem,) = tokenizer_problems(BertConfig(**SIZES), tokenizer_of(10))
    assert "neither a padding token nor an end-of-text token" in problem


def test_positions_leave_out_rows_that_no_token_uses() -> None:
    assert positions(BertConfig(**SIZES, max_position_embeddings=34)) == 34
    assert positions(RobertaConfig(**{**SIZES, "pad_token_id": 1}, max_position_embeddings=34)) == 32
    assert positions(T5Config(vocab_size=96)) is None


def test_roberta_takes_as_many_tokens_as_its_positions() -> None:
    from transformers import RobertaModel

    config = RobertaConfig(**{**SIZES, "pad_token_id": 1}, max_position_embeddings=34)
    model, most = RobertaModel(config).eval(), positions(config)
    assert most
    model(torch.full((1, most), 5))
    with pytest.raises((IndexError, RuntimeError)):
        model(torch.full((1, most + 1), 5))


def test_head_of_a_fine_tuned_classifier_is_left_out(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(**{**SIZES, "num_labels": 5}))
    model.save_pretrained(tmp_path / "model")
    source = Source("tuned", tmp_path / "model", "digest", portable=False)
    header = write(source, "AutoModelForSequenceClassification", "none", False, tmp_path / "backbone.safetensors")
    assert header.head == ("classifier",)
    assert own_head(source.path) == "BertForSequenceClassification"
    model.bert.save_pretrained(tmp_path / "bare")
    assert own_head(tmp_path / "bare") == own_head(tmp_path / "model.gguf") == ""


def test_checkpoint_that_lacks_a_layer_is_refused(folder: Path, tmp_path: Path) -> None:
    change_config(folder, num_hidden_layers=json.loads((folder / "config.json").read_text())["num_hidden_layers"] + 1)
    source = Source("short", folder, "digest", portable=False)
    with pytest.raises(InputError, match=r"its weights lack bert\.encoder\.layer\.\d+\.\S+ and \d+ more") as caught:
        write(source, "AutoModelForSequenceClassification", "none", False, tmp_path / "backbone.safetensors")
    assert len(caught.value.lines()) == 1
    assert not (tmp_path / "backbone.safetensors").exists()


@pytest.mark.parametrize("tied", [True, False])
def test_encoder_decoder_that_lacks_a_layer_is_refused(tied: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"vocab_size": 96, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 4}
    sizes["tie_word_embeddings"] = tied
    model = T5ForConditionalGeneration(T5Config(**sizes, pad_token_id=0))
    model.save_pretrained(tmp_path / "model")
    source = Source("t5", tmp_path / "model", "digest", portable=False)
    assert write(source, "AutoModelForSeq2SeqLM", "none", False, tmp_path / "whole").head == ()
    change_config(tmp_path / "model", num_layers=2)
    refused = r"its weights lack encoder\.block\.1\.\S+ and \d+ more, which the model has by its config\.json"
    with pytest.raises(InputError, match=refused):
        write(source, "AutoModelForSeq2SeqLM", "none", False, tmp_path / "short")


def test_weights_that_are_not_finite_are_counted_by_name(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    assert list(weight_problems(folder)) == []
    weights = load_file(folder / "model.safetensors")
    name = next(name for name, weight in weights.items() if weight.dim() == 2)
    weights[name][0, :2] = torch.tensor([float("nan"), float("inf")])
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    size = weights[name].numel()
    assert list(weight_problems(folder)) == [
        f"2 of {size:,} values of {name} in model.safetensors are NaN or infinite",
    ]
