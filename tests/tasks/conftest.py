from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from orchestrator.config import SweepConfig
from orchestrator.tasks import read_task


@pytest.fixture
def read(tmp_path):
    """Reads a task of files in ``tmp_path``."""

    def find(data, seed=0, **settings):
        task = {"type": "classification", "text": "text", "label": "label", "data": data}
        if settings.get("type") == "causal-lm":
            task = {"type": "causal-lm", "prompt": "text", "completion": "label", "data": data}
        values = {"backbone": {"model": "x"}, "tasks": {"mail": {**task, **settings}}, "budget": {"trials": 1}}
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
