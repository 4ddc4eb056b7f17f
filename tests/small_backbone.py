"""A tiny quantized backbone of any architecture and task type, and trials of a few words on it; without Ray."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from orchestrator.backbone.checkpoint import write
from orchestrator.backbone.shared import SharedBackbone, load
from orchestrator.backbone.source import Source
from orchestrator.common.trial_types import Job, TrialKey
from orchestrator.config import Training
from orchestrator.engine.step import score_trials, train_step
from orchestrator.engine.task_dataset import TaskDataset
from orchestrator.engine.trial_run import TrialRun
from orchestrator.tasks import TASK_TYPES


@cache
def word_tokenizer() -> PreTrainedTokenizerFast:
    """A token per word, ``word4`` to ``word99``, and an end of sequence after each text."""
    words = {"<pad>": 0, "</s>": 1, "<s>": 2, "<unk>": 3} | {f"word{index}": index for index in range(4, 100)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    special = {"pad_token": "<pad>", "eos_token": "</s>", "bos_token": "<s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def words(*numbers: int) -> str:
    return " ".join(f"word{number}" for number in numbers)


def model_of(config: PreTrainedConfig, task: str) -> PreTrainedModel:
    """A model with random weights that are large enough for every change to show."""
    torch.manual_seed(7)
    model: PreTrainedModel = getattr(transformers, TASK_TYPES[task].auto_class).from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3) if parameter.dim() > 1 else parameter.add_(0.1 * torch.randn_like(parameter))
    return model.requires_grad_(False).eval()


def share(config: PreTrainedConfig, task: str, folder: Path, quantization: Any = "nf4") -> SharedBackbone:
    """Share a model through the files that a sweep writes."""
    folder.mkdir(exist_ok=True)
    model_of(config, task).save_pretrained(folder / "checkpoint")
    source = Source("tiny", folder / "checkpoint", "tiny", portable=False)
    forms: dict[str, Any] = {"frozen": quantization, "original": "none"}
    for name, form in forms.items():
        write(source, TASK_TYPES[task].auto_class, form, True, folder / f"{name}.safetensors")
    files = (folder / f"{name}.safetensors" for name in ("frozen", "original"))
    frozen, original = files
    return load(frozen, task, name=str(folder / "checkpoint"), dtype=torch.float32, original=original)


def dataset(
    backbone: SharedBackbone, splits: Mapping[str, Sequence[tuple[str, ...]]], max_length: int = 16
) -> TaskDataset:
    training = Training(max_steps=12, max_length=max_length)
    return TaskDataset.from_examples(backbone, word_tokenizer(), splits, training)  # type: ignore[arg-type]


def trial(method: str, backbone: SharedBackbone, rows: TaskDataset, number: int = 0, **params: Any) -> TrialRun:
    """A trial of four rows a step."""
    params = {"batch_size": 4, "learning_rate": 1e-2, **params}
    key = TrialKey(f"task/{method}", number)
    return TrialRun(Job(trial=key, params=params, seed=7 + number, start=0, stop=12, total=12), backbone, rows)


def assert_pack_trains_like_trials_alone(
    backbone: SharedBackbone, rows: TaskDataset, methods: Mapping[str, Mapping[str, Any]]
) -> None:
    """Train a trial of each method alone and in a pack, and compare their scores and what they have trained."""
    alone, together = (
        [trial(name, backbone, rows, number, **methods[name]) for number, name in enumerate(methods)] for _ in range(2)
    )
    for _ in range(3):
        assert [train_step([run]) for run in alone] == [[]] * len(methods)
        assert train_step(together) == []
    score_trials(together)
    for run, packed in zip(alone, together, strict=True):
        assert run.evaluate("validation").metrics == packed.evaluate("validation").metrics, run.job.trial
        for name, value in run.attached.trainable().items():
            torch.testing.assert_close(packed.attached.trainable()[name], value, rtol=1e-4, atol=1e-6)
