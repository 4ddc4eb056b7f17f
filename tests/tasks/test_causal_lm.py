from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn
from transformers import PreTrainedTokenizerFast

from orchestrator.tasks.batches import evaluation_batches
from orchestrator.tasks.causal_lm import CausalLM, CausalLMTask
from orchestrator.tasks.tokens import lengths

PROMPTS = ["How are you?", "a", "one two", "xyz", "Say it:"]
COMPLETIONS = [" fine", "b", " three", "!", " it is said"]
TASK = CausalLM()
TEXTS = ("generated", "reference")
EOS = 0


def table(prompts=PROMPTS, completions=COMPLETIONS):
    return pa.table({"row": range(1, len(prompts) + 1), "prompt": prompts, "completion": completions})


@pytest.fixture(scope="module")
def rows(tokenizer):
    return TASK.tokenize(table(), tokenizer, 32)


def parts(rows, index):
    ids, length = rows["input_ids"][index].as_py(), rows["prompt_length"][index].as_py()
    return ids[:length], ids[length:]


def longhand(model, rows, index):
    """Negative log likelihood of one row's completion, token by token."""
    prompt, completion = parts(rows, index)
    total = 0.0
    for place, token in enumerate(completion):
        with torch.no_grad():
            logits = model(torch.tensor([prompt + completion[:place]])).logits[0, -1]
        total -= logits.double().log_softmax(0)[token].item()
    return total


def test_causal_lm_row_is_prompt_completion_and_end(rows, tokenizer):
    for index in range(5):
        prompt, completion = parts(rows, index)
        assert tokenizer.decode(prompt) == PROMPTS[index]
        assert tokenizer.decode(completion[:-1]) == COMPLETIONS[index]
        assert completion[-1] == EOS


@pytest.mark.parametrize(
    ("longest", "prompt", "completion"),
    [
        (32, "How are you?", " fine</s>"),
        (10, "ou?"[-4:], " fine</s>"),
        (7, "?", " fine</s>"),
        (5, "?", " fin"),
        (2, "?", " "),
    ],
)
def test_causal_lm_truncates_the_beginning_of_the_prompt(tokenizer, longest, prompt, completion):
    row = TASK.tokenize(table(PROMPTS[:1], COMPLETIONS[:1]), tokenizer, longest)
    start, end = parts(row, 0)
    assert len(start) + len(end) <= longest
    assert tokenizer.decode(end) == completion
    assert tokenizer.decode(start).endswith(prompt)
    assert len(start) == min(longest - len(end), 12)


def test_causal_lm_keeps_bos_before_a_truncated_prompt(tokenizer):
    from tokenizers import processors

    opening = PreTrainedTokenizerFast(tokenizer_object=tokenizer._tokenizer, bos_token="<unk>", eos_token="</s>")
    opening.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<unk> $A </s>", special_tokens=[("<unk>", 1), ("</s>", 0)]
    )
    row = TASK.tokenize(table(PROMPTS[:1], COMPLETIONS[:1]), opening, 10)
    start, end = parts(row, 0)
    assert start[0] == 1
    assert tokenizer.decode(start[1:]) == "ou?"
    assert tokenizer.decode(end) == " fine</s>"


@pytest.mark.parametrize("left", [False, True])
def test_causal_lm_labels_include_eos_but_no_padding(rows, left):
    batch = TASK.collate(rows, np.array([0, 1]), pad_id=EOS, pad_left=left)
    for line, index in enumerate([0, 1]):
        labels = batch["labels"][line]
        assert labels[labels != -100].tolist() == parts(rows, index)[1]
        assert torch.equal(labels[labels != -100], batch["input_ids"][line][labels != -100])
        assert batch["attention_mask"][line].tolist() == [1] * len(rows["input_ids"][index]) + [0] * (
            batch["input_ids"].shape[1] - len(rows["input_ids"][index])
        )


@pytest.mark.parametrize("left", [False, True])
def test_causal_lm_loss_is_the_mean_over_completion_tokens(decoder, rows, left):
    expected = sum(longhand(decoder, rows, i) for i in range(5)) / sum(len(parts(rows, i)[1]) for i in range(5))
    loss = TASK.loss(decoder, TASK.collate(rows, np.arange(5), pad_id=EOS, pad_left=left))
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert loss.requires_grad


@pytest.mark.parametrize(("size", "left"), [(1, False), (2, True), (5, False), (5, True)])
def test_causal_lm_likelihoods_do_not_depend_on_batches(decoder, rows, size, left):
    evaluation = TASK.evaluate(decoder, rows, evaluation_batches(lengths(rows), size), EOS, left)
    assert evaluation.predictions["row"].to_pylist() == [1, 2, 3, 4, 5]
    np.testing.assert_allclose(evaluation.predictions["nll"], [longhand(decoder, rows, i) for i in range(5)], rtol=1e-5)
    assert evaluation.predictions["tokens"].to_pylist() == [len(text) + 1 for text in COMPLETIONS]
    assert evaluation.predictions["generated"].null_count == 5
    assert evaluation.predictions["bytes"].to_pylist() == [len(text.encode()) for text in COMPLETIONS]
    nll, tokens = evaluation.predictions["nll"].to_numpy().sum(), evaluation.predictions["tokens"].to_numpy().sum()
    size = sum(len(text.encode()) for text in COMPLETIONS)
    expected = {"bits_per_byte": nll / np.log(2) / size, "perplexity": np.exp(nll / tokens)}
    assert evaluation.metrics == pytest.approx(expected)


