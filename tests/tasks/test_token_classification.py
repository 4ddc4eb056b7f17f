"""Token classification: rows, the loss at first tokens, entity F1 against seqeval, and answers."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import yaml
from seqeval.metrics import accuracy_score, f1_score
from torch.nn import functional as F
from transformers import BertConfig, BertForTokenClassification

from methods.plugins.loader import register_source
from orchestrator.common.errors import InputError
from orchestrator.config import SweepConfig, load_config
from orchestrator.tasks import TASK_TYPES, read_task, task_type
from orchestrator.tasks.batches import evaluation_batches
from orchestrator.tasks.tokens import lengths

WORDS = ["Ann", "saw", "New", "York", "and", "Bob"]
TAGS = ["B-person", "O", "B-city", "I-city", "O", "B-person"]


@pytest.fixture(scope="module")
def tagger():
    """A BERT for 4 tags, random but fixed; weights large enough that it predicts every tag."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
    }
    config = BertConfig(vocab_size=97, max_position_embeddings=64, pad_token_id=0, initializer_range=0.5, **sizes)
    config.num_labels = 4
    return BertForTokenClassification(config).eval()


@pytest.fixture
def write(tmp_path):
    def write_rows(rows, name="rows.jsonl"):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    return write_rows


def section(**settings):
    task = {"type": "token-classification", "data": "rows.jsonl", **settings}
    values = {"backbone": {"model": "x"}, "tasks": {"mail": task}, "budget": {"trials": 1}}
    return SweepConfig.model_validate(values).tasks["mail"]


@pytest.fixture
def read(tmp_path):
    return lambda **settings: read_task("mail", section(**settings), tmp_path, 0)


def listed(count=20):
    draw = np.random.default_rng(0)
    orders = [draw.permutation(len(WORDS))[: draw.integers(1, len(WORDS) + 1)] for _ in range(count)]
    return [{"words": [WORDS[k] for k in order], "ner": [TAGS[k] for k in order]} for order in orders]


def test_words_and_tags_are_read_with_the_tags_in_order(write, read):
    write(listed())
    data = read(tokens="words", tags="ner")
    assert data.labels == ("B-city", "B-person", "I-city", "O")
    rows = data.splits["train"].to_pylist()
    assert all(len(row["tokens"]) == len(row["tags"]) for row in rows)
    by_word = dict(zip(WORDS, TAGS, strict=True))
    assert all([data.labels[tag] for tag in row["tags"]] == [by_word[word] for word in row["tokens"]] for row in rows)
    test = [tag for row in data.splits["test"].to_pylist() for tag in row["tags"]]
    train = [tag for row in rows for tag in row["tags"]]
    assert data.majority == test.count(max(set(train), key=train.count)) / len(test)


def test_spans_of_a_text_become_tags_of_its_words(write, read):
    span = {"start": 9, "end": 17, "label": "city"}
    write([{"mail": f"{number} I saw New York", "where": [{**span, "start": 8 - 2 + len(str(number)) + 1,
                                                          "end": 8 - 2 + len(str(number)) + 9}]}
           for number in range(10, 30)])  # fmt: skip
    data = read(text="mail", spans="where")
    assert data.labels == ("B-city", "I-city", "O")
    row = data.splits["train"].to_pylist()[0]
    assert [data.labels[tag] for tag in row["tags"]] == ["O", "O", "O", "B-city", "I-city"]


@pytest.mark.parametrize(
    ("settings", "where", "message"),
    [
        ({}, "", "names no columns; write tokens and tags, or text and spans"),
        ({"tokens": "words"}, ".tags", "is missing; tokens needs it"),
        ({"tokens": "words", "spans": "where"}, "", "has tokens and spans; write tokens and tags, or text and spans"),
    ],
)
def test_layout_of_columns_must_be_whole(tmp_path, settings, where, message):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"words": ["a"], "where": []}))
    task = {"type": "token-classification", "data": "rows.jsonl", **settings}
    values = {"backbone": {"model": "org/name"}, "tasks": {"mail": task}, "budget": {"trials": 1}}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(InputError) as raised:
        load_config(tmp_path / "sweep.yaml")
    (problem,) = raised.value.problems
    assert (problem.where, problem.message) == (f"tasks.mail{where}", message)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"words": ["a", "b"], "ner": ["O"]}, "row 2, column ner: has 1 tags for 2 words"),
        ({"words": [], "ner": []}, "row 2, column words: has no words"),
        ({"words": ["a"], "ner": [""]}, "row 2, column ner: has an empty tag; write O for a word outside entities"),
    ],
)
def test_rows_that_are_not_a_tag_per_word_are_refused(write, read, row, message):
    write([listed(1)[0], row, *listed(9)])
    with pytest.raises(InputError) as raised:
        read(tokens="words", tags="ner")
    assert message in str(raised.value)
    assert read(tokens="words", tags="ner", drop_invalid=True).dropped == 1


