"""Methods on token-classification and choice: dry runs of all of them, and training in packs."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, LlamaConfig, PretrainedConfig, T5Config

from orchestrator.backbone.skeleton import tiny_model
from orchestrator.config import Training
from orchestrator.engine.frozen_prefix import FrozenPrefix
from orchestrator.engine.step import score_trials, train_step
from orchestrator.engine.task_dataset import TaskDataset
from orchestrator.engine.trial_run import TrialRun
from orchestrator.planning.capability import Probe, list_methods, try_method
from orchestrator.tasks import TASK_TYPES

from .conftest import tiny_tokenizer
from .expected_support import expected_refusal

SIZES: dict[str, Any] = {
    "vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
    "max_position_embeddings": 160, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2,
}  # fmt: skip
T5_SIZES: dict[str, Any] = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
T5_SIZES |= {"vocab_size": 100, "decoder_start_token_id": 0}
CONFIGS: dict[str, PretrainedConfig] = {
    "bert": BertConfig(**SIZES),
    "llama": LlamaConfig(**SIZES),
    "t5": T5Config(**T5_SIZES),
}
BACKBONES = (("bert", "token-classification"), ("llama", "token-classification"), ("llama", "choice"))
FEW = {
    "token-classification": ("lora", "prefix", "linear_probe", "multitask_prompt"),
    "choice": ("lora", "prompt", "hard_prompt", "multitask_prompt"),
}


def refusal(architecture: str, task: str, method: str) -> str:
    kind = TASK_TYPES[task]
    labels = kind.head_size(kind.example_labels)
    probe = Probe(CONFIGS[architecture], kind, name="tiny", labels=labels, quantization="nf4")
    capability, _ = try_method(probe, method)
    return "" if capability.available else capability.reason


@pytest.mark.parametrize(
    ("architecture", "task", "method"),
    [(architecture, task, method) for architecture, task in BACKBONES for method in FEW[task]],
)
def test_methods_train_tags_and_choices_in_a_dry_run(architecture: str, task: str, method: str) -> None:
    assert refusal(architecture, task, method) == ""


@pytest.mark.exhaustive
@pytest.mark.parametrize(("architecture", "task"), [*BACKBONES, ("t5", "token-classification")])
@pytest.mark.parametrize("method", list_methods()[0])
def test_every_method_trains_tags_and_choices_or_is_expected_not_to(architecture: str, task: str, method: str) -> None:
    expected = expected_refusal(method, architecture, task, "nf4")
    reason = refusal(architecture, task, method)
    assert (expected in reason) if expected else reason == ""


def test_mean_of_the_states_is_refused_for_tags() -> None:
    kind = TASK_TYPES["token-classification"]
    probe = Probe(CONFIGS["bert"], kind, name="tiny", labels=3, quantization="none")
    assert "would give all tokens of a row the same tag" in probe.refusal("linear_probe", {"pooling": "mean"})
    assert probe.refusal("linear_probe", {"pooling": "head"}) == ""


def dataset_of(task: str) -> tuple[Any, TaskDataset]:
    """Return a backbone and rows whose answers follow from one word: the tag of each word, or the choice."""
    kind = TASK_TYPES[task]
    draw = np.random.default_rng(0)
    rows: list[Any] = []
    for _ in range(48):
        words = [f"word{number}" for number in draw.integers(7, 30, size=draw.integers(2, 7))]
        if task == "choice":
            names = ["negative", "positive"]
            rows.append((" ".join(words), names[int(words[0][4:]) % 2], names))
        else:
            rows.append((words, ["B-even" if int(word[4:]) % 2 == 0 else "O" for word in words]))
    architecture = "llama" if task == "choice" else "bert"
    backbone = tiny_model(CONFIGS[architecture], kind.auto_class, task, "tiny", kind.head_size(2), "nf4")
    assert backbone is not None
    splits = {"train": rows, "validation": rows[:16], "test": rows[:16]}
    training = Training(max_steps=40, max_length=32, evaluation_batch=4)
    return backbone, TaskDataset.from_examples(backbone, tiny_tokenizer(), splits, training)


@pytest.mark.parametrize(("task", "methods"), [(task, FEW[task][:3]) for task in FEW])
def test_pack_of_methods_scores_as_each_alone(task: str, methods: tuple[str, ...]) -> None:
    backbone, dataset = dataset_of(task)
    trained = [method for method in methods if method != "hard_prompt"]

    def started() -> dict[str, TrialRun]:
        params = {"batch_size": 4, "learning_rate": 1e-2}
        return {
            name: TrialRun.start(name, backbone, dataset, steps=3, params=params if name in trained else {})
            for name in methods
        }

    together, alone = started(), started()
    for _ in range(3):
        assert not train_step([together[name] for name in trained])
        for name in trained:
            assert not train_step([alone[name]])
    for run in together.values():
        run.job = replace(run.job, split="validation")
    score_trials(list(together.values()))
    for name in methods:
        packed, single = together[name].evaluate("validation"), alone[name].evaluate("validation")
        assert packed.predictions.equals(single.predictions), name


@pytest.mark.parametrize(("task", "metric"), [("token-classification", "entity_f1"), ("choice", "accuracy")])
def test_training_learns_what_the_rows_say(task: str, metric: str) -> None:
    backbone, dataset = dataset_of(task)
    params = {"batch_size": 16, "learning_rate": 1e-2, "rank": 8}
    run = TrialRun.start("lora", backbone, dataset, steps=60, params=params)
    before = run.evaluate("test").metrics[metric]
    for _ in range(60):
        assert not train_step([run])
    assert run.evaluate("test").metrics[metric] > max(0.9, before)


def test_cached_activations_change_no_prediction() -> None:
    backbone, dataset = dataset_of("token-classification")
    job = TrialRun.start("linear_probe", backbone, dataset, steps=2, params={"batch_size": 4}).job
    prefix = FrozenPrefix(backbone)
    runs = [TrialRun(job, backbone, dataset, prefix=each) for each in (None, prefix)]
    for run in runs:
        assert not train_step([run])
    plain, cached = (run.evaluate("validation").predictions for run in runs)
    assert prefix.cached_bytes > 0
    expected, actual = (torch.tensor(dataset.type.reproducible(table)) for table in (plain, cached))
    assert torch.allclose(expected, actual, atol=1e-5)
