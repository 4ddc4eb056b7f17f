"""The smallest real sweep: a random encoder of two layers, and texts of a few words whose last word is the label."""

from __future__ import annotations

import csv
import json
import os
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import torch
import yaml
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

COMMAND = [sys.executable, "-m", "orchestrator.cli"]
WORDS = ["good", "bad", "late", "early", "seat", "gate", "crew", "bag", "fine", "poor"]
NOISE = (  # warnings of libraries about their own code
    "ignore:.*:DeprecationWarning:ray.*",
    "ignore:.*:FutureWarning:ray.*",
    "ignore:.*RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO:FutureWarning",
    "ignore:.*ray.tune.*:DeprecationWarning",
    "ignore:unclosed:ResourceWarning",
    "ignore:subprocess .* is still running:ResourceWarning",
    "ignore:The ``noload`` loader strategy is deprecated",
    "ignore:.*Any type hint is inferred as AnyType",
    "ignore:Operation with range is deprecated",
)


def environment(folder: Path) -> dict[str, str]:
    """The environment of a command whose lanes cache backbones in the folder."""
    return {**os.environ, "PEFT_SWEEP_CACHE": str(folder / "cache")}


def write_sweep(folder: Path, name: str = "tiny", **changes: Any) -> Path:
    """Write a checkpoint, rows and a ``sweep.yaml`` over them, and return the path of the latter."""
    _checkpoint(folder / "checkpoint")
    _rows(folder / "rows.csv")
    config: dict[str, Any] = {
        "name": name,
        "backbone": {"model": "checkpoint", "compute_dtype": "float32"},
        "tasks": {
            "mail": {"type": "classification", "data": "rows.csv", "text": "text", "label": "label"}
            | {"metric": "accuracy"}
        },
        "methods": ["lora", "linear_probe"],
        "budget": {"trials": 6},
        "training": {"max_steps": 4, "max_length": 16},
        "search": {"min_results": 2},
        "storage": str(folder / "sweeps"),
        "mlflow": {"tracking_uri": f"sqlite:///{folder / 'mlflow.db'}"},
    }
    file = folder / "sweep.yaml"
    file.write_text(yaml.safe_dump({**config, **changes}))
    return file


def _checkpoint(folder: Path) -> None:
    sizes: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64}
    sizes |= {"num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(7)
    model = BertModel(BertConfig(vocab_size=32, pad_token_id=0, max_position_embeddings=64, **sizes))
    model.save_pretrained(folder)
    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[END]", "[UNK]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "[PAD]", "eos_token": "[END]", "unk_token": "[UNK]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)


def _rows(file: Path) -> None:
    generator = random.Random(3)
    texts = sorted({" ".join(generator.choices(WORDS[2:], k=generator.randint(2, 9))) for _ in range(200)})
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["text", "label"])
        for number, text in enumerate(texts):
            label = WORDS[number % 2]
            writer.writerow([f"{text} {label} {label} {label} {label}", label])


def events(journal: Path) -> list[dict[str, Any]]:
    """Return the events of a journal, without the line that a running sweep is just writing."""
    whole_lines, _, _ = journal.read_text().rpartition("\n")
    return [json.loads(line) for line in whole_lines.splitlines()]


def journal_of(folder: Path) -> Path:
    (journal,) = (folder / "sweeps").glob("*/journal.jsonl")
    return journal


def ends(journal: list[dict[str, Any]]) -> dict[str, str]:
    """Return the state in which each trial ended; assert that each starts once and ends once."""
    began = [event["trial"] for event in journal if event["event"] == "trial"]
    ended = [event["trial"] for event in journal if event["event"] == "end"]
    assert Counter(began) == Counter(ended), "each trial starts once and ends once"
    return {event["trial"]: event["state"] for event in journal if event["event"] == "end"}


def optuna_states(sweep: Path) -> dict[str, str]:
    """Return the state of every trial in Optuna's storage, by ``task/method/number``."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    storage = JournalStorage(JournalFileBackend(str(sweep / "optuna.log")))
    return {
        f"{name}/{trial.number}": trial.state.name
        for name in optuna.get_all_study_names(storage)
        for trial in optuna.load_study(study_name=name, storage=storage).trials
    }


def mlflow_runs(uri: str) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(experiments, max_results=1000))


def descendants() -> set[psutil.Process]:
    """Return all processes that this one started, directly or indirectly."""
    return set(psutil.Process().children(recursive=True))