def test_spans_inside_a_word_or_without_a_label_are_refused(write, read):
    rows = [{"mail": "see Oslo", "where": [{"start": 4, "end": 6, "label": "city"}]}]
    rows += [{"mail": "see Oslo", "where": [{"start": 4, "end": 8}]}]
    write(rows)
    with pytest.raises(InputError) as raised:
        read(text="mail", spans="where")
    assert "row 1, column where: span 4..6 ('Os') begins or ends inside the word 'Oslo'" in str(raised.value)
    assert "row 2, column where: holds {'start': 4, 'end': 8}; a span is {start: 0, end: 5" in str(raised.value)


def test_slow_tokenizer_is_refused_in_one_line(tokenizer):
    class Slow:
        is_fast = False

    type_ = TASK_TYPES["token-classification"]
    assert type_.tokenizer_refusal(tokenizer) == ""
    slow: Any = Slow()
    assert "needs a fast tokenizer" in type_.tokenizer_refusal(slow)


def tokenized(tokenizer, rows, max_length=64):
    labels = ("B-city", "B-person", "I-city", "O")
    type_ = replace(TASK_TYPES["token-classification"], labels=labels)
    tags = pa.array([[labels.index(tag) for tag in row["ner"]] for row in rows], pa.list_(pa.int32()))
    table = pa.table({"row": range(len(rows)), "tokens": [row["words"] for row in rows], "tags": tags})
    return type_, type_.tokenize(table, tokenizer, max_length)


def test_loss_counts_the_first_token_of_each_word_only(tagger, tokenizer):
    type_, tokens = tokenized(tokenizer, listed(5))
    batch = type_.collate(tokens, np.arange(5), 0, pad_left=True)
    first, logits = [], []
    for number, row in enumerate(listed(5)):
        text = " ".join(row["words"])
        begins = [0, *(place + 1 for place, letter in enumerate(text) if letter == " ")]
        with torch.no_grad():
            ids = tokenizer(text, return_tensors="pt")["input_ids"]
            logits.append(tagger(ids).logits[0, begins])
        first += [type_.labels.index(tag) for tag in row["ner"]]
        assert (batch["labels"][number] != -100).nonzero()[:, 0].tolist() == begins
    expected = F.cross_entropy(torch.cat(logits), torch.tensor(first))
    assert type_.loss(tagger, batch).item() == pytest.approx(expected.item(), abs=1e-5)
    assert type_.loss_terms(batch) == len(first)


def test_loss_of_a_batch_without_a_word_is_zero(tagger, tokenizer):
    type_, tokens = tokenized(tokenizer, listed(2))
    batch = type_.collate(tokens, np.arange(2), 0)
    assert type_.loss(tagger, {**batch, "labels": torch.full_like(batch["labels"], -100)}).item() == 0


def test_scores_are_those_of_seqeval_for_any_batches(tagger, tokenizer):
    rows = listed(30)
    type_, tokens = tokenized(tokenizer, rows)
    evaluation = type_.evaluate(tagger, tokens, evaluation_batches(lengths(tokens), 4), 0)
    predicted = [[type_.labels[tag] for tag in row] for row in evaluation.predictions["predicted"].to_pylist()]
    true = [row["ner"] for row in rows]
    assert len({tag for row in predicted for tag in row}) > 2
    assert evaluation.metrics == {
        "entity_f1": pytest.approx(f1_score(true, predicted)),
        "token_accuracy": pytest.approx(accuracy_score(true, predicted)),
    }
    draws = np.random.default_rng(0).integers(30, size=(20, 30))
    expected = [f1_score([true[k] for k in draw], [predicted[k] for k in draw]) for draw in draws]
    assert type_.score_many("entity_f1", evaluation.predictions, draws) == pytest.approx(expected)
    alone = type_.evaluate(tagger, tokens, [np.array([k]) for k in range(30)], 0)
    assert type_.reproducible(alone.predictions) == pytest.approx(type_.reproducible(evaluation.predictions), abs=1e-5)


