"""From conversations to texts with the characters that are trained, by the tokenizer's chat template."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.common.errors import InputError, Problem
from orchestrator.tasks.chat_template import ChatTemplate, MaskError, shared_length
from orchestrator.tasks.faults import Faults
from orchestrator.tasks.mapped import mapped
from orchestrator.tasks.token_spans import Offsets, kept_tokens, tokens_in
from orchestrator.tasks.turn_masks import Sample, samples

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from orchestrator.tasks._base import TaskType
    from orchestrator.tasks.data import TaskData

RENDERED = pa.schema(
    [
        pa.field("row", pa.int64()),
        pa.field("prompt", pa.string()),
        pa.field("completion", pa.string()),
        pa.field("text", pa.string()),
        pa.field("spans", pa.list_(pa.int32())),
        pa.field("messages", pa.string()),
        pa.field("tools", pa.string()),
    ]
)
"""A conversation's text; the first character and the one after the last of each part that is trained; and what precedes
its last answer where that is generated, with the answer; as text, and as JSON for those who ask the trained model."""


def is_rendered(rows: pa.Table) -> bool:
    """Return whether the tokenizer's chat template made the texts of a split."""
    return "messages" in rows.column_names


def render_task(data: TaskData, kind: TaskType, tokenizer: PreTrainedTokenizerBase) -> TaskData:
    """Return a task's rows as its model reads them.

    Raises:
        InputError: If the tokenizer's chat template cannot render a row, or its mask would not be exact, and the task
            does not drop such rows.
    """
    key, splits, dropped = f"tasks.{data.name}", {}, 0
    for split, rows in data.splits.items():
        try:
            rendered, refused = kind.render(rows, tokenizer)
        except MaskError as error:
            raise InputError(key, [Problem("", str(error))]) from error
        file = str(data.config.files().get(("data", split), data.config.files().get(("data",), ""))).rpartition("/")[2]
        faults = Faults(file, rows["row"].to_numpy(), [(row, "", message) for row, message in refused])
        if not data.config.drop_invalid:
            faults.raise_if_any(key)
        if not rendered.num_rows:
            raise InputError(file, faults.problems())
        splits[split] = rows if rendered is rows else mapped(rendered)
        dropped += faults.count()
    return replace(data, splits=splits, dropped=data.dropped + dropped)


def render_conversations(rows: pa.Table, tokenizer: PreTrainedTokenizerBase) -> tuple[pa.Table, list[tuple[int, str]]]:
    """Render the conversations of a split.

    Args:
        rows: Table with ``row``, and as texts ``prompt`` (the messages as JSON), ``tools`` (JSON) and ``train_on``.
        tokenizer: Tokenizer with a chat template.

    Returns:
        A table of :data:`RENDERED`, with several rows of one number where a conversation is trained turn by turn; and
        the number and the reason of each row that is refused.

    Raises:
        MaskError: If the template can be used for no row.
    """
    lines: list[dict[str, Any]] = []
    refused: list[tuple[int, str]] = []
    templates: dict[bool, ChatTemplate] = {}
    for row in rows.select(["row", "prompt", "tools", "train_on"]).to_pylist():
        tools = json.loads(row["tools"] or "[]")
        if bool(tools) not in templates:
            templates[bool(tools)] = ChatTemplate.of(tokenizer, tools)
            templates[bool(tools)].require_usable()
        try:
            parts = samples(templates[bool(tools)], json.loads(row["prompt"]), tools, row["train_on"])
        except MaskError as error:
            refused.append((row["row"], str(error)))
            continue
        lines += [_line(row, sample) for sample in parts]
    return pa.Table.from_pylist(lines, RENDERED), refused


