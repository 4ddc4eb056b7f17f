"""Pairs of texts, and rows with several labels."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn
from transformers import BertForSequenceClassification, LlamaConfig, PreTrainedTokenizerBase

import search_spaces
from methods.base.spec import TaskText
from orchestrator.common.errors import InputError
from orchestrator.planning.capability import Probe
from orchestrator.tasks import TASK_TYPES, TaskData, TaskType, task_type
from orchestrator.tasks.tokens import lengths
from orchestrator.tracking.bundle import Bundle
from orchestrator.tracking.packaging import signature
from orchestrator.tracking.predictor import Predictor

LABELS = ("late", "lost", "rude")


def labelled(folder: Path, count: int = 60) -> None:
    """Rows of which every third has no label, and every seventh two."""
    random = np.random.default_rng(0)
    rows = [
        {"text": f"row {i} {'x' * (i % 9)}", "topics": sorted({*random.choice(LABELS, i % 3, p=[0.6, 0.3, 0.1])})}
        for i in range(count)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def data(read: Any, tmp_path: Path) -> TaskData:
    labelled(tmp_path)
    result: TaskData = read("rows.jsonl", label=None, labels="topics")
    return result


def test_several_labels_are_read_and_split_by_the_most_frequent(data: TaskData) -> None:
    assert (data.labels, data.majority, data.constants) == (LABELS, None, {"threshold": 0.5})
    strata = {name: np.bincount(split["stratum"].to_numpy(), minlength=4) for name, split in data.splits.items()}
    shares = [counts / counts.sum() for counts in strata.values()]
    assert np.ptp(shares, axis=0).max() < 0.1
    assert any(row == [] for row in data.splits["test"]["labels"].to_pylist())


def test_several_labels_are_learned_by_binary_cross_entropy(
    data: TaskData, tokenizer: PreTrainedTokenizerBase, encoder: BertForSequenceClassification
) -> None:
    type_ = task_type(data.config, labels=data.labels, constants=data.constants)
    assert [metric.name for metric in type_.computed] == ["macro_f1", "micro_f1"]
    assert (type_.optimized.name, type_.class_names) == ("micro_f1", ())
    rows = type_.tokenize(data.splits["train"], tokenizer, 16)
    indices = np.arange(8)
    batch = type_.collate(rows, indices, pad_id=0)
    hot = torch.tensor([[k in row for k in range(3)] for row in rows["labels"].to_pylist()[:8]]).double()
    with torch.no_grad():
        p = (
            torch.cat([encoder(torch.tensor([ids])).logits for ids in rows["input_ids"].to_pylist()[:8]])
            .double()
            .sigmoid()
        )
    longhand = -(hot * p.log() + (1 - hot) * (1 - p).log()).mean()
    assert type_.loss(encoder, batch).item() == pytest.approx(longhand.item(), rel=1e-5)
    assert type_.loss_terms(batch) == 24
    dummy = type_.dummy_labels(batch["input_ids"], batch["attention_mask"], 3)
    assert (dummy.shape, dummy.dtype) == (batch["labels"].shape, batch["labels"].dtype)
    predictions = type_.evaluate(encoder, rows, [indices[:3], indices[3:]], pad_id=0).predictions
    np.testing.assert_allclose(predictions["probabilities"].to_pylist(), p.numpy(), atol=1e-6)
    assert predictions["labels"].to_pylist() == rows["labels"].to_pylist()[:8]


def test_several_labels_are_answered_with_a_list(
    tokenizer: PreTrainedTokenizerBase, encoder: BertForSequenceClassification
) -> None:
    bundle = Bundle.model_construct(  # type: ignore[call-arg]
        type="classification", labels=LABELS, columns={"text": "body"}, metric="micro_f1", metrics={"micro_f1": 0.5},
        max_new_tokens=32, max_length=16, evaluation_batch=2, constants={"threshold": 0.5},
        environment=SimpleNamespace(threads=1),  # type: ignore[arg-type]
    )  # fmt: skip
    outputs = [(column.name, str(column.type)) for column in signature(bundle).outputs]
    assert outputs[:2] == [("labels", "Array(string)"), ("probability_late", "DataType.double")]
    predictor = Predictor(bundle, encoder, tokenizer, decoder=False)
    answers = predictor.predict([{"body": text} for text in ("a", "longer text", "xyz")]).to_pylist()
    for answer in answers:
        assert answer["labels"] == [name for name in LABELS if answer[f"probability_{name}"] >= 0.5]
    assert len({len(answer["labels"]) for answer in answers} | {3}) > 1
    shown = predictor.type.answer_object(answers[0])
    assert [*shown] == ["labels", "probabilities"]
    assert [*shown["probabilities"]] == [*LABELS]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"label": None}, ": label is missing; name the column of the labels, or with labels a column of lists"),
        ({"labels": "topics"}, ": has label and labels; name one of them"),
        ({"label": None, "labels": "topics", "metric": "mcc"}, "metric: 'mcc' is not possible with several labels"),
        ({"metric": "micro_f1"}, "metric: 'micro_f1' is not possible with one label per row; choose from macro_f1"),
        ({"text_pair": "text"}, "text_pair: is the column of text, text; name that of the second texts"),
    ],
)
def test_classification_section_refuses_keys_that_do_not_go_together(
    read: Any, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    labelled(tmp_path)
    with pytest.raises(ValueError, match="several keys do not go together") as raised:
        read("rows.jsonl", **settings)
    problems = raised.value.errors()[0]["ctx"]["problems"]  # type: ignore[attr-defined]
    assert f"{'.'.join(problems[0][0])}: {problems[0][1]}".startswith(message)


def test_several_labels_unknown_in_training_are_named_or_dropped(read: Any, tmp_path: Path) -> None:
    for name in ("train", "validation", "test"):
        rows = [{"text": f"{name} {i}", "topics": ["late"] if i % 2 else ["lost", "rude"]} for i in range(6)]
        rows += [{"text": "odd", "topics": ["late", "lots"]}] * (name == "test")
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {name: f"{name}.jsonl" for name in ("train", "validation", "test")}
    with pytest.raises(InputError, match="row 7, column topics: label 'lots' is not among the training rows; did you"):
        read(files, label=None, labels="topics")
    data = read(files, label=None, labels="topics", drop_invalid=True)
    assert (data.splits["test"].num_rows, data.dropped) == (6, 1)


TIED = LlamaConfig(
    vocab_size=97, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
    max_position_embeddings=128, pad_token_id=0, bos_token_id=None, tie_word_embeddings=True,
)  # fmt: skip


@pytest.mark.parametrize(
    ("type_", "runs"),
    [
        (TASK_TYPES["classification"].configured(("macro_f1",), 32, None, LABELS), True),
        (TASK_TYPES["classification"].configured(("micro_f1",), 32, None, LABELS, None, {"threshold": 0.5}), False),
        (TASK_TYPES["regression"].configured(("rmse",), 32, None, ("price",), None, {"mean": 3.0, "std": 1.0}), False),
    ],
    ids=["one_label", "several_labels", "number"],
)
def test_methods_run_on_labels_and_numbers_where_they_can(
    type_: TaskType, runs: bool, tokenizer: PreTrainedTokenizerBase
) -> None:
    text = TaskText(tokenizer=tokenizer, labels=type_.class_names, max_length=16, examples=lambda _: [([3, 4], 0)])
    head = type_.head_size(len(type_.labels))
    probe = Probe(TIED, type_, name="tiny", labels=head, quantization="none", text=text)
    for method in ("lora", "linear_probe", "ia3", "prompt"):
        capability = probe.capability(method, search_spaces.get(method).default)
        assert capability.available, capability.reason
    capability = probe.capability("hard_prompt", search_spaces.get("hard_prompt").default)
    assert capability.available == runs, capability.reason
    assert runs or capability.reason.startswith("hard_prompt chooses among the names of classes")


@pytest.mark.parametrize("max_length", [6, 10, 40])
def test_pairs_are_tokenized_as_the_tokenizer_pairs_them(tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
    texts, pairs = ["a short one", "b", "the longest text"], ["x", "a much longer second text", "two"]
    rows = pa.table({"row": range(3), "text": texts, "text_pair": pairs, "label": pa.array([0, 1, 0], pa.int32())})
    tokens = TASK_TYPES["classification"].tokenize(rows, tokenizer, max_length)
    expected = tokenizer(texts, pairs, truncation="longest_first", max_length=max_length)["input_ids"]
    assert tokens["input_ids"].to_pylist() == expected
    assert lengths(tokens).max() <= max_length


def test_pairs_are_duplicates_only_as_pairs(read: Any, tmp_path: Path) -> None:
    lines = "".join(f"same,other {i // 2},{i // 2 % 2}\n" for i in range(60))
    (tmp_path / "rows.csv").write_text("text,pair,label\n" + lines)
    data = read("rows.csv", text_pair="pair")
    assert (data.duplicates_removed, sum(split.num_rows for split in data.splits.values())) == (30, 30)


def test_pairs_are_answered_from_two_columns(tokenizer: PreTrainedTokenizerBase, encoder: nn.Module) -> None:
    bundle = Bundle.model_construct(  # type: ignore[call-arg]
        type="classification", labels=LABELS, columns={"text": "premise", "text_pair": "hypothesis"},
        metric="macro_f1", metrics={}, max_new_tokens=32, max_length=32, evaluation_batch=2,
        environment=SimpleNamespace(threads=1),  # type: ignore[arg-type]
    )  # fmt: skip
    assert signature(bundle).inputs is None, "MLflow would refuse rows with its whole schema"
    assert [*bundle.input_schema.columns] == ["premise", "hypothesis"]
    predictor = Predictor(bundle, encoder, tokenizer, decoder=False)
    first, second = predictor.predict([
        {"premise": "it rains", "hypothesis": "wet"}, {"premise": "it rains", "hypothesis": "dry as a bone"},
    ])["probability_late"].to_pylist()  # fmt: skip
    assert abs(first - second) > 1e-6
    with pytest.raises(ValueError, match="row 1: has no hypothesis"):
        predictor.predict([{"premise": "it rains"}])
