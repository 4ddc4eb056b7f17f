"""From prompts with choices to tokens: which choice is right, and what stands between a prompt and a choice.

A prompt and a choice are joined by one space, or by nothing after a line's end. So the spaces that end a prompt or
begin a choice do not matter: a client of a trained model cannot get them wrong.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from orchestrator.common.errors import InputError, Problem
from orchestrator.common.suggest import did_you_mean
from orchestrator.tasks.chat_template import ChatTemplate, MaskError
from orchestrator.tasks.columns import Column
from orchestrator.tasks.conversations import as_json, openai_messages
from orchestrator.tasks.tokens import token_column

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ANY_WORD = "a"


def choices_problem(choices: Sequence[Any]) -> str:
    """Return what is wrong with a list of choices, a clause; empty if nothing is."""
    texts = [choice.strip() for choice in choices]
    if len(texts) < 2:
        return f"has {len(texts)} choice{'s' * (len(texts) != 1)}; two are needed"
    if not all(texts):
        return "has an empty choice"
    twice = [text for index, text in enumerate(texts) if text in texts[:index]]
    return f"has {twice[0]!r} twice; keep one" if twice else ""


def answers(
    completions: pa.Array, choices: Sequence[Sequence[str] | None], answered: Column, listed: Column | None = None
) -> dict[str, pa.Array]:
    """Return ``choices`` and ``answer``, the index of the right choice; refuse rows that have none.

    Args:
        completions: Right choices.
        choices: The choices of each row.
        answered: Column whose rows are refused where the right choice is not among the choices.
        listed: Column whose rows are refused where the choices cannot be used, if they are from a file.
    """
    indices = []
    refused = answered.refused if listed is None else answered.refused | listed.refused
    for row, (completion, row_choices) in enumerate(zip(completions.to_pylist(), choices, strict=True)):
        index = 0
        if not refused[row] and row_choices is not None and completion is not None:
            texts = [choice.strip() for choice in row_choices]
            if listed is not None and (problem := choices_problem(row_choices)):
                listed.refuse(row, problem)
            elif completion.strip() in texts:
                index = texts.index(completion.strip())
            else:
                hint = did_you_mean(completion.strip(), texts, "choices")
                answered.refuse(row, f"{completion.strip()!r} is not among the choices; {hint}")
        indices.append(index)
    column = pa.array(choices, pa.list_(pa.string()))
    return {"choices": column, "answer": pa.array(indices, pa.int32())}


def questions_and_answers(column: Column) -> tuple[pa.Array, pa.Array]:
    """Return conversations up to the assistant's last message as JSON, and that message; refuse rows without one."""

    def question_and_answer(value: Any) -> tuple[str, str]:
        *asked, last = openai_messages(value)
        if not asked or last["role"] != "assistant" or not isinstance(last.get("content"), str):
            raise ValueError("does not end with an answer of the assistant, which is the right choice")
        return as_json(asked), last["content"]

    pairs = [pair or (None, None) for pair in column.map(question_and_answer)]
    asked, answered = (pa.array([pair[part] for pair in pairs], pa.string()) for part in (0, 1))
    return asked, answered


def render_messages(rows: pa.Table, tokenizer: PreTrainedTokenizerBase) -> tuple[pa.Table, list[tuple[int, str]]]:
    """Return rows with ``prompt``, their ``messages`` as the tokenizer's chat template renders them, up to an answer.

    Returns:
        The rows, without those that the template refuses, and the number and the reason of each of these.

    Raises:
        MaskError: If the tokenizer has no chat template.
    """
    template = ChatTemplate.of(tokenizer)
    prompts: list[str | None] = []
    refused = []
    for number, messages in zip(rows["row"].to_pylist(), rows["messages"].to_pylist(), strict=True):
        try:
            prompts.append(template.render(json.loads(messages), [], answer_next=True).text)
        except MaskError as error:
            prompts.append(None)
            refused.append((number, str(error)))
    column = pa.array(prompts, pa.string())
    return rows.append_column("prompt", column).filter(column.is_valid()), refused


