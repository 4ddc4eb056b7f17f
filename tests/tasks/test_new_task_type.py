"""A task type in one file: what follows up to ``stars`` is all that a new type needs, beside a line in the registry."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
import yaml
from mlflow.types import DataType
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerBase

import methods
import search_spaces
from orchestrator.common.errors import InputError
from orchestrator.common.metric import Metric
from orchestrator.config import SweepConfig, json_schema, load_config
from orchestrator.engine.task_dataset import TaskDataset
from orchestrator.planning.capability import Probe
from orchestrator.tasks import TASK_TYPES, TaskSection, TaskType, read_task, task_type
from orchestrator.tasks._base import Batches
from orchestrator.tasks.batches import evaluation_batches
from orchestrator.tasks.columns import Column
from orchestrator.tasks.file_headers import Key
from orchestrator.tasks.metric_field import MetricNames, MetricsOf
from orchestrator.tasks.tokens import (
    device_of,
    in_table_order,
    lengths,
    model_inputs,
    pad,
    sequences,
    token_column,
)
from orchestrator.tracking.bundle import Bundle
from orchestrator.tracking.packaging import signature
from orchestrator.tracking.predict_lines import predict_lines
from orchestrator.tracking.predictor import Predictor


def root_mean_squared_error(predictions: pa.Table, draws: NDArray[np.int64]) -> NDArray[np.float64]:
    errors = predictions["predicted"].to_numpy() - predictions["target"].to_numpy()
    scores: NDArray[np.float64] = np.sqrt((errors[draws] ** 2).mean(axis=1))
    return scores


METRICS = (
    Metric(
        name="rmse",
        direction="minimize",
        bounds=(0.0, float("inf")),
        label="RMSE",
        statistic=root_mean_squared_error,
    ),
)


class StarsTask(TaskSection):
    """One number per text."""

    type: Literal["stars"]
    """One number per text."""
    text: str
    """Column of the texts."""
    target: str
    """Column of the numbers."""
    metric: Annotated[MetricNames, MetricsOf(METRICS)] = METRICS[0].name
    """What the search minimizes."""

    @property
    def input_column(self) -> str:
        return self.text

    def content_columns(self) -> dict[Key, list[str]]:
        return {("text",): [self.text], ("target",): [self.target]}

    def contents(self, columns: Mapping[str, Column]) -> dict[str, pa.Array]:
        return {"text": columns[self.text].texts, "target": columns[self.target].texts}

    def encode(
        self, tables: dict[str, pa.Table], files: Mapping[str, str], key: str
    ) -> tuple[dict[str, pa.Table], tuple[str, ...]]:
        numbers = {name: pc.cast(table["target"], pa.float64()) for name, table in tables.items()}
        return {name: table.set_column(2, "target", numbers[name]) for name, table in tables.items()}, ("target",)


class Stars(TaskType):
    """Any ``AutoModelForSequenceClassification`` with a head for one number."""

    section = StarsTask
    metrics = METRICS
    auto_class = "AutoModelForSequenceClassification"
    peft_task_type = "SEQ_CLS"
    text_columns = ("text",)
    example_input = "A nice little place."
    pads_left = True
    example_labels = 1

    def tokenize(self, rows: pa.Table, tokenizer: PreTrainedTokenizerBase, max_length: int) -> pa.Table:
        ids = tokenizer(rows["text"].to_pylist(), truncation=True, max_length=max_length)["input_ids"]
        return pa.table({"row": rows["row"], "input_ids": token_column(ids), "target": rows["target"]})

    def collate(
        self, rows: pa.Table, indices: NDArray[np.int64], pad_id: int, pad_left: bool = False
    ) -> dict[str, Tensor]:
        targets = torch.from_numpy(rows["target"].to_numpy()[indices].astype(np.float32))
        return {**pad(sequences(rows, indices), pad_id, pad_left), "labels": targets}

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        numbers = model(**model_inputs(model, batch)).logits[:, 0].float()
        return nn.functional.mse_loss(numbers, batch["labels"].to(device_of(model)))

    def predictions(
        self, model: nn.Module, rows: pa.Table, batches: Batches, pad_id: int, pad_left: bool = False
    ) -> pa.Table:
        numbers = []
        with torch.no_grad():
            for indices in batches:
                batch = self.collate(rows, indices, pad_id, pad_left)
                numbers.append(model(**model_inputs(model, batch)).logits[:, 0].double().cpu().numpy())
        order, indices = in_table_order(batches)
        table = rows.select(["row", "target"]).take(indices)
        return table.append_column("predicted", pa.array(np.concatenate(numbers)[order]))

    def unanswered(self, texts: Sequence[str]) -> pa.Table:
        return super().unanswered(texts).append_column("target", pa.array(np.zeros(len(texts))))

    def answer_columns(self, labels: Sequence[str]) -> dict[str, Literal["string", "double", "long"]]:
        return {"stars": "double"}

    def answer(
        self,
        model: nn.Module,
        rows: pa.Table,
        batches: Batches,
        pad_id: int,
        pad_left: bool,
        labels: Sequence[str],
    ) -> pa.Table:
        predictions = self.predictions(model, rows, batches, pad_id, pad_left)
        return predictions.select(["predicted"]).rename_columns(["stars"])

    def reproducible(self, predictions: pa.Table) -> NDArray[np.float64]:
        numbers: NDArray[np.float64] = predictions["predicted"].to_numpy()
        return numbers[:, None]

    def purpose(self, labels: Sequence[str]) -> str:
        return "Gives a text a number of stars"

    def dummy_labels(self, input_ids: Tensor, attention_mask: Tensor, labels: int) -> Tensor:
        return torch.ones(len(input_ids), device=input_ids.device)


SIZES: dict[str, Any] = {
    "vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
    "max_position_embeddings": 64, "pad_token_id": 0,
}  # fmt: skip


@pytest.fixture
def stars() -> Iterator[TaskType]:
    """The type as the registry's line adds it; configurations follow the registry when their schema is built."""
    TASK_TYPES["stars"] = Stars()
    SweepConfig.model_rebuild(force=True)
    yield TASK_TYPES["stars"]
    del TASK_TYPES["stars"]
    SweepConfig.model_rebuild(force=True)


