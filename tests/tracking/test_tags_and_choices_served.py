"""Models of tags and choices as clients see them: signatures, rows of JSON, and cards."""

import json
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from mlflow.exceptions import MlflowException
from mlflow.types import DataType
from mlflow.types.schema import AnyType, Array
from mlflow.utils.proto_json_utils import dataframe_from_parsed_json
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertForTokenClassification, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from orchestrator.common.errors import InputError
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
        sizes = {**SIZES, "num_labels": len(bundle.labels) or 1}
        model = BertForTokenClassification(BertConfig(**sizes, initializer_range=0.5))
    return Predictor(bundle, model.eval(), tokenizer(), decoder=bundle.type == "choice")


def lines_of(bundle: Bundle, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    (chunk,) = predict_lines(predictor(bundle), [json.dumps(row).encode() for row in rows], "rows")
    return [json.loads(line) for line in chunk.lines.splitlines()]


@pytest.mark.parametrize(
    ("task", "labels", "columns", "kinds"),
    [
        ("token-classification", TAGS, {"tokens": "words"}, [Array(DataType.string), AnyType()]),
        ("token-classification", TAGS, {"text": "mail"}, [Array(DataType.string), AnyType()]),
        ("choice", ("no", "yes"), {"prompt": "prompt"}, [DataType.string, *[DataType.double] * 2]),
        ("choice", (), {"messages": "messages", "choices": "all"}, [DataType.string, Array(DataType.double)]),
    ],
)
def test_signatures_have_the_columns_of_answers_alone(
    task: str, labels: tuple[str, ...], columns: dict[str, str], kinds: list[Any]
) -> None:
    signed = signature(bundle_of(task, labels, columns))
    assert [column.type for column in signed.outputs] == kinds
    assert signed.inputs is None, "MLflow would refuse rows with its whole input and schema"


SEVERAL_INPUTS = {
    "pair": ("classification", ("no", "yes"), {"text": "premise", "text_pair": "hypothesis"}),
    "words": ("token-classification", TAGS, {"tokens": "words"}),
    "choices": ("choice", (), {"prompt": "prompt", "choices": "all"}),
    "embedding": ("embedding", (), {"anchor": "anchor"}),
}
BAD_ROWS: list[tuple[str, dict[str, Any]]] = [
    ("pair", {"premise": "it rains"}),
    ("pair", {"premise": "it rains", "hypotesis": "wet"}),
    ("pair", {"premise": "it rains", "hypothesis": None}),
    ("pair", {"premise": 7, "hypothesis": "wet"}),
    ("pair", {"premise": "it rains", "hypothesis": " "}),
    ("words", {"words": "in New York"}),
    ("words", {"words": ["in", 3]}),
    ("words", {"words": None}),
    ("choices", {"prompt": "Is it late?", "all": "yes"}),
    ("choices", {"prompt": "Is it late?", "all": [1, 2]}),
    ("choices", {"prompt": 3.5, "all": ["yes", "no"]}),
    ("embedding", {"anchor": None}),
    ("embedding", {"anchor": 1}),
]


@pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType")
@pytest.mark.parametrize(("kind", "row"), BAD_ROWS)
def test_served_models_refuse_rows_as_predict_does(kind: str, row: dict[str, Any]) -> None:
    bundle = bundle_of(*SEVERAL_INPUTS[kind])
    asked = predictor(bundle)
    with pytest.raises(InputError) as refused:
        list(predict_lines(asked, [json.dumps(row).encode()], "rows"))
    problem = refused.value.lines()[0].removeprefix("rows: line 1: ")

    from mlflow.models import Model
    from mlflow.pyfunc import PyFuncModel

    from orchestrator.tracking.pyfunc_model import AdapterModel

    adapter, meta = AdapterModel(), Model(signature=signature(bundle))
    adapter.predictor = asked
    meta.add_flavor("python_function", loader_module="mlflow.pyfunc.model")
    impl = SimpleNamespace(predict=lambda data, params=None: adapter.predict(None, data))
    served = PyFuncModel(model_meta=meta, model_impl=impl)
    body = json.loads(pd.DataFrame([row]).to_json(orient="records"))  # as MLflow's server reads a request
    frame = dataframe_from_parsed_json(body, pandas_orient="records", schema=None)
    with pytest.raises(MlflowException) as answered:
        served.predict(frame)
    assert str(answered.value).startswith(f"row 1: {problem}; a row is ")
    assert "\n" not in str(answered.value)
    assert ".py" not in str(answered.value)
    assert answered.value.get_http_status_code() == 400


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
