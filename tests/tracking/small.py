"""A small bundle to register: nothing is trained, the adapter is random, and the rows are scored as lanes do it."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import methods
import search_spaces
from methods.base.spec import TaskText
from orchestrator.backbone.checkpoint import Header
from orchestrator.backbone.shared import load
from orchestrator.backbone.source import resolve
from orchestrator.backbone.store import fetch, publish
from orchestrator.common.storage import Storage
from orchestrator.config import BackboneConfig
from orchestrator.tasks import TASK_TYPES
from orchestrator.tasks.batches import evaluation_batches
from orchestrator.tasks.tokens import lengths
from orchestrator.tracking.bundle import Bundle, BundleBackbone, Environment, write_bundle
from orchestrator.tracking.error_tables import ErrorTables
from orchestrator.tracking.evaluation import with_digests, with_rows
from orchestrator.tracking.modelcard import model_card

from ..hub_cache import download

WORDS = ["good", "bad", "fine", "poor", "great", "awful", "kind", "rude", "late", "early"]
LABELS = ("negative", "neutral", "positive")
SIZES: dict[str, Any] = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


@dataclass(frozen=True)
class Made:
    """A bundle, its folder, and the inputs that it was scored on."""

    folder: Path
    bundle: Bundle
    inputs: list[dict[str, Any]]
    checkpoint: Path
    rows: pa.Table


def make(
    place: Path,
    kind: str = "encoder",
    *,
    method: str = "lora",
    carry: bool = True,
    keep_rows: bool = True,
    hub: Path | None = None,
    **changes: Any,
) -> Made:
    """Put one together, of any method, with its defaults; ``changes`` go to its ``bundle.json``.

    With ``hub``, the backbone is one of the hub, and that folder the ``HF_HOME`` that it was downloaded to.
    """
    task = "classification" if kind == "encoder" else "causal-lm"
    labels = LABELS if kind == "encoder" else ()
    column = "text" if kind == "encoder" else "prompt"
    checkpoint = _checkpoint(place / "checkpoint", kind)
    storage = Storage(str(place / "storage"))
    source = download(checkpoint, hub) if hub else resolve(BackboneConfig(model=str(checkpoint)), Path("/"))
    published = publish(source, TASK_TYPES[task].auto_class, "nf4", True, storage)
    file = fetch(published.digest, storage)
    plain = fetch(publish(source, TASK_TYPES[task].auto_class, "none", True, storage).digest, storage)
    shared = load(file, task, name=source.name, dtype=torch.float32, labels=len(labels), original=plain)
    spec, rows = methods.get(method), _rows(task)
    params = spec.params_type.from_dict(search_spaces.get(method).default)
    text = TaskText(tokenizer=source.tokenizer(), labels=labels, max_length=16, examples=lambda _: [([3, 4], 0)])
    torch.manual_seed(5)
    attached = spec.attach(shared.view(3), params, replace(shared.context, text=text, sources=("first", "second")))
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in attached.trainable().values():
            if parameter.dim() > 1:  # a random bias would decide alone
                parameter.add_(torch.randn_like(parameter))
            else:
                parameter.add_(0.1 * torch.randn_like(parameter))
    attached.train(False)
    (place / "adapter").mkdir()
    attached.save(place / "adapter")
    tokens = TASK_TYPES[task].tokenize(rows, source.tokenizer(), 16)
    batches = evaluation_batches(lengths(tokens), 8)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    evaluation = TASK_TYPES[task].evaluate(attached.module, tokens, batches, 0, shared.decoder)
    torch.set_num_threads(threads)
    metric = "macro_f1" if kind == "encoder" else "perplexity"
    values: dict[str, Any] = {
        "task": "mail",
        "type": task,
        "labels": labels,
        "columns": {column: column},
        "max_length": 16,
        "evaluation_batch": 8,
        "backbone": BundleBackbone(
            model=source.name,
            revision=source.revision,
            quantization="nf4",
            double_quantization=True,
            compute_dtype="float32",
            digest=published.digest,
            checksum=shared.checksum(),
        ),
        "environment": Environment.here(threads=1),
        "metric": metric,
        "higher_is_better": kind == "encoder",
        "mean_score": evaluation.metrics[metric],
        "checkpoint_score": evaluation.metrics[metric],
        "seed_scores": (evaluation.metrics[metric],),
        "interval": (0.1, 0.9),
        "metrics": evaluation.metrics,
        "rows": {"train": 60, "validation": 20, "test": rows.num_rows},
        "majority": 0.4 if labels else None,
        "data_digest": "d" * 64,
        "sweep": "mail-20261121-220300",
        "trial": f"mail/{method}/0",
        "method": method,
        "params": params.to_dict(),
    }
    bundle = Bundle.model_validate({**values, **changes})
    source.tokenizer().save_pretrained(place / "tokenizer")
    errors = ErrorTables.of(bundle.task_type, rows, evaluation.predictions)
    write_bundle(
        place / "bundle",
        bundle,
        adapter=place / "adapter",
        tokenizer=place / "tokenizer",
        config=Header.read(file).config,
        evaluation=(with_rows if keep_rows else with_digests)(rows, evaluation.predictions),
        card=model_card(bundle, peft=spec.peft, errors=errors),
        tables=errors.files(),
        backbone=file if carry else None,
    )
    return Made(place / "bundle", bundle, bundle.input_schema.to_rows(rows), checkpoint, rows)


def _checkpoint(folder: Path, kind: str) -> Path:
    torch.manual_seed(7)
    if kind == "encoder":
        model: Any = BertModel(BertConfig(vocab_size=32, pad_token_id=0, initializer_range=0.2, **SIZES))
    else:
        model = LlamaForCausalLM(LlamaConfig(vocab_size=32, pad_token_id=0, eos_token_id=1, bos_token_id=None, **SIZES))
    model.save_pretrained(folder)
    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[END]", "[UNK]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "[PAD]", "eos_token": "[END]", "unk_token": "[UNK]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["vocab_size"] == 32
    return folder


def _rows(task: str) -> pa.Table:
    draw = np.random.default_rng(1)
    texts = [" ".join(draw.choice(WORDS, size=size)) for size in draw.integers(2, 14, 30)]
    numbers = pa.array(np.arange(1, 31))
    if task == "causal-lm":
        return pa.table({"row": numbers, "prompt": texts, "completion": draw.choice(WORDS, 30)})
    return pa.table({"row": numbers, "text": texts, "label": pa.array(draw.integers(0, 3, 30).astype(np.int32))})
