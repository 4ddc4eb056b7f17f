"""A whole small sweep of each task type: four methods, from a file to a registered model that answers."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedConfig, PreTrainedTokenizerFast

import methods
from orchestrator.config import load_config
from orchestrator.lanes.cluster import Cluster
from orchestrator.planning.plan import make_plan
from orchestrator.sweep.runner import new_sweep_name, run_sweep
from orchestrator.tasks import TASK_TYPES

from ..small_sweep import NOISE, WORDS, ends, events, journal_of

pytestmark = [pytest.mark.ray, *(pytest.mark.filterwarnings(warning) for warning in NOISE)]
ROWS = 120
SPECIAL = ["[PAD]", "[END]", "[UNK]", "user", "assistant", ":"]
TEMPLATE = (
    "{% for m in messages %}{{ m.role }} : {{ m.content }} {{ eos_token if m.role == 'assistant' }} {% endfor %}"
    "{% if add_generation_prompt %}assistant : {% endif %}"
)
SIZES: dict[str, Any] = {"vocab_size": 32, "pad_token_id": 0, "eos_token_id": 1}
DEEP: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
ARCHITECTURES: dict[str, tuple[type[PreTrainedConfig], type[Any], dict[str, Any]]] = {
    "encoder": (transformers.BertConfig, transformers.BertModel, {**SIZES, **DEEP, "max_position_embeddings": 64}),
    "decoder": (
        transformers.LlamaConfig,
        transformers.LlamaForCausalLM,
        {**SIZES, **DEEP, "max_position_embeddings": 64, "bos_token_id": 1},
    ),
    "encoder-decoder": (
        transformers.T5Config,
        transformers.T5ForConditionalGeneration,
        {**SIZES, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0},
    ),
}
TASKS: dict[str, dict[str, dict[str, Any]]] = {
    "encoder": {
        "mail": {"type": "classification", "text": "text", "text_pair": "other", "label": "label"},
        "topics": {"type": "classification", "text": "text", "labels": "labels"},
        "number": {"type": "regression", "text": "text", "target": "number"},
        "tags": {"type": "token-classification", "tokens": "tokens", "tags": "tags"},
        "search": {"type": "embedding", "anchor": "text", "positive": "other"},
    },
    "decoder": {
        "chat": {"type": "causal-lm", "messages": "messages", "max_new_tokens": 4},
        "pick": {"type": "choice", "prompt": "text", "completion": "label", "choices": ["good", "bad"]},
    },
    "encoder-decoder": {"write": {"type": "seq2seq", "source": "text", "target": "other", "max_new_tokens": 4}},
}


def rows() -> Iterator[dict[str, Any]]:
    """Yield rows of which every task reads some columns; the label stands in the text."""
    generator = random.Random(3)
    for number in range(ROWS):
        words = generator.choices(WORDS[2:], k=6)
        label = WORDS[number % 2]
        tokens = [label, *words]
        text = " ".join(tokens)
        yield {
            "text": text,
            "other": " ".join(reversed(words)),
            "label": label,
            "labels": [label, "late"] if "late" in words else [label],
            "number": float(words.count("seat")) + number % 2,
            "tokens": tokens,
            "tags": ["B-WORD" if token in ("seat", "gate") else "O" for token in tokens],
            "messages": [{"role": "user", "content": text}, {"role": "assistant", "content": label}],
        }


def write_sweep(folder: Path, architecture: str, **changes: Any) -> Path:
    config, model, fields = ARCHITECTURES[architecture]
    torch.manual_seed(7)
    model(config(**fields)).save_pretrained(folder / "checkpoint")
    vocabulary = {word: number for number, word in enumerate([*SPECIAL, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"pad_token": "[PAD]", "eos_token": "[END]", "unk_token": "[UNK]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=TEMPLATE, **special).save_pretrained(
        folder / "checkpoint"
    )
    (folder / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows()))
    tasks = {name: {"data": "rows.jsonl", **task} for name, task in TASKS[architecture].items()}
    file = folder / "sweep.yaml"
    file.write_text(
        yaml.safe_dump(
            {
                "name": "every",
                "backbone": {"model": "checkpoint", "compute_dtype": "float32"},
                "tasks": tasks,
                "methods": ["lora", "ia3", "adapter", "norm_tuning"],
                "budget": {"trials": 4 * len(tasks)},
                "training": {"max_steps": 4, "max_length": 24, "validation_rows": 24},
                "search": {"early_stopping": False, "allocation": "round_robin"},
                "selection": {"contenders": 1, "seeds": 1},
                "storage": str(folder / "sweeps"),
                "mlflow": {"tracking_uri": f"sqlite:///{folder / 'mlflow.db'}"},
                **changes,
            }
        )
    )
    return file


def test_every_task_type_has_a_sweep() -> None:
    assert {task["type"] for tasks in TASKS.values() for task in tasks.values()} == set(TASK_TYPES)


@pytest.mark.parametrize("architecture", TASKS)
def test_sweep_of_every_task_type_registers_models_that_answer(
    architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.chdir(tmp_path)
    plan = make_plan(load_config(write_sweep(tmp_path, architecture)))
    with Cluster() as cluster:
        outcome = run_sweep(
            plan, sweep=new_sweep_name("every"), cluster=cluster, watch=lambda _: None, stop=threading.Event()
        )
    journal = events(journal_of(tmp_path))
    reasons = {event["trial"]: event.get("reason") for event in journal if event["event"] == "end"}
    assert ends(journal) == {
        f"{task}/{method}/0": "complete" for task in TASKS[architecture] for method in plan.config.methods
    }, reasons
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")
    for name, task in outcome.tasks.items():
        assert task.registered, task.unregistered
        served = mlflow.pyfunc.load_model(f"models:/{name}/{task.registered.version}")
        example = served.input_example
        assert len(served.predict(example)) == len(example) > 0


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("architecture", "name"), [(architecture, name) for architecture, tasks in TASKS.items() for name in tasks]
)
def test_every_method_completes_in_a_sweep_of_every_task_type(
    architecture: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    task = {name: {"data": "rows.jsonl", **TASKS[architecture][name]}}
    every = list(methods.names())
    file = write_sweep(tmp_path, architecture, tasks=task, methods=every, budget={"trials": len(every)})
    plan = make_plan(load_config(file))
    available = plan.tasks[name].available
    assert len(available) > len(every) // 2
    with Cluster() as cluster:
        outcome = run_sweep(
            plan, sweep=new_sweep_name("every"), cluster=cluster, watch=lambda _: None, stop=threading.Event()
        )
    ended = ends(events(journal_of(tmp_path)))
    assert {method: ended.get(f"{name}/{method}/0") for method in available} == dict.fromkeys(available, "complete")
    assert outcome.tasks[name].champion.method in available
    assert outcome.tasks[name].registered, outcome.tasks[name].unregistered
