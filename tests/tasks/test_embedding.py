"""Embedding models: rows, vectors, losses and ranks against longhand math, keys that go together."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from scipy.stats import spearmanr

from methods.plugins.loader import register_source
from orchestrator.config import Task
from orchestrator.tasks import TASK_TYPES, read_task, task_type
from orchestrator.tasks.batches import evaluation_batches
from orchestrator.tasks.embedding.loss import in_batch_loss, ranking_loss
from orchestrator.tasks.embedding.metrics import ranks
from orchestrator.tasks.tokens import lengths

from ..architectures import config_of
from ..small_backbone import model_of, word_tokenizer, words

EMBEDDING = TASK_TYPES["embedding"]
ROWS = [(words(*range(4, 6 + n % 4)), words(*range(50, 52 + n))) for n in range(8)]


def config(**keys: Any) -> Any:
    values = {"type": "embedding", "data": "rows.jsonl", "anchor": "question", "positive": "answer", **keys}
    return TypeAdapter(Task).validate_python(values)


def table(*rows: tuple[str, ...], names: tuple[str, ...] = ("anchor", "positive", "negative")) -> pa.Table:
    columns = dict(zip(names, zip(*rows, strict=True), strict=False))
    return EMBEDDING.tokenize(pa.table({"row": range(1, len(rows) + 1), **columns}), word_tokenizer(), 16)


def batches(rows: pa.Table, size: int = 3) -> Any:
    return evaluation_batches(lengths(rows), size)


def test_embedding_batch_holds_anchors_then_positives_then_negatives() -> None:
    rows = table(("word4", "word5 word6", "word7"), ("word8", "word9", "word4"))
    assert rows["input_ids"].to_pylist() == [[4, 1, 5, 6, 1, 7, 1], [8, 1, 9, 1, 4, 1]]
    batch = EMBEDDING.collate(rows, np.array([0, 1]), 0)
    assert batch["input_ids"].tolist() == [[4, 1, 0], [8, 1, 0], [5, 6, 1], [9, 1, 0], [7, 1, 0], [4, 1, 0]]
    assert batch["labels"].tolist() == [[0, 2, 4], [1, 3, 0]], "equal texts share a number"
    left = EMBEDDING.collate(rows, np.array([0]), 0, pad_left=True)
    assert left["input_ids"].tolist() == [[0, 4, 1], [5, 6, 1], [0, 7, 1]]


@pytest.mark.parametrize(("name", "pad_left"), [("bert", False), ("llama", True)])
def test_embedding_is_the_mean_or_the_last_token(name: str, pad_left: bool) -> None:
    model, rows = model_of(config_of(name), "embedding"), table(*ROWS)
    vectors = EMBEDDING.forward(model, EMBEDDING.collate(rows, np.arange(8), 0, pad_left))
    assert vectors.shape == EMBEDDING.forward_shape(model.config, EMBEDDING.collate(rows, np.arange(8), 0))
    for row, (anchor, positive) in enumerate(ROWS):
        for place, text in ((row, anchor), (8 + row, positive)):
            ids = torch.tensor([word_tokenizer()(text)["input_ids"]])
            states = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0]
            expected = states[-1] if pad_left else states.mean(dim=0)
            torch.testing.assert_close(vectors[place], expected / expected.norm(), rtol=1e-4, atol=1e-5)


def test_in_batch_loss_is_that_of_longhand_math() -> None:
    torch.manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(3, 4, 5, dtype=torch.float64), dim=-1)
    # row 1 has row 0's anchor; row 2's positive is row 0's; row 3's negative is row 0's positive, row 2's its anchor
    numbers = torch.tensor([[0, 10, 20], [0, 11, 21], [2, 10, 2], [3, 13, 10]])
    anchors, candidates = vectors[0], [*vectors[1], *vectors[2]]
    not_counted = {0: {1, 2, 7}, 1: {0}, 2: {0, 6, 7}, 3: set[int]()}
    losses = []
    for row in range(4):
        logits = [anchors[row] @ candidate / 0.05 for candidate in candidates]
        denominator = sum(logit.exp() for place, logit in enumerate(logits) if place not in not_counted[row])
        losses.append(-(logits[row].exp() / denominator).log())
    torch.testing.assert_close(in_batch_loss(vectors, numbers), torch.stack(losses).mean())


def test_ranking_loss_is_that_of_longhand_math() -> None:
    similarities, scores = torch.tensor([0.1, 0.4, 0.3, 0.4]).double(), torch.tensor([1.0, 5.0, 5.0, 2.0])
    wrong = [(i, j) for i in range(4) for j in range(4) if scores[i] > scores[j]]
    total = sum(((similarities[j] - similarities[i]) / 0.05).exp() for i, j in wrong)
    assert len(wrong) == 5
    torch.testing.assert_close(ranking_loss(similarities, scores), torch.log1p(torch.as_tensor(total)))
    equal = ranking_loss(similarities.requires_grad_(), torch.ones(4))
    equal.backward()
    assert (equal.item(), similarities.grad.abs().sum().item()) == (0, 0)  # type: ignore[union-attr]


def test_ranks_count_ties_against_the_positive() -> None:
    candidates = np.eye(4, dtype=np.float32)
    anchors = np.array([[0.9, 0.5, 0.1, 0.7], [0.5, 0.5, 0.5, 0.5], [0.0, 0.1, 0.9, 0.3]], np.float32)
    assert ranks(anchors, candidates, np.array([1, 2, 3]), np.array([-1, -1, 2])).tolist() == [3, 4, 1]
    assert ranks(anchors[2:], candidates, np.array([2]), np.array([2])).tolist() == [1], "its own text is its positive"


def test_retrieval_metrics_count_each_anchor_once() -> None:
    # anchor 1 has ranks 1 and 12, anchor 3 has rank 3
    predictions = pa.table({"row": [1, 2, 3], "anchor": [1, 1, 3], "rank": pa.array([12, 1, 3], pa.int32())})
    assert EMBEDDING.score("recall_at_1", predictions) == pytest.approx((0.5 + 0) / 2)
    assert EMBEDDING.score("recall_at_10", predictions) == pytest.approx((0.5 + 1) / 2)
    assert EMBEDDING.score("mrr", predictions) == pytest.approx((1 + 1 / 3) / 2)
    first = 1 / (1 + 1 / np.log2(3))
    assert EMBEDDING.score("ndcg_at_10", predictions) == pytest.approx((first + 1 / np.log2(4)) / 2)
    draws = np.array([[0, 0, 2], [1, 1, 1], [2, 1, 2]])
    expected = [(0.5 + 0.5 + 0) / 3, 0, 0]
    assert EMBEDDING.score_many("recall_at_1", predictions, draws).tolist() == pytest.approx(expected)


def test_embedding_ranks_among_distinct_positives() -> None:
    model = model_of(config_of("bert"), "embedding")
    rows = table(("word4", "word50"), ("word5 word6", "word51 word52"), ("word4", "word53"), ("word7", "word50"))
    evaluation = EMBEDDING.evaluate(model, rows, batches(rows), 0)
    vectors = EMBEDDING.forward(model, EMBEDDING.collate(rows, np.arange(4), 0)).numpy()
    anchors, positives = vectors[:4], vectors[4:]
    candidates = positives[:3]
    expected = [
        1 + sum(anchors[row] @ other > anchors[row] @ positives[row] + 1e-6 for other in candidates) for row in range(4)
    ]
    predictions = evaluation.predictions
    assert predictions["rank"].to_pylist() == expected
    assert predictions["anchor"].to_pylist() == [1, 2, 1, 4]
    np.testing.assert_allclose(predictions["similarity"], (anchors * positives).sum(axis=1), atol=1e-5)
    assert [*evaluation.metrics] == ["ndcg_at_10", "recall_at_1", "recall_at_10", "mrr"]


def test_embedding_predictions_do_not_depend_on_batches() -> None:
    model, rows = model_of(config_of("llama"), "embedding"), table(*ROWS)
    few, many = (EMBEDDING.predictions(model, rows, batches(rows, size), 0, True) for size in (1, 8))
    assert few["rank"].to_pylist() == many["rank"].to_pylist()
    np.testing.assert_allclose(few["similarity"], many["similarity"], atol=1e-5)


def test_scored_pairs_are_scored_by_rank_correlation(tmp_path: Path) -> None:
    task = config(score="rating")
    assert task.metrics == ("spearman",)
    lines = [f'{{"question": "{a}", "answer": "{b}", "rating": {n % 5}}}' for n, (a, b) in enumerate(ROWS * 3)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    data = read_task("pairs", task, tmp_path, 0)
    assert data.splits["train"]["score"].type == pa.float64()
    kind, model = task_type(task), model_of(config_of("bert"), "embedding")
    rows = kind.tokenize(data.splits["train"], word_tokenizer(), 16)
    evaluation = kind.evaluate(model, rows, batches(rows), 0)
    expected = spearmanr(evaluation.predictions["target"], evaluation.predictions["predicted"]).statistic
    assert evaluation.metrics == {"spearman": pytest.approx(expected)}
    batch = kind.collate(rows, np.arange(rows.num_rows), 0)
    assert kind.loss(model, batch).item() > 0


def test_embedding_answers_with_vectors_of_texts() -> None:
    model, texts = model_of(config_of("bert"), "embedding"), [anchor for anchor, _ in ROWS[:3]]
    inputs = EMBEDDING.input_schema({"anchor": "text"}).to_table([{"text": text} for text in texts])
    rows = EMBEDDING.tokenize(EMBEDDING.unanswered(inputs), word_tokenizer(), 16)
    vectors = EMBEDDING.answer(model, rows, batches(rows, 2), 0, False, ())["embedding"].to_pylist()
    expected = EMBEDDING.forward(model, EMBEDDING.collate(table(*ROWS[:3]), np.arange(3), 0))[:3]
    np.testing.assert_allclose(vectors, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"score": "s", "negative": "n"}, "cannot stand beside score"),
        ({"score": "s", "metric": "mrr"}, "'mrr' is not for pairs with score; choose from spearman"),
        ({"metric": ["mrr", "spearman"]}, "'spearman' is not for pairs without score; choose from ndcg_at_10"),
    ],
)
def test_embedding_keys_that_contradict_are_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as raised:
        config(**keys)
    assert message in str(raised.value.errors()[0])


@pytest.mark.usefixtures("no_metric_files")
@pytest.mark.parametrize("has_scores", [True, False])
def test_embedding_is_scored_by_a_users_metric(has_scores: bool) -> None:
    source = "DIRECTION = 'maximize'\ndef {name}(p, r):\n    return [float({value}) for a, b in zip(p, r)]\n"
    register_source("mine", source.format(name="near", value="-abs(a - b)" if has_scores else "a <= b + 1"))
    task = config(**{"score": "rating"} if has_scores else {}).model_copy(update={"metric": "my/mine.py:near"})
    columns = {"row": range(1, 9), "anchor": [a for a, _ in ROWS], "positive": [b for _, b in ROWS]}
    rows = pa.table({**columns, "score": np.arange(8.0)} if has_scores else columns)
    kind, model = task_type(task, constants=task.constants(rows)), model_of(config_of("bert"), "embedding")
    tokens = kind.tokenize(rows, word_tokenizer(), 16)
    evaluation = kind.evaluate(model, tokens, batches(tokens), 0)
    others = {"spearman"} if has_scores else {"ndcg_at_10", "recall_at_1", "recall_at_10", "mrr"}
    assert evaluation.metrics.keys() == {"mine.near", *others}
    if has_scores:
        expected = -np.abs(evaluation.predictions["similarity"].to_numpy() - np.arange(8.0)).mean()
    else:
        expected = (evaluation.predictions["rank"].to_numpy() <= 2).mean()
    assert evaluation.metrics["mine.near"] == pytest.approx(expected)
    predicted, right = kind.compared(kind.right_predictions(rows))
    assert predicted == right