def render_prompts(rows: pa.Table, tokenizer: PreTrainedTokenizerBase) -> pa.Table:
    """Render conversations whose next answer is to be generated.

    Args:
        rows: Table with ``row``, and as JSON ``messages`` and ``tools`` (null without any).
        tokenizer: Tokenizer with a chat template.

    Raises:
        MaskError: If the template refuses one.
    """
    lines = []
    for line in rows.select(["row", "messages", "tools"]).to_pylist():
        tools = json.loads(line["tools"] or "[]")
        template = ChatTemplate.of(tokenizer, tools)
        text = template.render(json.loads(line["messages"]), tools, answer_next=True).text
        lines.append({**line, "prompt": text, "completion": "", "text": text, "spans": []})
    return pa.Table.from_pylist(lines, RENDERED)


def turn_ends(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the special token by which an assistant's turn ends, where the chat template ends it by one."""
    ids: list[int] = tokenizer(ChatTemplate.of(tokenizer).end.strip(), add_special_tokens=False)["input_ids"]
    return ids[:1] if ids and ids[0] in tokenizer.added_tokens_decoder else []


def tokenize_rendered(
    rows: pa.Table, tokenizer: PreTrainedTokenizerBase, max_length: int
) -> tuple[list[NDArray[np.int32]], list[NDArray[np.bool_]], list[int]]:
    """Tokenize rendered texts.

    Returns:
        For each row its token ids, which of them are trained, and how many tokens were cut.
    """
    ids, masks, cut = [], [], []
    for batch in rows.select(["text", "spans"]).to_batches(max_chunksize=1024):
        settings = {"add_special_tokens": False, "return_offsets_mapping": True, "return_attention_mask": False}
        encoded = tokenizer(batch["text"].to_pylist(), **settings, verbose=False)
        pairs = zip(encoded["input_ids"], encoded["offset_mapping"], batch["spans"].to_pylist(), strict=True)
        for tokens, offsets, spans in pairs:
            row = np.array(tokens, np.int32)
            places: Offsets = np.array(offsets, np.int64).reshape(-1, 2)
            trained = tokens_in(places, list(zip(spans[::2], spans[1::2], strict=True)))
            opening = int(len(row) > 0 and row[0] == tokenizer.bos_token_id)
            first, stop = kept_tokens(trained, max_length, opening)
            kept = np.r_[0:opening, first:stop]
            ids.append(row[kept])
            masks.append(trained[kept])
            cut.append(len(row) - len(kept))
    return ids, masks, cut


def rendered_roles(row: dict[str, Any], tokenizer: PreTrainedTokenizerBase, max_length: int) -> list[str]:
    """Return who says each token of a rendered row, as :func:`tokenize_rendered` cuts it.

    A message's part of the text ends where it ends when it is the last one; what comes after the last answer is a
    question that nobody answers.
    """
    messages, tools = json.loads(row["messages"]), json.loads(row["tools"] or "[]")
    template = ChatTemplate.of(tokenizer, tools)
    encoded = tokenizer(row["text"], add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    places: Offsets = np.array(encoded["offset_mapping"], np.int64).reshape(-1, 2)
    roles = np.full(len(places), "assistant", object)
    for stop in range(len(messages), 0, -1):
        try:
            text = template.render(messages[:stop], tools).text
        except MaskError:
            continue
        roles[places[:, 0] < shared_length(text, row["text"])] = messages[stop - 1]["role"]
    last = row["spans"][-1] if row["spans"] else len(row["text"])
    roles[places[:, 0] >= last] = "user"
    trained = tokens_in(places, list(zip(row["spans"][::2], row["spans"][1::2], strict=True)))
    opening = int(len(places) > 0 and encoded["input_ids"][0] == tokenizer.bos_token_id)
    first, stop = kept_tokens(trained, max_length, opening)
    return [*roles[:opening], *roles[first:stop]]


def _line(row: dict[str, Any], sample: Sample) -> dict[str, Any]:
    spans = [place for span in sample.trained for place in span]
    asked = json.dumps(json.loads(row["prompt"])[: sample.answered], ensure_ascii=False)
    texts = {"prompt": sample.prompt, "completion": sample.answer, "text": sample.text, "spans": spans}
    return {"row": row["row"], **texts, "messages": asked, "tools": row["tools"] or None}