def test_words_that_are_cut_count_as_missed(tagger, tokenizer):
    rows = [{"words": WORDS, "ner": TAGS}]
    type_, tokens = tokenized(tokenizer, rows, max_length=9)  # "Ann saw N"
    assert tokens["cut"].to_pylist() == [len(" ".join(WORDS)) - 9]
    predictions = type_.evaluate(tagger, tokens, [np.array([0])], 0).predictions
    (row,) = predictions.to_pylist()
    assert (row["words"], row["words_without_token"], row["entities"]) == (6, 3, 3)
    assert row["predicted"][3:] == [-1, -1, -1]
    assert row["correct_words"] <= 3
    assert type_.score("token_accuracy", predictions) == row["correct_words"] / 6


def test_answers_are_tags_of_words_or_spans_of_a_text(tagger, tokenizer):
    type_, tokens = tokenized(tokenizer, [{"words": WORDS, "ner": TAGS}])
    inputs = {"tokens": pa.array([WORDS]), "text": pa.array([" ".join(WORDS)])}
    objects = {}
    for name, values in inputs.items():
        rows = type_.tokenize(type_.unanswered(pa.table({name: values})), tokenizer, 64)
        answer = type_.answer(tagger, rows, [np.array([0])], 0, False, type_.labels)
        assert answer.column_names == [*type_.answer_columns(type_.labels)]
        (line,) = answer.to_pylist()
        objects[name] = type_.answer_object({**line, "spans": json.loads(line["spans"])})
    predicted = type_.evaluate(tagger, tokens, [np.array([0])], 0).predictions["predicted"].to_pylist()[0]
    assert objects["tokens"]["tags"] == [type_.labels[tag] for tag in predicted]
    assert "tags" not in objects["text"]
    words, text = objects["tokens"]["spans"], objects["text"]["spans"]
    assert len(words) >= 1
    assert [span["label"] for span in words] == [span["label"] for span in text]
    assert [" ".join(WORDS)[span["start"] : span["end"]] for span in text] == [
        " ".join(WORDS[span["start"] : span["end"]]) for span in words
    ]
    assert [span["score"] for span in words] == pytest.approx([span["score"] for span in text])


def test_type_is_ready_from_a_configuration(write, read):
    write(listed())
    data = read(tokens="words", tags="ner", metric=["token_accuracy", "entity_f1"])
    type_ = task_type(data.config, labels=data.labels)
    assert type_.optimized.name == "token_accuracy"
    assert type_.head_size(len(data.labels)) == 4
    assert data.config.input_columns == {"tokens": "words"}


@pytest.mark.usefixtures("no_metric_files")
def test_tags_are_scored_by_a_users_metric_over_names(tagger, tokenizer):
    source = "from seqeval.metrics import f1_score\nDIRECTION = 'maximize'\ndef f1(p, r):\n    return f1_score(r, p)\n"
    register_source("mine", source)
    type_, tokens = tokenized(tokenizer, listed(30))
    type_ = type_.configured(("mine.f1",), 1, None, type_.labels)
    evaluation = type_.evaluate(tagger, tokens, evaluation_batches(lengths(tokens), 4), 0)
    assert evaluation.metrics["mine.f1"] == pytest.approx(evaluation.metrics["entity_f1"])
    assert type_.compared(type_.right_predictions(tokens))[0] == [row["ner"] for row in listed(30)]
    _, cut = tokenized(tokenizer, [{"words": WORDS, "ner": TAGS}], max_length=9)
    predicted, true = type_.compared(type_.evaluate(tagger, cut, [np.array([0])], 0).predictions)
    assert (predicted[0][3:], true[0]) == (["O"] * 3, TAGS)
