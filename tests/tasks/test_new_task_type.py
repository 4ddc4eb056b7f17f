"""A task type in one file: what follows up to ``stars`` is all that a new type needs, beside a line in the registry."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
import yaml
from mlflow.utils.proto_json_utils import dataframe_from_parsed_json
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
from orchestrator.tasks.batches import Batches, evaluation_batches
from orchestrator.tasks.columns import Column
from orchestrator.tasks.file_headers import Key
from orchestrator.tasks.inputs import ColumnKind, InputColumn, to_arrow
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
    def input_columns(self) -> dict[str, str]:
        return {"text": self.text, **{name: name for name in ("price", "dishes", "visits")}}

    def content_columns(self) -> dict[Key, list[str]]:
        return {("text",): [self.text], ("target",): [self.target]}

    def contents(self, columns: Mapping[str, Column]) -> dict[str, pa.Array]:
        return {"text": columns[self.text].texts, "target": columns[self.target].texts}

    def encode(
        self, tables: dict[str, pa.Table], files: Mapping[str, str], key: str
    ) -> tuple[dict[str, pa.Table], tuple[str, ...]]:
        numbers = {name: pc.cast(table["target"], pa.float64()) for name, table in tables.items()}
        return {name: table.set_column(2, "target", numbers[name]) for name, table in tables.items()}, ("target",)


def _unnamed(visits: Any) -> str:
    return "" if isinstance(visits, list) else "is not a list of visits"


class Stars(TaskType):
    """Any ``AutoModelForSequenceClassification`` with a head for one number; a client can send more than a file has."""

    section = StarsTask
    metrics = METRICS
    auto_class = "AutoModelForSequenceClassification"
    peft_task_type = "SEQ_CLS"
    text_columns = ("text",)
    input_columns = MappingProxyType({
        "text": InputColumn(example="A nice little place."),
        "price": InputColumn(kind="double", example=25.5, required=False),
        "dishes": InputColumn(kind="strings", example=["soup", "rice"], required=False),
        "visits": InputColumn(kind="json", example=[{"by": "Ada"}, {"at": [1, 2]}], required=False, check=_unnamed),
    })  # fmt: skip
    pads_left = True
    example_labels = 1

    def tokenize(self, rows: pa.Table, tokenizer: PreTrainedTokenizerBase, max_length: int) -> pa.Table:
        extra = [name for name in self.input_columns if name in rows.column_names]
        texts = [" ".join(str(value) for value in row.values() if value) for row in rows.select(extra).to_pylist()]
        ids = tokenizer(texts, truncation=True, max_length=max_length)["input_ids"]
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

    def unanswered(self, inputs: pa.Table) -> pa.Table:
        return super().unanswered(inputs).append_column("target", pa.array(np.zeros(inputs.num_rows)))

    def answer_columns(self, labels: Sequence[str]) -> dict[str, ColumnKind]:
        return {"stars": "double", "words": "strings", "lengths": "doubles", "origin": "json"}

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
        words = [text.split() for text in ("good place", "bad")][: len(rows)] * len(rows)
        columns: dict[str, ColumnKind] = self.answer_columns(labels)
        values = {
            "stars": predictions["predicted"].to_pylist(),
            "words": words[: len(rows)],
            "lengths": [[float(len(word)) for word in each] for each in words[: len(rows)]],
            "origin": [{"row": row} for row in predictions["row"].to_pylist()],
        }
        return pa.table({name: to_arrow(values[name], kind) for name, kind in columns.items()})

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
    return BertForSequenceClassification(BertConfig(**SIZES, num_labels=1, initializer_range=0.3)).eval()  # type: ignore[call-arg]


def test_new_type_is_validated_and_in_the_schema(sweep: Path) -> None:
    task = load_config(sweep).tasks["places"]
    assert (task.type, task.metrics, task.input_columns["text"]) == ("stars", ("rmse",), "review")
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


@pytest.fixture
def predictor(stars: TaskType, tokenizer: PreTrainedTokenizerBase, regressor: nn.Module) -> Predictor:
    columns = {"text": "review", "price": "price", "dishes": "dishes", "visits": "visits"}
    bundle = Bundle.model_construct(  # type: ignore[call-arg]
        type="stars", labels=("target",), columns=columns, metric="rmse", max_new_tokens=32, max_length=64,
        evaluation_batch=2, environment=SimpleNamespace(threads=1),  # type: ignore[arg-type]
    )  # fmt: skip
    return Predictor(bundle, regressor, tokenizer, decoder=False)


ROWS: list[dict[str, Any]] = [
    {"review": "a place", "price": None, "dishes": None, "visits": None},
    {"review": "good", "price": 25, "dishes": ["soup"], "visits": None},
    {
        "review": "a good place",
        "price": None,
        "dishes": None,
        "visits": [{"by": "Ada", "at": [{"hour": 1}]}, {"of": None}],
    },
]


def test_new_type_is_answered_row_by_row(predictor: Predictor) -> None:
    numbers = predictor.predict(ROWS)["stars"].to_pylist()
    assert numbers == pytest.approx([predictor.predict([row])["stars"][0].as_py() for row in ROWS], abs=1e-5)
    alone = [{"review": row["review"]} for row in ROWS]
    assert np.abs(np.subtract(numbers, predictor.predict(alone)["stars"].to_pylist()))[1:].min() > 1e-4
    assert predictor.predict([]).schema == predictor.predict(ROWS).schema
    lines = [json.dumps(row).encode() for row in ROWS]
    (chunk,) = predict_lines(predictor, lines, "rows")
    answers = [json.loads(line) for line in chunk.lines.splitlines()]
    assert [answer["stars"] for answer in answers] == pytest.approx(numbers, abs=1e-6)
    assert (answers[0]["words"], answers[0]["lengths"]) == (["good", "place"], [4.0, 5.0])
    assert [answer["origin"] for answer in answers] == [{"row": row} for row in range(3)]


def test_new_type_is_signed_with_all_kinds_of_answers(predictor: Predictor) -> None:
    schema = signature(predictor.bundle)
    assert schema.inputs is None
    assert [(column.name, str(column.type)) for column in schema.outputs] == [
        ("stars", "DataType.double"), ("words", "Array(string)"), ("lengths", "Array(double)"), ("origin", "Any"),
    ]  # fmt: skip


@pytest.fixture
def served(predictor: Predictor) -> Any:
    """The model as MLflow calls it, with its signature; its packages warn while they are imported."""
    from mlflow.models import Model
    from mlflow.pyfunc import PyFuncModel

    from orchestrator.tracking.pyfunc_model import AdapterModel

    adapter, meta = AdapterModel(), Model(signature=signature(predictor.bundle))
    adapter.predictor = predictor
    meta.add_flavor("python_function", loader_module="mlflow.pyfunc.model")
    impl = SimpleNamespace(predict=lambda data, params=None: adapter.predict(None, data))
    return PyFuncModel(model_meta=meta, model_impl=impl)


@pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType")
@pytest.mark.parametrize("send", ["frame", "split", "records"])
def test_new_type_is_served_with_and_without_optional_columns(predictor: Predictor, served: Any, send: Any) -> None:
    for rows in (ROWS, [{"review": row["review"]} for row in ROWS], [predictor.bundle.input_schema.example]):
        frame = pd.DataFrame(rows)
        if send != "frame":  # as MLflow's server reads a request
            values = json.loads(frame.to_json(orient=send))
            frame = dataframe_from_parsed_json(values, pandas_orient=send, schema=None)
        answers: Any = served.predict(frame)
        expected = predictor.predict(rows)
        assert answers["stars"].tolist() == pytest.approx(expected["stars"].to_pylist(), abs=1e-6)
        assert (answers["words"][0], answers["origin"][0]) == (["good", "place"], {"row": 0})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"review": None}, "review is null, not a string"),
        ({"price": "5"}, "price is string, not a number"),
        ({"price": True}, "price is boolean, not a number"),
        ({"dishes": "soup"}, "dishes is string, not an array of strings"),
        ({"dishes": ["soup", 3]}, "dishes is array of number and string, not an array of strings"),
        ({"visits": "Ada"}, "visits is string, not an array or an object"),
        ({"visits": {}}, "visits is not a list of visits"),
    ],
)
def test_new_type_names_the_column_of_a_row_that_is_refused(
    predictor: Predictor, change: dict[str, Any], message: str
) -> None:
    rows = [ROWS[0], {**ROWS[0], **change}]
    with pytest.raises(ValueError, match=f"row 2: {message}"):
        predictor.predict(rows)
    with pytest.raises(InputError) as raised:
        list(predict_lines(predictor, [json.dumps(row).encode() for row in rows], "rows"))
    first, hint = raised.value.lines()
    assert first == f"rows: line 2: {message}"
    assert hint == 'a row is {"review": "..."}, in one line'


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
