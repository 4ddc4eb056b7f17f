"""Conversations, Alpaca's rows and texts: from a file to tokens, masks, losses and answers."""

import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from pydantic import ValidationError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from orchestrator.cli.output.progress import task_line
from orchestrator.common.errors import InputError
from orchestrator.planning.plan import TaskPlan
from orchestrator.tasks import TASK_TYPES, read_task
from orchestrator.tasks.batches import evaluation_batches
from orchestrator.tasks.causal_lm import CausalLM, CausalLMTask
from orchestrator.tasks.rendering import render_task, turn_ends
from orchestrator.tasks.tokens import lengths

TASK = CausalLM()
TEMPLATE = (
    "{% for m in messages %}[{{ m.role }}] {{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)
ONCE = TEMPLATE.replace("{{ m.content }}", "{{ m.content }}{{ '' if loop.last or m.role == 'user' else '~' }}")
ROWS = [
    [("user", f"ask {n}"), ("assistant", f"say {n}"), ("user", "more"), ("assistant", f"end {n}!")] for n in range(10)
]


def messages(row):
    return [{"role": role, "content": text} for role, text in row]


@pytest.fixture(scope="module")
def chat_tokenizer():
    vocabulary = {"</s>": 0, "<unk>": 1, **{chr(code): code - 30 for code in range(32, 127)}}
    model = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    model.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    model.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=model, eos_token="</s>", pad_token="</s>", unk_token="<unk>")
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def read(folder, rows, tokenizer, **settings):
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    config = CausalLMTask.model_validate({"type": "causal-lm", "data": "rows.jsonl", **settings})
    return render_task(read_task("chat", config, folder, 0), TASK_TYPES["causal-lm"], tokenizer)


def trained_texts(rows, tokenizer):
    return [
        tokenizer.decode(np.array(ids)[np.array(mask) == 1])
        for ids, mask in zip(rows["input_ids"].to_pylist(), rows["trained"].to_pylist(), strict=True)
    ]


LAYOUTS = {
    "messages": ([{"chat": messages(row)} for row in ROWS], {"messages": "chat"}),
    "conversations": (
        [{"c": [{"from": {"user": "human"}.get(r, "gpt"), "value": t} for r, t in row]} for row in ROWS],
        {"conversations": "c"},
    ),
    "json in texts": ([{"chat": json.dumps(messages(row))} for row in ROWS], {"messages": "chat"}),
}


@pytest.mark.parametrize(("rows", "keys"), LAYOUTS.values(), ids=LAYOUTS)
def test_conversations_of_every_layout_train_the_assistants_turns(tmp_path, chat_tokenizer, rows, keys):
    data = read(tmp_path, rows, chat_tokenizer, **keys)
    tokens = TASK.tokenize(data.splits["train"], chat_tokenizer, 100)
    numbers = [row - 1 for row in tokens["row"].to_pylist()]
    assert trained_texts(tokens, chat_tokenizer) == [f"say {n}</s>end {n}!</s>" for n in numbers]
    assert tokens["bytes"].to_pylist() == [len(f"say {n}end {n}!") for n in numbers]


@pytest.mark.parametrize("context", [None, "input"])
def test_alpaca_rows_are_an_instruction_with_its_input_and_an_answer(tmp_path, chat_tokenizer, context):
    rows = [{"instruction": f"do {n}", "input": "" if n % 2 else "with", "output": f"done {n}"} for n in range(10)]
    keys = {"instruction": "instruction", "output": "output", **({"input": context} if context else {})}
    split = read(tmp_path, rows, chat_tokenizer, **keys).splits["train"]
    tokens = TASK.tokenize(split, chat_tokenizer, 100)
    for text, mask, row in zip(
        split["text"].to_pylist(), trained_texts(tokens, chat_tokenizer), split["row"], strict=True
    ):
        number = row.as_py() - 1
        question = f"do {number}\n\nwith" if context and number % 2 == 0 else f"do {number}"
        assert text == f"[user] {question}</s>[assistant] done {number}</s>"
        assert mask == f"done {number}</s>"


def test_plain_texts_train_every_token(tmp_path, chat_tokenizer):
    split = read(tmp_path, [{"t": f"text {n}"} for n in range(10)], chat_tokenizer, text="t").splits["train"]
    tokens = TASK.tokenize(split, chat_tokenizer, 100)
    assert all(all(mask) for mask in tokens["trained"].to_pylist())
    assert trained_texts(tokens, chat_tokenizer) == [f"{text}</s>" for text in split["completion"].to_pylist()]


