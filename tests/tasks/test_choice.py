"""Choice: rows, spaces between prompt and choice, likelihoods against longhand math, and answers."""

import copy
import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
import yaml

from methods.plugins.loader import register_source
from orchestrator.common.errors import InputError
from orchestrator.config import SweepConfig, load_config
from orchestrator.engine.micro_batches import split_micro_batches
from orchestrator.tasks import TASK_TYPES, read_task
from orchestrator.tasks.batches import evaluation_batches
from orchestrator.tasks.choice.scores import _sequences
from orchestrator.tasks.tokens import lengths

CHOICES = ("bad", "fine", "b")


def section(**settings):
    task = {"type": "choice", "data": "rows.jsonl", "prompt": "Mail: {text}\nIs:", "completion": "mood", **settings}
    values = {"backbone": {"model": "x"}, "tasks": {"mail": task}, "budget": {"trials": 1}}
    return SweepConfig.model_validate(values).tasks["mail"]


@pytest.fixture
def read(tmp_path):
    def read_rows(rows, **settings):
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return read_task("mail", section(**settings), tmp_path, 0)

    return read_rows


def rows_of_moods(count=15):
    return [
        {"text": f"mail {k}", "mood": ("bad", "fine")[k % 2], "all": ["bad", "fine", f"x{k}"]} for k in range(count)
    ]


def test_fixed_choices_are_the_labels_in_their_order(read):
    data = read(rows_of_moods(), choices=["fine", "bad"])
    assert data.labels == ("fine", "bad")
    row = data.splits["train"].to_pylist()[0]
    assert row["choices"] == ["fine", "bad"]
    assert row["choices"][row["label"]] == ("bad" if int(row["prompt"].split()[2]) % 2 == 0 else "fine")
    assert data.majority == pytest.approx(2 / 3)
    assert data.config.input_columns == {"prompt": "prompt"}


def test_choices_of_a_column_belong_to_their_row(read):
    data = read(rows_of_moods(), choices="all")
    assert (data.labels, data.majority) == ((), None)
    row = data.splits["train"].to_pylist()[0]
    assert row["choices"][2] == "x" + row["prompt"].split()[2]
    assert data.config.input_columns == {"prompt": "prompt", "choices": "all"}


def test_spaces_around_the_right_choice_do_not_matter(read):
    data = read(rows_of_moods(), choices=["bad ", "fine"], completion=" {mood}")
    assert {row["label"] for row in data.splits["train"].to_pylist()} == {0, 1}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"choices": ["bad"]}, "has 1 choice; two are needed"),
        ({"choices": ["bad", " bad"]}, "has 'bad' twice; keep one"),
        ({"choices": ["bad", " "]}, "has an empty choice"),
        (
            {"choices": ["a", "b"], "messages": "text"},
            "has prompt and completion and messages; write prompt and completion, or messages",
        ),
        ({"choices": "all", "metric": "macro_f1"}, "macro_f1 needs a list of choices that is the same for all rows"),
    ],
)
def test_choices_of_the_section_are_checked(tmp_path, settings, message):
    task = {"type": "choice", "data": "rows.jsonl", "prompt": "text", "completion": "mood", **settings}
    (tmp_path / "rows.jsonl").write_text(json.dumps({"text": "a", "mood": "bad", "all": ["bad", "fine"]}))
    values = {"backbone": {"model": "org/name"}, "tasks": {"mail": task}, "budget": {"trials": 1}}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(InputError) as raised:
        load_config(tmp_path / "sweep.yaml")
    (problem,) = raised.value.problems
    assert problem.message == message


