"""A folder that a sweep has left: a tiny backbone, a trial with an adapter, and the journal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import methods
from orchestrator.backbone.shared import load
from orchestrator.backbone.source import resolve
from orchestrator.backbone.store import fetch, publish
from orchestrator.common.storage import Storage
from orchestrator.common.trial_types import TrialKey, checkpoint_path
from orchestrator.config import BackboneConfig
from orchestrator.export import Exported, export
from orchestrator.journal.events import Journal
from orchestrator.tasks import TASK_TYPES

WORDS = ["good", "bad", "fine", "poor", "great", "awful", "kind", "rude", "late", "early"]
LABELS = ("negative", "neutral", "positive")
SWEEP = "mail-20261121-220300"
SHAPE: dict[str, Any] = {"vocab_size": 32, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
SHAPE |= {"intermediate_size": 128, "max_position_embeddings": 64, "pad_token_id": 0, "eos_token_id": 1}
SHAPE |= {"initializer_range": 0.2}
GPT2: dict[str, Any] = {"vocab_size": 32, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
GPT2 |= {"initializer_range": 0.2, "bos_token_id": 1, "eos_token_id": 1}
T5: dict[str, Any] = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("BertConfig", SHAPE),
    "gpt2": ("GPT2Config", GPT2),  # transposed weights, tied embeddings, no padding token
    "llama": ("LlamaConfig", {**SHAPE, "num_key_value_heads": 2, "bos_token_id": None}),
    "t5": ("T5Config", {"vocab_size": 32, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4} | T5),
    "qwen3": ("Qwen3Config", {**SHAPE, "num_key_value_heads": 2, "head_dim": 16, "dtype": "bfloat16"}),
}


@dataclass(frozen=True)
class Left:
    """A folder with a sweep's checkpoint, as export finds it."""

    storage: Path
    trial: str
    checkpoint: Path

    def export(self, out: Path, *, merged: bool = False, dtype: str | None = None, trial: str = "") -> Exported:
        reference = f"{SWEEP}/{trial or self.trial}"
        return export(reference, merged=merged, out=out, dtype=dtype, storage=str(self.storage), tracking_uri="")


Leave = Callable[..., Left]


def left_in(tmp_path: Path) -> Leave:
    """Plays a sweep of one trial: a tiny backbone, an adapter that was moved at random, a journal."""

    def made(kind: str, task: str, method: str, plugins: tuple[Path, ...] = (), **params: Any) -> Left:
        checkpoint, storage = tmp_path / "checkpoint", Storage(str(tmp_path / "sweeps"))
        write_checkpoint(checkpoint, kind, task)
        source, auto_class = resolve(BackboneConfig(model=str(checkpoint)), Path("/")), TASK_TYPES[task].auto_class
        published = publish(source, auto_class, "nf4", True, storage)
        original = publish(source, auto_class, "none", False, storage)
        labels = LABELS if task == "classification" else ()
        shared = load(
            fetch(published.digest, storage),
            task,
            name=str(checkpoint),
            dtype=torch.float32,
            labels=len(labels),
            original=fetch(original.digest, storage),
        )
        spec, folder, trial = methods.get(method), tmp_path / "sweeps" / SWEEP, f"mail/{method}/3"
        torch.manual_seed(5)
        attached = spec.attach(shared.view(3), spec.params_type.from_dict(params), shared.context)
        with torch.no_grad():
            for parameter in attached.trainable().values():
                parameter.add_(0.1 * torch.randn_like(parameter))
        adapter = folder / checkpoint_path(TrialKey.parse(trial), 4) / "adapter"
        adapter.mkdir(parents=True)
        attached.save(adapter)
        source.tokenizer().save_pretrained(folder / "tokenizer")
        journal = Journal(folder / "journal.jsonl")
        journal.append(
            "sweep",
            sweep=SWEEP,
            config={"tasks": {"mail": {"type": task}}, "plugins": [str(file) for file in plugins]},
            tasks={"mail": {"labels": list(labels)}},
            backbone={
                "model": str(checkpoint),
                "revision": None,
                "quantization": "nf4",
                "double_quantization": True,
                "compute_dtype": "auto",
                "digest": {"mail": published.digest},
                "checksum": {"mail": shared.checksum()},
            },
        )
        journal.append("trial", trial=trial, params=params)
        journal.append("rung", trial=trial, step=2, value=0.4)
        journal.append("rung", trial=trial, step=4, value=0.5)
        journal.append("trial", trial=f"mail/{method}/4", params=params)
        journal.append("end", trial=f"mail/{method}/4", state="failed", reason="ValueError: no luck")
        return Left(tmp_path / "sweeps", trial, checkpoint)

    return made


def write_checkpoint(folder: Path, kind: str, task: str) -> None:
    """A random one without a head for classification, as published, and a tokenizer of a few words."""
    name, values = CONFIGS[kind]
    config = getattr(transformers, name)(**values)
    torch.manual_seed(7)
    auto_class = "AutoModel" if task == "classification" else TASK_TYPES[task].auto_class
    auto = getattr(transformers, auto_class)
    auto.from_config(config, dtype=config.dtype or torch.float32).save_pretrained(folder)
    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[END]", "[UNK]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "[PAD]", "eos_token": "[END]", "unk_token": "[UNK]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