@pytest.fixture
def sweep(stars: TaskType, tmp_path: Path) -> Path:
    rows = "".join(f"{'good ' * (i % 5)}place {i},{i % 5}.5\n" for i in range(40))
    (tmp_path / "places.csv").write_text("review,stars\n" + rows)
    task = {"type": "stars", "data": "places.csv", "text": "review", "target": "stars"}
    values = {"backbone": {"model": "org/name"}, "tasks": {"places": task}, "budget": {"trials": 2}}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(values))
    return tmp_path / "sweep.yaml"


@pytest.fixture
def regressor() -> nn.Module:
    torch.manual_seed(0)
    return BertForSequenceClassification(BertConfig(**SIZES, num_labels=1)).eval()  # type: ignore[call-arg]


def test_new_type_is_validated_and_in_the_schema(sweep: Path) -> None:
    task = load_config(sweep).tasks["places"]
    assert (task.type, task.metrics, task.input_column) == ("stars", ("rmse",), "review")
    assert load_config(sweep).resolved()["tasks"]["places"]["target"] == "stars"
    assert json_schema()["$defs"]["StarsTask"]["properties"]["metric"]["anyOf"][0] == {"enum": ["rmse"]}
    for old, new, message in (
        ("target: stars", "target: starz", 'target: column "starz" is not in places.csv; did you mean stars?'),
        ("type: stars", "type: star", "type: 'star' is not possible; did you mean stars?"),
        ("target: stars", "metric: rsme\n    target: stars", "metric: 'rsme' is not possible; did you mean rmse?"),
    ):
        broken = sweep.with_name("broken.yaml")
        broken.write_text(sweep.read_text().replace(old, new))
        with pytest.raises(InputError) as raised:
            load_config(broken)
        assert f"tasks.places.{message}" in str(raised.value)


def test_new_type_is_read_trained_on_and_scored(
    sweep: Path, tokenizer: PreTrainedTokenizerBase, regressor: nn.Module
) -> None:
    config = load_config(sweep).tasks["places"]
    data, type_ = read_task("places", config, sweep.parent, 0), task_type(config)
    assert (data.labels, data.majority) == (("target",), None)
    tokens = type_.tokenize(data.splits["test"], tokenizer, 32)
    batches = evaluation_batches(lengths(tokens), 3)
    loss = type_.loss(regressor, type_.collate(tokens, np.arange(tokens.num_rows), 0))
    loss.backward()
    evaluation = type_.evaluate(regressor, tokens, batches, 0)
    assert evaluation.metrics == {"rmse": pytest.approx(loss.item() ** 0.5, rel=1e-5)}
    draws = np.array([[0, 0, 1], [2, 2, 2]])
    assert type_.score_many("rmse", evaluation.predictions, draws).shape == (2,)


def test_new_type_is_answered_and_signed(
    stars: TaskType, tokenizer: PreTrainedTokenizerBase, regressor: nn.Module
) -> None:
    bundle = Bundle.model_construct(  # type: ignore[call-arg]
        type="stars", labels=("target",), column="review", metric="rmse", max_new_tokens=32, max_length=16,
        evaluation_batch=2, environment=SimpleNamespace(threads=1),  # type: ignore[arg-type]
    )  # fmt: skip
    assert [(column.name, column.type) for column in signature(bundle).outputs] == [("stars", DataType.double)]
    predictor = Predictor(bundle, regressor, tokenizer, decoder=False)
    texts = ["a place", "good", "a good place"]
    numbers = predictor.predict(texts)["stars"].to_pylist()
    assert numbers == pytest.approx([predictor.predict([text])["stars"][0].as_py() for text in texts], abs=1e-5)
    assert predictor.predict([]).schema == predictor.predict(texts).schema
    lines = [json.dumps({"review": text}).encode() for text in texts]
    (chunk,) = predict_lines(predictor, lines, "rows")
    assert [json.loads(line)["stars"] for line in chunk.lines.splitlines()] == pytest.approx(numbers, abs=1e-6)


def test_new_type_is_tried_with_methods(stars: TaskType) -> None:
    probe = Probe(BertConfig(**SIZES), stars, name="tiny", labels=1, quantization="none")
    for name in ("lora", "linear_probe", "ia3"):
        capability = probe.capability(name, search_spaces.get(name).default)
        assert capability.available, capability.reason
    assert not probe.capability("hard_prompt", search_spaces.get("hard_prompt").default).available
    assert methods.get("lora").tasks >= {stars.peft_task_type}


def test_new_type_has_a_dataset_in_memory(stars: TaskType, tokenizer: PreTrainedTokenizerBase) -> None:
    backbone: Any = SimpleNamespace(
        context=SimpleNamespace(task="stars"),
        model=SimpleNamespace(config=SimpleNamespace(num_labels=1)),
        decoder=False,
    )
    dataset = TaskDataset.from_examples(backbone, tokenizer, {"train": [("good", "4.5"), ("bad", "1")]})
    assert dataset.batch(np.array([0, 1]))["labels"].tolist() == [4.5, 1.0]