@pytest.mark.parametrize(("train_on", "expected"), [("last", "end 0!</s>"), ("all", None)])
def test_train_on_chooses_the_trained_part_of_conversations(tmp_path, chat_tokenizer, train_on, expected):
    data = read(tmp_path, LAYOUTS["messages"][0], chat_tokenizer, messages="chat", train_on=train_on)
    tokens = pa.concat_tables([TASK.tokenize(rows, chat_tokenizer, 100) for rows in data.splits.values()])
    first = trained_texts(tokens, chat_tokenizer)[tokens["row"].to_pylist().index(1)]
    assert first == (expected or "[user] ask 0</s>[assistant] say 0</s>[user] more</s>[assistant] end 0!</s>")


def test_train_on_all_of_prompts_trains_prompts_too(tmp_path, chat_tokenizer):
    rows = [{"p": f"ask {n}", "c": f" say {n}"} for n in range(10)]
    split = read(tmp_path, rows, chat_tokenizer, prompt="p", completion="c", train_on="all").splits["train"]
    tokens = TASK.tokenize(split, chat_tokenizer, 100)
    assert all(all(mask) for mask in tokens["trained"].to_pylist())
    assert tokens["prompt_length"].to_pylist() == [5] * tokens.num_rows


def test_conversations_without_consistent_rendering_are_rows_by_turn(tmp_path, chat_tokenizer):
    chat_tokenizer = type(chat_tokenizer)(
        tokenizer_object=chat_tokenizer._tokenizer, eos_token="</s>", unk_token="<unk>", chat_template=ONCE
    )
    data = read(tmp_path, LAYOUTS["messages"][0], chat_tokenizer, messages="chat")
    assert data.rows == {"train": 6, "validation": 2, "test": 2}, "two samples of a conversation are one row"
    assert "10 rows (6 train, 2 validation, 2 test) · 20 samples, one for each of" in task_line(
        "chat", TaskPlan(data, TASK, ())
    )
    split = data.splits["test"]
    tokens = TASK.tokenize(split, chat_tokenizer, 100)
    numbers = [row - 1 for row in split["row"].to_pylist()]
    assert numbers[::2] == numbers[1::2]
    expected = [f"say {n}</s>" if place % 2 == 0 else f"end {n}!</s>" for place, n in enumerate(numbers)]
    assert trained_texts(tokens, chat_tokenizer) == expected


def test_rows_without_a_trained_token_are_named_or_dropped(tmp_path, chat_tokenizer):
    rows = [*LAYOUTS["messages"][0], {"chat": messages(ROWS[0][:1])}]
    split = {"split": {"train": 0.6, "validation": 0.2, "test": 0.2}}
    with pytest.raises(
        InputError, match="row 11, column chat: no message is the assistant's, so that nothing would be trained"
    ):
        read(tmp_path, rows, chat_tokenizer, messages="chat", **split)
    data = read(tmp_path, rows, chat_tokenizer, messages="chat", drop_invalid=True, **split)
    assert data.dropped == 1
    assert sum(rows.num_rows for rows in data.splits.values()) == 10


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([{"role": "robot", "content": "x"}], "message 1 has the role 'robot'; write one of system"),
        ([{"role": "user"}], "message 1 has no text as its content"),
        ({"role": "user"}, "is no list of messages"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "message 1 has parts that are not texts"),
    ],
)
def test_bad_conversations_are_named_with_their_row(tmp_path, chat_tokenizer, row, message):
    rows = [*[{"chat": json.dumps(messages(row))} for row in ROWS], {"chat": json.dumps(row)}]
    with pytest.raises(InputError, match=f"row 11, column chat: {message}"):
        read(tmp_path, rows, chat_tokenizer, messages="chat")


def test_tokenizer_without_chat_template_is_one_line(tmp_path, tokenizer):
    with pytest.raises(
        InputError, match=r"no chat template; name one with backbone\.chat_template: FILE\.jinja"
    ) as error:
        read(tmp_path, LAYOUTS["messages"][0], tokenizer, messages="chat")
    assert len(error.value.lines()) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "names no columns; write messages, conversations, instruction and output, prompt and completion, or text"),
        ({"messages": "a", "text": "b"}, "has messages and text; write messages, conversations, "),
        ({"instruction": "a"}, "output is missing; instruction needs it"),
        ({"messages": "a", "train_on": "completion"}, "train_on must be assistant or last or all"),
        ({"prompt": "a", "completion": "b", "input": "c"}, "input belongs to instruction and output"),
    ],
)
def test_language_model_tasks_name_one_layout(settings, message):
    with pytest.raises(ValidationError) as error:
        CausalLMTask.model_validate({"type": "causal-lm", "data": "rows.jsonl", **settings})
    (found,) = error.value.errors()
    problems = [f"{'.'.join(key)} {text}" for key, text in found.get("ctx", {}).get("problems", ())]
    assert message in (found["msg"] if not problems else problems[0])


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_loss_of_several_trained_spans_equals_longhand_math(tmp_path, chat_tokenizer, decoder, left, size):
    split = read(tmp_path, LAYOUTS["messages"][0], chat_tokenizer, messages="chat").splits["train"]
    rows = TASK.tokenize(split, chat_tokenizer, 100).slice(0, 5)
    expected = []
    for ids, mask in zip(rows["input_ids"].to_pylist(), rows["trained"].to_pylist(), strict=True):
        with torch.no_grad():
            logits = decoder(torch.tensor([ids])).logits[0].double().log_softmax(1)
        expected.append([-logits[place - 1, ids[place]].item() for place in range(1, len(ids)) if mask[place]])
    batch = TASK.collate(rows, np.arange(5), pad_id=0, pad_left=left)
    assert TASK.loss(decoder, batch).item() == pytest.approx(np.mean(np.concatenate(expected)), abs=1e-5)
    predictions = TASK.evaluate(decoder, rows, evaluation_batches(lengths(rows), size), 0, left).predictions
    np.testing.assert_allclose(predictions["nll"], [sum(row) for row in expected], rtol=1e-5)
    assert predictions["tokens"].to_pylist() == [len(row) for row in expected]
    assert TASK.target_tokens(rows).tolist() == [len(row) for row in expected]


