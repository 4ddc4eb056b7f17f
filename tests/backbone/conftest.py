"""Tiny checkpoints of three architectures, as files on disk."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, GPT2Config, LlamaConfig

from orchestrator.backbone.checkpoint import write
from orchestrator.backbone.shared import SharedBackbone, load
from orchestrator.backbone.source import Source

AUTO_CLASSES = {"classification": "AutoModelForSequenceClassification", "causal-lm": "AutoModelForCausalLM"}
LABELS = 3
SHAPE: dict[str, Any] = {"vocab_size": 96, "initializer_range": 0.2, "pad_token_id": 0}
LAYERS: dict[str, Any] = {"num_hidden_layers": 2, "num_attention_heads": 4}
CONFIGS = {
    "bert": lambda: BertConfig(**SHAPE, **LAYERS, hidden_size=64, intermediate_size=128),
    "llama": lambda: LlamaConfig(**SHAPE, **LAYERS, hidden_size=64, intermediate_size=128, tie_word_embeddings=True),
    "gpt2": lambda: GPT2Config(**SHAPE, n_embd=64, n_layer=2, n_head=4, n_positions=64),
}


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def save_checkpoint(folder: Path, kind: str, task: str = "classification") -> Source:
    """As it would be published: the head of a classifier is not in it."""
    import transformers

    torch.manual_seed(7)
    model = getattr(transformers, AUTO_CLASSES[task]).from_config(CONFIGS[kind]()).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or "norm" in name.lower():
                parameter += 0.1 * torch.randn_like(parameter)
    (model if task == "causal-lm" else model.base_model).save_pretrained(folder)
    return Source(str(folder), folder, f"{kind}-{task}", portable=False)


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Source]:
    checkpoints: dict[tuple[str, str], Source] = {}

    def make(kind: str, task: str = "classification") -> Source:
        if (kind, task) not in checkpoints:
            checkpoints[kind, task] = save_checkpoint(tmp_path_factory.mktemp("checkpoint") / "model", kind, task)
        return checkpoints[kind, task]

    return make


@pytest.fixture
def share(sources: Callable[..., Source], tmp_path: Path) -> Callable[..., SharedBackbone]:
    """Quantizes a checkpoint into a file and maps that."""

    def make(kind: str, task: Any = "classification", quantization: Any = "nf4", double: bool = True) -> SharedBackbone:
        file = tmp_path / f"{kind}-{task}-{quantization}-{double}.safetensors"
        write(sources(kind, task), AUTO_CLASSES[task], quantization, double, file)
        labels = LABELS if task == "classification" else 0
        return load(file, task, name=kind, dtype=torch.float32, labels=labels)

    return make
