"""Generation: batches by tokens, ends, draws; and a pack whose trials generate as each does alone."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformers import LlamaConfig

from orchestrator.backbone.checkpoint import write
from orchestrator.backbone.shared import load
from orchestrator.backbone.source import Source
from orchestrator.backbone.weights import PlainWeight
from orchestrator.config import Training
from orchestrator.engine import packing
from orchestrator.engine.matmul import shared_matmul
from orchestrator.engine.step import score_trials, train_step
from orchestrator.engine.task_dataset import TaskDataset
from orchestrator.engine.trial_run import TrialRun
from orchestrator.tasks.generation import Sampling, generate

from .conftest import store_tokenizer

METHODS: dict[str, dict[str, Any]] = {
    "lora": {}, "prompt": {"tokens": 5}, "prefix": {"tokens": 3}, "ia3": {}, "adapter": {"bottleneck": 8}, "dora": {},
    "norm_tuning": {}, "p_tuning": {"tokens": 4},
}  # fmt: skip
SIZES: dict[str, Any] = {
    "vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
    "max_position_embeddings": 96, "initializer_range": 0.3, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None,
}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("words")
    store_tokenizer(folder)
    return transformers.AutoTokenizer.from_pretrained(folder / "tokenizer")


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("decoder")
    torch.manual_seed(7)
    transformers.LlamaForCausalLM(LlamaConfig(**SIZES)).save_pretrained(folder / "checkpoint")
    source = Source("tiny", folder / "checkpoint", "tiny", portable=False)
    files = {form: folder / f"{form}.safetensors" for form in ("nf4", "none")}
    for form, file in files.items():
        write(source, "AutoModelForCausalLM", form, True, file)  # type: ignore[arg-type]
    return load(files["nf4"], "causal-lm", name="tiny", dtype=torch.float32, labels=0, original=files["none"])


@pytest.fixture(scope="module")
def prompts() -> list[Any]:
    draw = np.random.default_rng(3)
    return [draw.integers(3, 60, size).astype(np.int32) for size in (2, 9, 5, 3, 12, 4, 7)]


def dataset(backbone: Any, tokenizer: Any, sampling: Sampling | None = None) -> TaskDataset:
    draw = np.random.default_rng(5)

    def words(most: int) -> str:
        return " ".join(f"word{index}" for index in draw.integers(3, 60, draw.integers(1, most)))

    splits = {split: [(words(9), words(4)) for _ in range(24)] for split in ("train", "validation", "test")}
    made = TaskDataset.from_examples(backbone, tokenizer, splits, Training(max_steps=12, max_length=24))
    config = made._config.model_copy(update={"metric": "token_f1", "max_new_tokens": 6, "sampling": sampling})
    return TaskDataset(config, made._tables, made.pad, made.decoder, made.training, tokenizer=tokenizer)


def test_generation_in_batches_by_tokens_equals_one_by_one(backbone: Any, tokenizer: Any, prompts: list[Any]) -> None:
    view, rows = backbone.view(0), []
    hook = view.register_forward_pre_hook(
        lambda _, __, kwargs: rows.append(kwargs["input_ids"].shape), with_kwargs=True
    )
    together = generate(view, prompts, tokenizer, 0, max_new_tokens=5, tokens=40)
    hook.remove()
    prefills = [shape for shape in rows if shape[1] > 1]
    assert all(count * (width + 5) <= 40 for count, width in prefills)
    assert max(count for count, _ in prefills) > 1
    assert together == [generate(view, [prompt], tokenizer, 0, max_new_tokens=5)[0] for prompt in prompts]
    assert len(set(together)) > 3


def test_generation_stops_at_the_end_of_a_turn(backbone: Any, tokenizer: Any, prompts: list[Any]) -> None:
    view = backbone.view(0)
    whole = [text.split() for text in generate(view, prompts, tokenizer, 0, max_new_tokens=8)]
    stop = whole[1][3]
    end = tokenizer.convert_tokens_to_ids(stop)
    stopped = [text.split() for text in generate(view, prompts, tokenizer, 0, max_new_tokens=8, ends=[end])]
    assert stopped == [words[: words.index(stop) + 1] if stop in words else words for words in whole]
    assert len(stopped[1]) < len(whole[1])


def test_sampled_text_follows_seed_and_prompt_and_not_the_batch(
    backbone: Any, tokenizer: Any, prompts: list[Any]
) -> None:
    view = backbone.view(0)
    settings: dict[str, Any] = {"max_new_tokens": 6}
    drawn = generate(view, prompts, tokenizer, 0, sampling=Sampling(temperature=2.0), **settings)
    torch.rand(3)
    alone = [generate(view, [p], tokenizer, 0, sampling=Sampling(temperature=2.0), **settings)[0] for p in prompts]
    assert drawn == alone
    assert drawn != generate(view, prompts, tokenizer, 0, sampling=Sampling(temperature=2.0, seed=1), **settings)
    greedy = generate(view, prompts, tokenizer, 0, **settings)
    assert drawn != greedy
    assert generate(view, prompts, tokenizer, 0, sampling=Sampling(temperature=1e-3), **settings) == greedy
    assert generate(view, prompts, tokenizer, 0, sampling=Sampling(top_p=1e-6), **settings) == greedy


def test_sampled_tokens_have_the_model_s_probabilities(backbone: Any, tokenizer: Any, prompts: list[Any]) -> None:
    view, prompt = backbone.view(0), prompts[0]
    with torch.no_grad():
        expected = view(input_ids=torch.tensor(prompt[None]).long()).logits[0, -1].softmax(-1).numpy()
    draws = [
        generate(view, [prompt], tokenizer, 0, max_new_tokens=1, sampling=Sampling(seed=seed))[0] for seed in range(100)
    ]
    likeliest = int(expected[3:].argmax()) + 3
    probability = float(expected[likeliest])
    share = float(np.mean([text == f"word{likeliest}" for text in draws]))
    assert share == pytest.approx(probability, abs=4 * (probability / 100) ** 0.5)


@pytest.mark.parametrize("sampling", [None, Sampling(temperature=1.5)], ids=["greedy", "sampled"])
def test_packed_generation_gives_each_trial_its_text_alone(
    backbone: Any, tokenizer: Any, sampling: Sampling | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = dataset(backbone, tokenizer, sampling)

    def runs() -> list[TrialRun]:
        started = []
        for number, (method, changes) in enumerate(METHODS.items()):
            params = {"learning_rate": 3e-2, "batch_size": 4, **changes}
            run = TrialRun.start(method, backbone, rows, steps=12, params=params, seed=number)
            run.job = replace(run.job, split="validation")
            started.append(run)
        trained = [run for run in started if run.trains]
        for _ in range(2):
            assert train_step(trained) == []
        return started

    packed, alone, trials, heads = runs(), runs(), list[int](), list[int]()
    head = backbone.model.get_output_embeddings().weight

    def counting(weight: Any, dtype: torch.dtype, inputs: Any, biases: Any) -> Any:
        trials.append(len(inputs))
        if isinstance(weight, PlainWeight) and weight.weight.data_ptr() == head.data_ptr():
            heads.append(len(inputs))
        return shared_matmul(weight, dtype, inputs, biases)

    monkeypatch.setattr(packing, "shared_matmul", counting)
    score_trials(packed)
    monkeypatch.undo()
    texts = []
    for run, other in zip(packed, alone, strict=True):
        predictions = run.evaluate("validation").predictions
        assert predictions.equals(other.evaluate("validation").predictions), run.job.trial
        assert predictions["generated"].null_count == 0
        texts.append(predictions["generated"].to_pylist())
    assert len({str(text) for text in texts}) > len(METHODS) // 2
    assert max(trials) == len(METHODS)
    assert max(heads) == len(METHODS), "the output embeddings are multiplied once for all trials"
    assert np.mean(trials) > len(METHODS) / 2, "most products are shared"
