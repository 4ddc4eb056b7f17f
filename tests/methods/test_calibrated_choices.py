"""hard_prompt on choices after a prompt: calibration against longhand math, its folder, and what is searched."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig

import search_spaces
from orchestrator.backbone.skeleton import tiny_model
from orchestrator.config import Training
from orchestrator.engine.task_dataset import TaskDataset
from orchestrator.engine.trial_run import TrialRun
from orchestrator.planning.capability import Probe, plan_method
from orchestrator.planning.capability.dummy_text import dummy_text
from orchestrator.tasks import TASK_TYPES
from orchestrator.tasks.choice import ChoiceTask

from .conftest import tiny_tokenizer

CONFIG = LlamaConfig(
    vocab_size=100, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
    max_position_embeddings=160, pad_token_id=0, eos_token_id=1, bos_token_id=2, initializer_range=0.3,
    tie_word_embeddings=True,
)  # fmt: skip
NAMES = ["word80", "word81 word82", "word81 word83"]
CHOICE = TASK_TYPES["choice"]


@pytest.fixture(scope="module")
def lab() -> tuple[Any, TaskDataset]:
    rows = [(f"word{20 + k} word{30 + k % 7}", NAMES[k % 3], NAMES) for k in range(12)]
    backbone = tiny_model(CONFIG, CHOICE.auto_class, "choice", "tiny", 0, "none")
    assert backbone is not None
    splits: Any = {"train": rows, "validation": rows[:6], "test": rows[:6]}
    return backbone, TaskDataset.from_examples(backbone, tiny_tokenizer(), splits, Training(max_length=32))


def scores(lab: tuple[Any, TaskDataset], **params: Any) -> np.ndarray:
    run = TrialRun.start("hard_prompt", *lab, steps=1, params=params)
    return np.array(run.evaluate("test").predictions["log_likelihoods"].to_pylist())


def longhand(backbone: Any, before: list[int], choice: list[int]) -> float:
    with torch.no_grad():
        logits = backbone.view(0)(input_ids=torch.tensor([[*before, *choice]])).logits[0].double().log_softmax(-1)
    return sum(logits[len(before) - 1 + step, token].item() for step, token in enumerate(choice))


@pytest.mark.parametrize("examples", [0, 2])
def test_calibration_subtracts_scores_after_the_prompt_without_content(
    lab: tuple[Any, TaskDataset], examples: int
) -> None:
    backbone, dataset = lab
    text = dataset.text
    assert text is not None
    assert list(text.blank) == tiny_tokenizer()("N/A")["input_ids"]
    module = TrialRun.start("hard_prompt", *lab, steps=1, params={"examples": examples}).attached.module
    shown: list[int] = module.prompt["before"].tolist()
    assert bool(shown) == bool(examples)
    words = [tiny_tokenizer()(name, add_special_tokens=False)["input_ids"] for name in NAMES]
    bias = [longhand(backbone, [*shown, *text.blank], word) for word in words]
    calibrated, plain = (scores(lab, examples=examples, calibration=on) for on in (True, False))
    np.testing.assert_allclose(plain - calibrated, np.tile(bias, (6, 1)), atol=1e-4)
    assert np.ptp(bias) > 0.01, "it is not the same for all choices"


def test_hard_prompt_without_parameters_answers_uncalibrated_likelihoods(lab: tuple[Any, TaskDataset]) -> None:
    backbone, dataset = lab
    words = [tiny_tokenizer()(name, add_special_tokens=False)["input_ids"] for name in NAMES]
    texts = [tiny_tokenizer()(f"word{20 + k} word{30 + k % 7}")["input_ids"] for k in range(6)]
    expected = [[longhand(backbone, text, word) for word in words] for text in texts]
    np.testing.assert_allclose(scores(lab), expected, atol=1e-4)
    assert dataset.text is not None
    first = search_spaces.get("hard_prompt").default
    np.testing.assert_allclose(scores(lab, **first), expected, atol=1e-4, err_msg="a sweep's first trial")


def test_calibration_travels_with_the_saved_adapter(lab: tuple[Any, TaskDataset], tmp_path: Path) -> None:
    from safetensors.torch import load_file

    run = TrialRun.start("hard_prompt", *lab, steps=1, params={"calibration": True})
    run.attached.save(tmp_path)
    text = lab[1].text
    assert text is not None
    assert load_file(tmp_path / "adapter.safetensors")["blank"].tolist() == list(text.blank)


def test_prompt_without_content_fills_every_column_of_a_template() -> None:
    section: dict[str, Any] = {
        "type": "choice",
        "data": "rows.jsonl",
        "completion": "mood",
        "choices": ["word5", "word6"],
    }
    words = tiny_tokenizer()
    template = ChoiceTask.model_construct(**section, prompt="word7 {a} word8 {b}")
    expected = words("word7 N/A word8 N/A")["input_ids"]
    assert list(CHOICE.blank_prompt(template, words, 32)) == expected
    chat = ChoiceTask.model_construct(**section, messages="chat")
    assert CHOICE.blank_prompt(chat, words, 32) == ()


@pytest.mark.parametrize(
    ("task", "blank", "searched"),
    [
        ("choice", (5, 6), {"examples", "calibration"}),
        ("choice", (), {"examples"}),
        ("causal-lm", (), {"examples"}),
        ("classification", (), {"template", "verbalizers", "examples", "calibration"}),
    ],
)
def test_parameters_without_effect_are_not_searched(task: str, blank: tuple[int, ...], searched: set[str]) -> None:
    kind = TASK_TYPES[task]
    labels = 2 if task == "classification" else 0
    text = replace(dummy_text(CONFIG, labels, 32), blank=blank)
    probe = Probe(CONFIG, kind, name="tiny", labels=labels, quantization="none", text=text)
    plan, problems = plan_method(probe, "hard_prompt", search_spaces.get("hard_prompt"), ())
    assert (plan.available, problems) == (True, [])
    assert set(plan.space.distributions) == set(plan.space.default) == searched


def test_override_without_effect_is_noted_and_not_searched() -> None:
    probe = Probe(CONFIG, TASK_TYPES["causal-lm"], name="tiny", labels=0, quantization="none")
    plan, problems = plan_method(probe, "hard_prompt", search_spaces.get("hard_prompt"), ["template"])
    assert problems == []
    assert "template has no effect on causal-lm tasks" in plan.notes
    assert "template" not in plan.space.distributions