def test_conversations_too_long_keep_the_last_turn(tmp_path, chat_tokenizer):
    split = read(tmp_path, LAYOUTS["messages"][0], chat_tokenizer, messages="chat").splits["train"]
    tokens = TASK.tokenize(split, chat_tokenizer, 20)
    whole = TASK.tokenize(split, chat_tokenizer, 100)
    assert lengths(tokens).tolist() == [20] * tokens.num_rows
    assert tokens["cut"].to_pylist() == (lengths(whole) - 20).tolist()
    assert all(text.endswith("!</s>") and text.startswith("end") for text in trained_texts(tokens, chat_tokenizer))


def test_asked_conversations_are_rendered_as_they_were_trained(tmp_path, chat_tokenizer):
    task = CausalLM(generates=True, chosen=("exact_match",), max_new_tokens=3, tokenizer=chat_tokenizer)
    split = read(tmp_path, LAYOUTS["messages"][0], chat_tokenizer, messages="chat").splits["train"]
    tokens = task.tokenize(split, chat_tokenizer, 100)
    schema = task.input_schema({"messages": "messages", "tools": "tools"})
    number = split["row"][0].as_py() - 1
    asked = task.unanswered(schema.to_table([{"messages": messages(ROWS[number][:3])}]))
    (prompt,) = task.tokenize(asked, chat_tokenizer, 100)["input_ids"].to_pylist()
    assert (
        chat_tokenizer.decode(prompt)
        == f"[user] ask {number}</s>[assistant] say {number}</s>[user] more</s>[assistant] "
    )
    assert tokens["prompt_ids"][0].as_py() == prompt
    assert tokens["input_ids"][0].as_py()[: len(prompt)] == prompt
    assert schema.to_rows(split)[0]["messages"] == messages(ROWS[number][:3])


def test_generated_answers_are_compared_with_the_last_turn(tmp_path, chat_tokenizer, decoder):
    task = CausalLM(generates=True, chosen=("exact_match",), max_new_tokens=3, tokenizer=chat_tokenizer)
    split = read(tmp_path, LAYOUTS["messages"][0], chat_tokenizer, messages="chat").splits["test"]
    rows = task.tokenize(split, chat_tokenizer, 100)
    predictions = task.evaluate(decoder, rows, [np.arange(rows.num_rows)], 0).predictions
    assert predictions["reference"].to_pylist() == [f"end {n - 1}!" for n in split["row"].to_pylist()]
    assert all(text is not None for text in predictions["generated"].to_pylist())


def test_answers_in_conversations_end_with_the_turn(chat_tokenizer):
    special = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(chat_tokenizer._tokenizer.to_str()), unk_token="<unk>", eos_token="<unk>"
    )
    special.add_special_tokens({"additional_special_tokens": ["<end>"]})
    special.chat_template = TEMPLATE.replace("</s>", "<end>\n")
    assert turn_ends(special) == [special.convert_tokens_to_ids("<end>")]
    special.chat_template = TEMPLATE.replace("</s>", " over\n")
    assert turn_ends(special) == []


@pytest.mark.parametrize("keys", [{"messages": "chat"}, {"prompt": "{chat}", "completion": "chat"}])
def test_no_rows_are_tokenized_as_no_rows(tmp_path, chat_tokenizer, keys):
    rows = [{"chat": messages(row) if "messages" in keys else str(row)} for row in ROWS]
    split = read(tmp_path, rows, chat_tokenizer, **keys).splits["train"]
    none = TASK.tokenize(split.slice(0, 0), chat_tokenizer, 100)
    assert none.num_rows == 0
    assert set(none.column_names) >= set(TASK.tokenize(split, chat_tokenizer, 100).column_names)