def tokenized(rows: pa.Table, tokenizer: PreTrainedTokenizerBase, max_length: int) -> pa.Table:
    """Return the tokenized table of a split.

    Its columns are ``row``, ``input_ids`` (prompt and right choice), ``prompt_length``, ``choices``, the right choice,
    the tokens of all choices (``choice_ids``, one after the other, and ``choice_lengths``), and ``cut``, how many
    tokens of the prompt were left out.

    Raises:
        InputError: If a choice alone has more than ``max_length`` tokens.
    """
    is_chat = "messages" in rows.column_names
    if is_chat and "prompt" not in rows.column_names:  # of a client, whose conversations are not rendered yet
        rows, _ = render_messages(rows, tokenizer)
    answer = "label" if "label" in rows.column_names else "answer"
    special: list[int] = tokenizer("")["input_ids"]
    opening = [] if is_chat else [token for token in special if token == tokenizer.bos_token_id][:1]
    plain = {"add_special_tokens": False, "return_attention_mask": False, "verbose": False}

    @cache
    def continuation(cue: str, text: str) -> list[int]:
        """Return the token ids of a text after a cue, together with which it is tokenized if that keeps the cue."""
        cue_ids, ids = (tokenizer(piece, **plain)["input_ids"] for piece in (cue, cue + text))
        return list(ids[len(cue_ids) :] if ids[: len(cue_ids)] == cue_ids else tokenizer(text, **plain)["input_ids"])

    prompts = [prompt.rstrip(" ") for prompt in rows["prompt"].to_pylist()]
    prompt_ids = tokenizer(prompts, **plain)["input_ids"] if prompts else []
    names = ("input_ids", "choice_ids", "choice_lengths", "prompt_length", "cut")
    columns: dict[str, list[Any]] = {name: [] for name in names}
    row_numbers, right_choices, listed = (rows[name].to_pylist() for name in ("row", answer, "choices"))
    for prompt, ids, texts, right, number in zip(prompts, prompt_ids, listed, right_choices, row_numbers, strict=True):
        is_in_line = bool(prompt) and not prompt[-1].isspace()
        cue, space = (ANY_WORD, " ") if is_in_line else (f"{ANY_WORD}\n", "")
        choices = _distinguished([continuation(cue, space + text.strip()) for text in texts], tokenizer.eos_token_id)
        room = max_length - len(opening) - max(map(len, choices), default=0)
        if room < 1:
            message = f"a choice has {max(map(len, choices)):,} tokens; training.max_length is {max_length:,}"
            raise InputError("choices", [Problem(f"row {number:,}", message)])
        start = [*opening, *ids[-room:]] or [tokenizer.eos_token_id]
        columns["input_ids"].append([*start, *(choices[right] if choices else ())])
        columns["prompt_length"].append(len(start))
        columns["cut"].append(max(0, len(ids) - room))
        columns["choice_ids"].append([token for choice in choices for token in choice])
        columns["choice_lengths"].append([len(choice) for choice in choices])
    lists = {name: token_column(columns[name]) for name in ("input_ids", "choice_ids", "choice_lengths")}
    counts = {name: pa.array(columns[name], pa.int32()) for name in ("prompt_length", "cut")}
    return pa.table({"row": rows["row"], **lists, **counts, "choices": rows["choices"], answer: rows[answer]})


def _distinguished(choices: list[list[int]], end: int) -> list[list[int]]:
    """Return the choices' tokens; with the end of the sequence after each where one begins like another."""
    begins_like = any(
        len(first) <= len(second) and second[: len(first)] == first
        for index, first in enumerate(choices)
        for other, second in enumerate(choices)
        if index != other
    )
    return [[*choice, end] for choice in choices] if begins_like else choices
