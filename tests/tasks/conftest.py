import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from methods.plugins import loader
from orchestrator.config import SweepConfig
from orchestrator.tasks import read_task


@pytest.fixture
def no_metric_files(monkeypatch):
    """Files of metrics that a test registers are unknown before it and after it."""
    monkeypatch.setattr(loader, "_SOURCES", {})
    yield
    for name in [name for name in sys.modules if name.startswith(f"{loader.PACKAGE}.")]:
        del sys.modules[name]


@pytest.fixture
def read(tmp_path):
    """Reads a task of files in ``tmp_path``."""

    def find(data, seed=0, **settings):
        task = {"type": "classification", "text": "text", "label": "label", "data": data}
        if settings.get("type") == "causal-lm":
            task = {"type": "causal-lm", "prompt": "text", "completion": "label", "data": data}
        task = {key: value for key, value in {**task, **settings}.items() if value is not None}
        values = {"backbone": {"model": "x"}, "tasks": {"mail": task}, "budget": {"trials": 1}}
        config = SweepConfig.model_validate(values).tasks["mail"]
        return read_task("mail", config, Path(tmp_path), seed)

    return find


@pytest.fixture(scope="session")
def tokenizer():
    """One token per character; padding is the end of sequence, as in many decoders."""
    vocabulary = {"</s>": 0, "<unk>": 1, **{chr(code): code - 30 for code in range(32, 127)}}
    model = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    model.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    model.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=model, eos_token="</s>", pad_token="</s>", unk_token="<unk>")


@pytest.fixture(scope="session")
def encoder():
    """A BERT with two layers and three classes, random but fixed."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"intermediate_size": 64, "num_labels": 3}
    config = BertConfig(vocab_size=97, max_position_embeddings=64, pad_token_id=0, **sizes)
    return BertForSequenceClassification(config).eval()


@pytest.fixture(scope="session")
def decoder_sizes():
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    return {"vocab_size": 97, "max_position_embeddings": 128, "pad_token_id": 0, "eos_token_id": 0, **sizes}


@pytest.fixture(scope="session")
def decoder(decoder_sizes):
    """A Llama with two layers, random but fixed."""
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(bos_token_id=None, **decoder_sizes)).eval()
