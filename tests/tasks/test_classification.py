from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score
from transformers import LlamaConfig, LlamaForSequenceClassification

from orchestrator.tasks.batches import evaluation_batches
from orchestrator.tasks.class_metrics import ONE_LABEL
from orchestrator.tasks.classification import Classification
from orchestrator.tasks.tokens import lengths, ragged

TEXTS = ["hello", "a", "some longer text", "xy", "nine or ten", "bcd"]
LABELS = [0, 2, 1, 1, 0, 2]
TASK = Classification()


@pytest.fixture(scope="module")
def rows(tokenizer):
    label = pa.array(LABELS, pa.int32())
    return TASK.tokenize(pa.table({"row": range(10, 16), "text": TEXTS, "label": label}), tokenizer, 12)


def alone(model, rows, index):
    """The model's logits for one row without any padding."""
    with torch.no_grad():
        return model(torch.tensor([rows["input_ids"][index].as_py()])).logits[0].double()


def test_classification_truncates_rows_to_max_length(rows):
    assert rows.schema.field("input_ids").type == pa.list_(pa.int32())
    assert lengths(rows).tolist() == [5, 1, 12, 2, 11, 3]
    assert (rows["row"].to_pylist(), rows["label"].to_pylist()) == ([10, 11, 12, 13, 14, 15], LABELS)


def test_ragged_tokens_are_not_copied(rows):
    values = ragged(rows)[0]
    assert values.__array_interface__["data"][0] == rows["input_ids"].chunk(0).values.buffers()[1].address


def test_ragged_tokens_of_slices_and_chunked_tables(rows):
    again = pa.concat_tables([rows.slice(0, 2), rows.slice(2)])
    for table in (again, again.slice(1, 4), rows.slice(1, 4)):
        values, starts = ragged(table)
        token_ids = [values[a:b].tolist() for a, b in pairwise(starts)]
        assert token_ids == table["input_ids"].to_pylist()


@pytest.mark.parametrize("left", [False, True])
def test_collate_pads_to_the_longest_row_of_the_batch(rows, left):
    batch = TASK.collate(rows, np.array([3, 0]), pad_id=0, pad_left=left)
    assert batch["input_ids"].shape == (2, 5)
    assert batch["attention_mask"].tolist() == [[0, 0, 0, 1, 1] if left else [1, 1, 0, 0, 0], [1] * 5]
    ids = batch["input_ids"][0][batch["attention_mask"][0] == 1].tolist()
    assert ids == rows["input_ids"][3].as_py()
    assert batch["labels"].tolist() == [1, 0]


def test_classification_loss_is_the_mean_cross_entropy(encoder, rows):
    batch = TASK.collate(rows, np.arange(6), pad_id=0)
    longhand = [-alone(encoder, rows, i).log_softmax(0)[label] for i, label in enumerate(LABELS)]
    torch.testing.assert_close(TASK.loss(encoder, batch).double(), torch.stack(longhand).mean(), rtol=1e-5, atol=1e-6)


def test_classification_loss_has_gradients(encoder, rows):
    TASK.loss(encoder, TASK.collate(rows, np.arange(3), pad_id=0)).backward()
    assert encoder.classifier.weight.grad.abs().sum() > 0
    encoder.zero_grad(set_to_none=True)


@pytest.mark.parametrize("size", [1, 2, 6])
def test_classification_predictions_do_not_depend_on_batches(encoder, rows, size):
    evaluation = TASK.evaluate(encoder, rows, evaluation_batches(lengths(rows), size), pad_id=0)
    assert evaluation.predictions["row"].to_pylist() == [10, 11, 12, 13, 14, 15]
    assert evaluation.predictions["label"].to_pylist() == LABELS
    expected = np.stack([alone(encoder, rows, i).softmax(0).numpy() for i in range(6)])
    np.testing.assert_allclose(evaluation.predictions["probabilities"].to_pylist(), expected, atol=1e-6)
    assert evaluation.metrics["accuracy"] == accuracy_score(LABELS, expected.argmax(1))
    assert evaluation.metrics["macro_f1"] == pytest.approx(f1_score(LABELS, expected.argmax(1), average="macro"))
    assert not any(parameter.grad is not None for parameter in encoder.parameters())


def test_evaluate_scores_the_rows_of_the_batches_alone(encoder, rows):
    evaluation = TASK.evaluate(encoder, rows, [np.array([4]), np.array([1, 2])], pad_id=0)
    assert evaluation.predictions["row"].to_pylist() == [11, 12, 14]


def test_left_padded_decoder_classifies_by_its_last_token(rows, decoder_sizes):
    torch.manual_seed(0)
    model = LlamaForSequenceClassification(LlamaConfig(bos_token_id=None, **{**decoder_sizes, "num_labels": 3})).eval()
    evaluation = TASK.evaluate(model, rows, [np.arange(6)], pad_id=0, pad_left=True)
    expected = np.stack([alone(model, rows, i).softmax(0).numpy() for i in range(6)])
    np.testing.assert_allclose(evaluation.predictions["probabilities"].to_pylist(), expected, atol=1e-5)


@pytest.fixture
def predictions():
    random = np.random.default_rng(0)
    table = random.dirichlet(np.ones(4), 200)
    column = pa.FixedSizeListArray.from_arrays(pa.array(table.ravel()), 4)
    return pa.table(
        {"row": range(200), "label": pa.array(random.integers(0, 3, 200), pa.int32()), "probabilities": column}
    )


@pytest.mark.parametrize("metric", [metric.name for metric in ONE_LABEL])
def test_classification_score_many_equals_scores_one_by_one(predictions, metric):
    draws = np.random.default_rng(1).integers(0, 200, (50, 200))
    one_by_one = [TASK.score(metric, predictions.take(draw)) for draw in draws]
    np.testing.assert_allclose(TASK.score_many(metric, predictions, draws), one_by_one, rtol=1e-12)


@pytest.mark.parametrize("rows", [1, 3, 40, 200])
def test_classification_scores_equal_scikit_learns_over_all_classes(predictions, rows):
    part = predictions.slice(0, rows)  # the fourth class is never true, and in few rows others are not either
    true, guess = part["label"].to_numpy(), np.array(part["probabilities"].to_pylist()).argmax(1)
    expected = f1_score(true, guess, average="macro", labels=range(4), zero_division=0)
    assert TASK.score("macro_f1", part) == pytest.approx(expected, abs=1e-12)
    assert TASK.score("accuracy", part) == pytest.approx(accuracy_score(true, guess))


def test_unknown_metric_is_refused(predictions):
    with pytest.raises(ValueError, match="unknown metric 'f1'; known: macro_f1, accuracy"):
        TASK.score("f1", predictions)


def test_classification_metrics_are_maximized():
    assert all(metric.higher_is_better for metric in TASK.metrics)
