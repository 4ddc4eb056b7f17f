"""Models of tags and choices as clients see them: signatures, rows of JSON, and cards."""

import json
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mlflow.types import DataType
from mlflow.types.schema import AnyType, Array
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertForTokenClassification, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from orchestrator.tasks import TASK_TYPES
from orchestrator.tracking.bundle import Bundle
from orchestrator.tracking.packaging import signature
from orchestrator.tracking.predict_lines import predict_lines
from orchestrator.tracking.predictor import Predictor

SIZES: dict[str, Any] = {
    "vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
    "max_position_embeddings": 128, "pad_token_id": 0,
}  # fmt: skip
TAGS = ("B-city", "I-city", "O")


def tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {"</s>": 0, "<unk>": 1, **{chr(code): code - 30 for code in range(32, 127)}}
    tokens = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokens.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    special = {"eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokens, **special)


def bundle_of(task: str, labels: tuple[str, ...], columns: dict[str, str]) -> Bundle:
    return Bundle.model_construct(  # type: ignore[call-arg]
        type=task, labels=labels, columns=columns, metric=TASK_TYPES[task].metrics[0].name, max_new_tokens=32,
        max_length=64, evaluation_batch=2, environment=SimpleNamespace(threads=1),  # type: ignore[arg-type]
    )  # fmt: skip


def predictor(bundle: Bundle) -> Predictor:
    torch.manual_seed(0)
    if bundle.type == "choice":
        model: Any = LlamaForCausalLM(LlamaConfig(**SIZES, eos_token_id=0, bos_token_id=None))
    else:
        sizes = {**SIZES, "num_labels": len(bundle.labels)}
        model = BertForTokenClassification(BertConfig(**sizes, initializer_range=0.5))
    return Predictor(bundle, model.eval(), tokenizer(), decoder=bundle.type == "choice")


def lines_of(bundle: Bundle, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    (chunk,) = predict_lines(predictor(bundle), [json.dumps(row).encode() for row in rows], "rows")
    return [json.loads(line) for line in chunk.lines.splitlines()]


@pytest.mark.parametrize(
    ("task", "labels", "columns", "kinds"),
    [
        ("token-classification", TAGS, {"tokens": "words"}, [*[Array(DataType.string)] * 2, AnyType()]),
        ("token-classification", TAGS, {"text": "mail"}, [Array(DataType.string), AnyType()]),
        ("choice", ("no", "yes"), {"prompt": "prompt"}, [DataType.string, *[DataType.double] * 2]),
        ("choice", (), {"messages": "messages", "choices": "all"},
         [AnyType(), Array(DataType.string), DataType.string, Array(DataType.double)]),
    ],
)  # fmt: skip
def test_signatures_have_the_columns_of_inputs_and_answers(
    task: str, labels: tuple[str, ...], columns: dict[str, str], kinds: list[Any]
) -> None:
    signed = signature(bundle_of(task, labels, columns))
    assert [column.type for schema in (signed.inputs or (), signed.outputs) for column in schema] == kinds
    assert [column.name for column in signed.inputs or ()] == (
        [] if columns in ({"text": "mail"}, {"prompt": "prompt"}) else [*columns.values()]
    )


def test_tagger_answers_listed_words_or_texts() -> None:
    words = ["in", "New", "York", "today"]
    (listed,) = lines_of(bundle_of("token-classification", TAGS, {"tokens": "words"}), [{"words": words}])
    assert len(listed["tags"]) == len(words)
    assert {*listed["tags"]} <= {*TAGS}
    (text,) = lines_of(bundle_of("token-classification", TAGS, {"text": "mail"}), [{"mail": " ".join(words)}])
    assert "tags" not in text
    assert [span["score"] for span in text["spans"]] == pytest.approx([span["score"] for span in listed["spans"]])


def test_chooser_answers_among_its_labels_or_the_rows_choices() -> None:
    fixed = bundle_of("choice", ("no", "yes"), {"prompt": "prompt"})
    answers = lines_of(fixed, [{"prompt": "Is it late?"}, {"prompt": "Is it?"}])
    for answer in answers:
        assert {*answer["probabilities"]} == {"no", "yes"}
        assert sum(answer["probabilities"].values()) == pytest.approx(1)
    own = bundle_of("choice", (), {"prompt": "prompt", "choices": "all"})
    (answer,) = lines_of(own, [{"prompt": "Is it late?", "all": ["yes", "no"]}])
    assert answer["probabilities"] == pytest.approx([answers[0]["probabilities"][name] for name in ("yes", "no")])
    assert answer["choice"] == answers[0]["choice"]


def test_cards_say_what_the_models_are_for() -> None:
    assert TASK_TYPES["token-classification"].purpose(TAGS) == "Finds entities of 1 kind (city) in a text"
    assert TASK_TYPES["choice"].purpose(("no", "yes")) == "Chooses one of 2 texts (no, yes) after a prompt"
    assert TASK_TYPES["choice"].purpose(()) == "Chooses one of the given texts after a prompt"
