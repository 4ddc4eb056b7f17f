"""Regression: standardized targets, answers in the target's unit, and metrics against scipy and scikit-learn."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy import stats
from sklearn import metrics as sklearn
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerBase

from orchestrator.common.errors import InputError
from orchestrator.tasks import task_type
from orchestrator.tasks.batches import evaluation_batches
from orchestrator.tasks.regression import Regression, RegressionTask
from orchestrator.tasks.regression_metrics import METRICS
from orchestrator.tasks.tokens import lengths

MEAN, STD = 250.0, 40.0
TARGETS = [210.0, 250.0, 300.0, 180.0, 260.5]
TEXTS = ["hello", "a", "some longer text", "xy", "nine or ten"]
TASK = Regression(labels=("price",), constants={"mean": MEAN, "std": STD})


@pytest.fixture(scope="module")
def rows(tokenizer: PreTrainedTokenizerBase) -> pa.Table:
    return TASK.tokenize(pa.table({"row": range(5), "text": TEXTS, "target": TARGETS}), tokenizer, 12)


@pytest.fixture(scope="module")
def regressor() -> BertForSequenceClassification:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_labels": 1}
    sizes |= {"vocab_size": 97, "intermediate_size": 64, "max_position_embeddings": 64, "initializer_range": 0.3}
    return BertForSequenceClassification(BertConfig(**sizes)).eval()


def outputs(model: BertForSequenceClassification, rows: pa.Table) -> np.ndarray:
    """The model's output for each row alone."""
    with torch.no_grad():
        return np.array([model(torch.tensor([ids])).logits.item() for ids in rows["input_ids"].to_pylist()])


def test_regression_loss_is_the_squared_error_in_standard_deviations(
    regressor: BertForSequenceClassification, rows: pa.Table
) -> None:
    batch = TASK.collate(rows, np.arange(5), pad_id=0)
    errors = outputs(regressor, rows) - (np.array(TARGETS) - MEAN) / STD
    assert TASK.loss(regressor, batch).item() == pytest.approx((errors**2).mean(), rel=1e-5)
    assert TASK.loss_terms(batch) == 5


@pytest.mark.parametrize("size", [1, 2, 5])
def test_regression_predictions_are_in_the_targets_unit(
    regressor: BertForSequenceClassification, rows: pa.Table, size: int
) -> None:
    evaluation = TASK.evaluate(regressor, rows, evaluation_batches(lengths(rows), size), pad_id=0)
    predicted = outputs(regressor, rows) * STD + MEAN
    np.testing.assert_allclose(evaluation.predictions["predicted"], predicted, rtol=1e-5)
    assert evaluation.predictions["target"].to_pylist() == TARGETS
    assert evaluation.metrics == pytest.approx({
        "spearman": stats.spearmanr(TARGETS, predicted).statistic,
        "pearson": stats.pearsonr(TARGETS, predicted).statistic,
        "rmse": sklearn.root_mean_squared_error(TARGETS, predicted),
        "r2": sklearn.r2_score(TARGETS, predicted),
    }, rel=1e-4)  # fmt: skip


REFERENCE = {
    "spearman": lambda true, guess: stats.spearmanr(true, guess).statistic,
    "pearson": lambda true, guess: stats.pearsonr(true, guess).statistic,
    "rmse": sklearn.root_mean_squared_error,
    "r2": sklearn.r2_score,
}


@pytest.mark.parametrize("name", [metric.name for metric in METRICS])
@pytest.mark.parametrize("size", [3, 50])
def test_regression_metrics_equal_references_on_every_sample(name: str, size: int) -> None:
    random = np.random.default_rng(size)
    targets = random.integers(0, 6, 50) * 20.0  # with ties
    predicted = (targets + random.normal(0, 60, 50)).round(-1)
    table = pa.table({"target": targets, "predicted": predicted})
    draws = np.array([
        draw for draw in random.integers(50, size=(200, size))
        if len({*targets[draw]}) > 1 and len({*predicted[draw]}) > 1
    ])  # fmt: skip
    expected = [REFERENCE[name](targets[draw], predicted[draw]) for draw in draws]
    np.testing.assert_allclose(TASK.score_many(name, table, draws), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("targets", "predicted"), [([1, 2, 4], [0.1] * 3), ([0.1] * 3, [1, 2, 4]), ([3], [4])])
def test_regression_correlations_without_variation_are_zero(targets: list[float], predicted: list[float]) -> None:
    table = pa.table({"target": pa.array(targets, pa.float64()), "predicted": pa.array(predicted, pa.float64())})
    assert [TASK.score(name, table) for name in ("spearman", "pearson")] == [0.0, 0.0]
    assert TASK.score("r2", table) == pytest.approx(sklearn.r2_score([1, 2, 4], [0.1] * 3) if targets[0] == 1 else 0.0)


def write(folder: Path, targets: list[Any]) -> None:
    lines = "".join(f"text {i},other {i % 3},{target}\n" for i, target in enumerate(targets))
    (folder / "rows.csv").write_text("text,pair,price\n" + lines)


def test_regression_task_is_read_with_its_constants(read: Any, tmp_path: Path) -> None:
    targets = np.random.default_rng(0).normal(20, 5, 50).round(2)
    write(tmp_path, targets.tolist())
    data = read("rows.csv", type="regression", label=None, target="price", text_pair="pair")
    assert (data.labels, data.majority) == (("price",), None)
    train, test = (data.splits[name]["target"].to_numpy() for name in ("train", "test"))
    assert data.constants == {"mean": pytest.approx(train.mean()), "std": pytest.approx(train.std())}
    assert data.baseline == pytest.approx(np.sqrt(((test - train.mean()) ** 2).mean()))
    type_ = task_type(data.config, labels=data.labels, constants=data.constants)
    assert (type_.optimized.name, type_.head_size(1)) == ("spearman", 1)
    assert sorted(np.concatenate([split["target"].to_numpy() for split in data.splits.values()])) == sorted(targets)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("many", "row 3, column price: 'many' is not a number"),
        ("", "row 3, column price: is empty"),
        ("nan", "row 3, column"),
    ],
)
def test_regression_names_rows_whose_target_is_no_number(read: Any, tmp_path: Path, bad: str, message: str) -> None:
    write(tmp_path, [1, 2, bad, *range(20)])
    with pytest.raises(InputError) as raised:
        read("rows.csv", type="regression", label=None, target="price")
    assert message in str(raised.value)


def test_regression_refuses_targets_that_are_all_equal(read: Any, tmp_path: Path) -> None:
    write(tmp_path, [3] * 20)
    with pytest.raises(InputError, match="all 20 rows have the target 3; two different numbers are needed"):
        read("rows.csv", type="regression", label=None, target="price")


def test_regression_section_names_two_columns_of_texts() -> None:
    section = RegressionTask.in_memory()
    assert (section.input_columns, section.metrics) == ({"text": "text"}, ("spearman",))
    assert TASK.purpose(("price",)).startswith("Predicts `price` of a text, a number (training rows: mean 250,")
    assert TASK.example_output(("price",)) == "250.0 + 40.0 * logits.item()"