def test_causal_lm_loss_skips_logits_of_soft_prompts(decoder, rows):
    class Prompted(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = decoder

        def forward(self, **inputs):
            logits = self.inner(**inputs).logits
            return SimpleNamespace(logits=torch.cat([torch.randn(len(logits), 7, logits.shape[-1]), logits], dim=1))

    batch = TASK.collate(rows, np.arange(5), pad_id=EOS)
    torch.testing.assert_close(TASK.loss(Prompted(), batch), TASK.loss(decoder, batch))


def test_batched_generation_equals_generation_row_by_row(decoder, rows, tokenizer):
    task = CausalLM(chosen=("exact_match",), generates=True, max_new_tokens=6, tokenizer=tokenizer)
    prompts = [np.array(parts(rows, i)[0], np.int32) for i in range(5)]
    written = task.generate(decoder, prompts, EOS)
    for prompt, text in zip(prompts, written, strict=True):
        ids = prompt.tolist()
        with torch.no_grad():
            for _ in range(6):
                ids.append(int(decoder(torch.tensor([ids])).logits[0, -1].argmax()))
                if ids[-1] == EOS:
                    break
        assert text == tokenizer.decode(ids[len(prompt) :], skip_special_tokens=True).strip()


def test_exact_match_is_the_share_of_generated_completions(decoder, tokenizer):
    task = CausalLM(chosen=("exact_match",), generates=True, max_new_tokens=4, tokenizer=tokenizer)
    prompts = [tokenizer(text)["input_ids"] for text in PROMPTS]
    texts = task.generate(decoder, [np.array(ids, np.int32) for ids in prompts], EOS)
    assert all(texts)
    goals = [f" {text} " if place % 2 else f"{text}~" for place, text in enumerate(texts)]  # white space does not count
    rows = task.tokenize(table(completions=goals), tokenizer, 64)
    evaluation = task.evaluate(decoder, rows, evaluation_batches(lengths(rows), 2), EOS)
    assert evaluation.predictions["generated"].to_pylist() == texts
    assert evaluation.predictions["reference"].to_pylist() == [goal.strip() for goal in goals]
    assert evaluation.metrics["exact_match"] == 0.4
    assert set(evaluation.metrics) == {"bits_per_byte", "perplexity", "exact_match"}


def test_generation_without_tokenizer_is_refused(decoder, rows):
    with pytest.raises(ValueError, match="a tokenizer is needed"):
        CausalLM(chosen=("exact_match",), generates=True).evaluate(decoder, rows, [np.arange(2)], EOS)


@pytest.mark.parametrize("metric", [metric.name for metric in TASK.metrics])
def test_causal_lm_score_many_equals_scores_one_by_one(metric):
    random = np.random.default_rng(0)
    columns: dict[str, Any] = {
        "nll": random.exponential(3, 50),
        "tokens": random.integers(1, 9, 50),
        "bytes": random.integers(9, 20, 50),
    }
    columns |= {name: [f'["{word}", "red dog"]' for word in random.choice(["a", "cat"], 50)] for name in TEXTS}
    predictions = pa.table({"row": range(50), **columns})
    draws = random.integers(0, 50, (20, 50))
    one_by_one = [TASK.score(metric, predictions.take(draw)) for draw in draws]
    np.testing.assert_allclose(TASK.score_many(metric, predictions, draws), one_by_one, rtol=1e-12)


def test_exact_match_without_generation_is_refused():
    predictions = pa.table({"row": [1], "nll": [1.0], "tokens": [2], "generated": pa.nulls(1, pa.string())})
    with pytest.raises(ValueError, match="no metric 'exact_match'"):
        TASK.score("exact_match", predictions)


def test_causal_lm_minimizes_likelihoods_and_maximizes_metrics_of_text():
    assert [metric.name for metric in TASK.metrics if metric.direction == "minimize"] == ["bits_per_byte", "perplexity"]
    assert [metric.needs_generation for metric in TASK.metrics] == [False] * 2 + [True] * 7


def test_causal_lm_without_metric_is_scored_as_in_0_1():
    fields = {"type": "causal-lm", "data": "rows.jsonl", "prompt": "prompt", "completion": "completion"}
    assert CausalLMTask.model_validate(fields).metrics == ("perplexity",)
    assert CausalLMTask.model_validate({**fields, "metric": "bleu"}).metrics == ("bleu",)


def test_bytes_of_a_completion_that_is_cut_are_those_that_are_left(tokenizer):
    rows = TASK.tokenize(table(completions=["größer"] * 5), tokenizer, 6)
    end = rows["input_ids"][0].as_py()[rows["prompt_length"][0].as_py() :]
    assert rows["bytes"].to_pylist() == [len(tokenizer.decode(end).encode())] * 5
    assert len(end) < len("größer")