def test_answer_that_is_no_choice_is_refused_with_a_hint(read):
    rows = [*rows_of_moods(), {"text": "mail", "mood": "fin", "all": ["bad", "bad"]}]
    with pytest.raises(InputError) as raised:
        read(rows, choices=["bad", "fine"])
    assert "row 16, column mood: 'fin' is not among the choices; did you mean fine?" in str(raised.value)
    with pytest.raises(InputError) as raised:
        read(rows, choices="all")
    assert "row 16, column all: has 'bad' twice; keep one" in str(raised.value)
    assert read(rows, choices=["bad", "fine"], drop_invalid=True).dropped == 1


def tokenized(tokenizer, choices=CHOICES, prompts=("Is it", "How", "A longer one, then"), max_length=64, right=0):
    type_ = replace(TASK_TYPES["choice"], labels=tuple(choices))
    label = pa.array([right] * len(prompts), pa.int32())
    listed = pa.array([list(choices)] * len(prompts))
    table = pa.table({"row": range(len(prompts)), "prompt": list(prompts), "choices": listed, "label": label})
    return type_, type_.tokenize(table, tokenizer, max_length)


@pytest.mark.parametrize(("prompt", "text"), [("Is it", "Is it bad"), ("Is it  ", "Is it bad"), ("Is\n", "Is\nbad")])
def test_prompt_and_choice_are_joined_by_one_space(tokenizer, prompt, text):
    _, tokens = tokenized(tokenizer, ("bad", "fine"), [prompt])
    assert tokens["input_ids"].to_pylist() == [tokenizer(text)["input_ids"]]
    assert tokens["prompt_length"].to_pylist() == [len(prompt.rstrip(" "))]


def test_choices_of_which_one_begins_another_have_an_end(tokenizer):
    _, tokens = tokenized(tokenizer)
    ends = [tokenizer(" " + choice)["input_ids"] + [0] for choice in CHOICES]
    assert tokens["choice_ids"].to_pylist()[0] == [token for ids in ends for token in ids]
    assert tokens["choice_lengths"].to_pylist()[0] == [5, 6, 3]


def test_long_prompt_loses_its_beginning_and_never_a_choice(tokenizer):
    _, tokens = tokenized(tokenizer, ("bad", "fine"), ["0123456789"], max_length=9, right=1)
    assert tokens["input_ids"].to_pylist() == [tokenizer("6789 fine")["input_ids"]]
    assert tokens["cut"].to_pylist() == [6]
    with pytest.raises(InputError, match=r"row 0: a choice has 5 tokens; training.max_length is 5"):
        tokenized(tokenizer, ("bad", "fine"), max_length=5)


def longhand(decoder, tokenizer, prompt, choice, end):
    ids = tokenizer(prompt)["input_ids"]
    all_ids = ids + tokenizer(f" {choice}")["input_ids"] + end
    with torch.no_grad():
        log_probabilities = decoder(torch.tensor([all_ids])).logits[0].double().log_softmax(dim=-1)
    return sum(log_probabilities[place - 1, all_ids[place]].item() for place in range(len(ids), len(all_ids)))


@pytest.mark.parametrize("choices", [CHOICES, ("bad", "fine")])
def test_likelihoods_are_sums_over_the_choices_tokens(decoder, tokenizer, choices):
    type_, tokens = tokenized(tokenizer, choices)
    evaluation = type_.evaluate(decoder, tokens, evaluation_batches(lengths(tokens), 2), 0)
    end = [0] if "b" in choices else []
    prompts = ("Is it", "How", "A longer one, then")
    expected = [[longhand(decoder, tokenizer, prompt, choice, end) for choice in choices] for prompt in prompts]
    assert evaluation.predictions["log_likelihoods"].to_pylist() == pytest.approx(np.array(expected), abs=1e-5)
    shares = torch.tensor(expected).softmax(dim=-1)
    assert evaluation.predictions["probabilities"].to_pylist() == pytest.approx(shares.numpy(), abs=1e-5)
    assert evaluation.predictions["predicted"].to_pylist() == shares.argmax(dim=1).tolist()
    assert evaluation.metrics["accuracy"] == pytest.approx((shares.argmax(dim=1) == 0).float().mean().item())
    assert [*evaluation.metrics] == ["accuracy", "macro_f1"]


TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
TEMPLATE += "{% if add_generation_prompt %}<assistant>{% endif %}"


def test_last_answer_of_a_conversation_is_the_right_choice(read, tokenizer, decoder):
    def conversation(mood):
        return [{"role": "user", "content": "How is it?"}, {"role": "assistant", "content": mood}]

    rows = [{"chat": conversation(("bad", "fine")[k % 2])[:1] * (k + 1) + conversation(("bad", "fine")[k % 2])[1:]}
            for k in range(15)]  # fmt: skip
    task = {"prompt": None, "completion": None, "messages": "chat", "choices": ["bad", "fine"]}
    data = read(rows, **task)
    chatty = copy.deepcopy(tokenizer)
    chatty.chat_template = TEMPLATE
    type_ = replace(TASK_TYPES["choice"], labels=data.labels)
    rendered, refused = type_.render(data.splits["train"], chatty)
    (row, *_) = rendered.to_pylist()
    turns = len(json.loads(row["messages"]))
    assert (row["prompt"], refused) == ("<user>How is it?\n" * turns + "<assistant>", [])
    assert row["label"] == (turns - 1) % 2
    tokens = type_.tokenize(rendered, chatty, 128)
    assert (
        tokens["input_ids"].to_pylist()[0] == chatty(row["prompt"] + " " + ("bad", "fine")[row["label"]])["input_ids"]
    )
    asked = type_.unanswered(pa.table({"messages": [row["messages"]]}))
    answered = type_.answer(decoder, type_.tokenize(asked, chatty, 128), [np.array([0])], 0, False, data.labels)
    expected = type_.evaluate(decoder, tokens, [np.arange(tokens.num_rows)], 0).predictions["probabilities"][0].as_py()
    assert [*answered.to_pylist()[0].values()][1:] == pytest.approx(expected, abs=1e-5)
    with pytest.raises(InputError, match="does not end with an answer of the assistant"):
        read([{"chat": conversation("bad")[:1]}, *rows], **task)


def test_choices_of_one_token_take_one_sequence(tokenizer):
    _, tokens = tokenized(tokenizer, ("a", "b", "c"), ["x\n"])
    (sequence,) = _sequences(tokens, 0, 0)
    assert sequence.tokens.tolist() == tokenizer("x\n")["input_ids"]
    assert sorted(choice for _, choice, _ in sequence.choices) == [0, 1, 2]
    _, tokens = tokenized(tokenizer, ("ab", "ac", "bc", "a d"), ["x\n"])  # stems: a, b, "a "
    assert len(list(_sequences(tokens, 0, 0))) == 2


def test_loss_of_choices_of_one_token_is_cross_entropy_over_them(decoder, tokenizer):
    type_, tokens = tokenized(tokenizer, ("a", "b", "c"), ["Is\n", "How was it\n"], right=1)
    batch = type_.collate(tokens, np.arange(2), 0, pad_left=True)
    evaluation = type_.evaluate(decoder, tokens, [np.arange(2)], 0)
    right = [row[1] for row in evaluation.predictions["probabilities"].to_pylist()]
    assert type_.loss(decoder, batch).item() == pytest.approx(-np.log(right).mean(), abs=1e-5)
    assert type_.loss_terms(batch) == 2


def test_loss_of_longer_choices_counts_where_they_part(decoder, tokenizer):
    prompts = ("Is it", "A longer one, then")
    type_, tokens = tokenized(tokenizer, ("bad", "bed", "fine"), prompts, right=1)
    batch = type_.collate(tokens, np.arange(2), 0)
    total = 0.0
    for prompt in prompts:
        with torch.no_grad():
            logits = decoder(tokenizer(f"{prompt} bed", return_tensors="pt")["input_ids"]).logits[0].double()
        for place, letters in ((len(prompt), "bf"), (len(prompt) + 1, "ea")):  # b or f, then e or a
            ids = [tokenizer(letter)["input_ids"][0] for letter in letters]
            total -= logits[place, ids].log_softmax(dim=0)[0].item()
    assert type_.loss(decoder, batch).item() == pytest.approx(total / 2, abs=1e-5)
    assert type_.target_tokens(tokens).tolist() == [4, 4]


def test_loss_of_micro_batches_adds_up_to_the_batch(decoder, tokenizer):
    type_, tokens = tokenized(tokenizer, ("bad", "bed", "fine"), ("Is it", "How", "A longer one, then"))
    batch = type_.collate(tokens, np.arange(3), 0)
    parts = split_micro_batches(batch, 2, type_.loss_terms)
    total = sum(type_.loss(decoder, part).item() * weight for part, weight in parts)
    assert total == pytest.approx(type_.loss(decoder, batch).item(), abs=1e-5)


def test_answers_are_choices_with_probabilities(decoder, tokenizer):
    type_, _ = tokenized(tokenizer)
    prompts = pa.table({"prompt": ["Is it", "How"]})
    rows = type_.tokenize(type_.unanswered(prompts), tokenizer, 64)
    answer = type_.answer(decoder, rows, [np.array([1, 0])], 0, False, CHOICES)
    assert answer.column_names == [*type_.answer_columns(CHOICES)]
    objects = [type_.answer_object(line) for line in answer.to_pylist()]
    for line in objects:
        assert line["choice"] == max(line["probabilities"], key=line["probabilities"].get)
        assert sum(line["probabilities"].values()) == pytest.approx(1)
    own = replace(type_, labels=())
    listed = prompts.append_column("choices", pa.array([["fine", "b", "bad"], ["x", "y"]]))
    rows = own.tokenize(own.unanswered(listed), tokenizer, 64)
    first, second = own.answer(decoder, rows, [np.array([0, 1])], 0, False, ()).to_pylist()
    assert first["probabilities"] == pytest.approx([objects[0]["probabilities"][name] for name in ("fine", "b", "bad")])
    assert len(second["probabilities"]) == 2
    assert own.evaluate(decoder, rows, [np.array([0, 1])], 0).metrics.keys() == {"accuracy"}


@pytest.mark.usefixtures("no_metric_files")
def test_choice_is_scored_by_a_users_metric_over_texts(decoder, tokenizer):
    register_source("mine", "DIRECTION = 'maximize'\ndef same(p, r):\n    return [float(a == b) for a, b in zip(p, r)]")
    type_, rows = tokenized(tokenizer, ("fine", "bad"), right=1)
    type_ = type_.configured(("mine.same", "accuracy"), 1, None, ("fine", "bad"))
    evaluation = type_.evaluate(decoder, rows, [np.arange(3)], 0)
    predicted, right = type_.compared(evaluation.predictions)
    assert right == ["bad"] * 3
    assert predicted == [("fine", "bad")[index] for index in evaluation.predictions["predicted"].to_pylist()]
    assert evaluation.metrics["mine.same"] == evaluation.metrics["accuracy"]
    assert type_.compared(type_.right_predictions(rows)) == (right, right)
    own = replace(type_, labels=())
    listed = pa.array([["fine", "b", "bad"], ["x", "y"]])
    table = pa.table(
        {"row": [1, 2], "prompt": ["Is it", "How"], "choices": listed, "answer": pa.array([2, 1], pa.int32())}
    )
    evaluation = own.evaluate(decoder, own.tokenize(table, tokenizer, 64), [np.array([1, 0])], 0)
    assert own.compared(evaluation.predictions)[1] == ["bad", "y"]
    assert evaluation.metrics.keys() == {"accuracy", "mine.same"}
    assert own.compared(own.right_predictions(table)) == (["bad", "y"], ["bad", "y"])
