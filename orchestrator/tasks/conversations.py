"""Rows that are conversations, in the layouts that people have them in, as messages in OpenAI's layout."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa

from orchestrator.tasks.chat_template import Message
from orchestrator.tasks.columns import Column

ROLES = ("system", "developer", "user", "assistant", "tool")
SHAREGPT_ROLES = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "observation": "tool",
    "function_response": "tool",
    "tool_response": "tool",
    "function_call": "function_call",
    "tool_call": "function_call",
    **{role: role for role in ROLES},
}


def openai_messages(value: Any) -> list[Message]:
    """Return the messages of a row in OpenAI's layout, checked.

    Raises:
        ValueError: If it is no list of messages; the message continues "row 3, column messages".
    """
    if not isinstance(value, list) or not value or not all(isinstance(message, dict) for message in value):
        raise ValueError('is no list of messages; write [{"role": "user", "content": "..."}, ...]')
    for number, message in enumerate(value, 1):
        if "role" not in message:
            raise ValueError(f'message {number} has no role; write {{"role": "user", "content": "..."}}')
        if (role := message["role"]) not in ROLES:
            raise ValueError(f"message {number} has the role {role!r}; write one of {', '.join(ROLES)}")
        _require_texts(message.get("content"), number, may_be_empty=bool(message.get("tool_calls")))
        for call in message.get("tool_calls") or ():
            function = call.get("function", call) if isinstance(call, dict) else None
            if not isinstance(function, dict) or not isinstance(function.get("name"), str):
                raise ValueError(f'message {number} has a tool call without {{"function": {{"name": ...}}}}')
    return value


def sharegpt_messages(value: Any) -> list[Message]:
    """Return the messages of a row in ShareGPT's layout.

    Raises:
        ValueError: If it is no list of turns.
    """
    if not isinstance(value, list) or not value or not all(isinstance(turn, dict) for turn in value):
        raise ValueError('is no list of turns; write [{"from": "human", "value": "..."}, ...]')
    messages: list[Message] = []
    for number, turn in enumerate(value, 1):
        speaker, text = turn.get("from"), turn.get("value")
        if speaker not in SHAREGPT_ROLES:
            raise ValueError(
                f"turn {number} is from {speaker!r}; write human, gpt, system, function_call or observation"
            )
        if not isinstance(text, str):
            raise ValueError(f"turn {number} has no text as its value")
        role = SHAREGPT_ROLES[speaker]
        if role == "function_call":
            messages.append({"role": "assistant", "content": "", "tool_calls": _sharegpt_calls(text, number)})
        else:
            messages.append({"role": role, "content": text})
    return messages


def alpaca_messages(instruction: str, context: str, output: str) -> list[Message]:
    """Return the messages of a row in Alpaca's layout: the input follows the instruction after an empty line."""
    question = f"{instruction}\n\n{context}" if context else instruction
    return [{"role": "user", "content": question}, {"role": "assistant", "content": output}]


def tool_schemas(value: Any) -> list[Any]:
    """Return the JSON schemas of a row's tools.

    Raises:
        ValueError: If it is no list of objects.
    """
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        raise ValueError('is no list of tools; write [{"type": "function", "function": {"name": ...}}, ...]')
    return value


def conversation_column(column: Column, messages_of: Callable[[Any], list[Message]]) -> pa.Array:
    """Return the messages of each row as JSON; rows without any, or without an answer, are refused."""

    def answered(value: Any) -> str:
        messages = messages_of(value)
        if all(message["role"] != "assistant" for message in messages):
            raise ValueError("no message is the assistant's, so that nothing would be trained")
        return as_json(messages)

    return pa.array(column.map(answered), pa.string())


def alpaca_column(columns: Mapping[str, Column], instruction: str, context: str | None, output: str) -> pa.Array:
    """Return the messages of each row in Alpaca's layout as JSON."""
    questions, answers = columns[instruction].texts.to_pylist(), columns[output].texts.to_pylist()
    contexts = columns[context].texts.to_pylist() if context else [""] * len(questions)
    rows = zip(questions, contexts, answers, strict=True)
    return pa.array([as_json(alpaca_messages(*row)) for row in rows], pa.string())


def as_json(value: Any) -> str:
    """Return a value as JSON, with its characters as they are."""
    return json.dumps(value, ensure_ascii=False)


def messages_problem(value: Any) -> str:
    """Return what is wrong with the messages of a client, a clause; empty if nothing is."""
    return _problem(openai_messages, value)


def tools_problem(value: Any) -> str:
    """Return what is wrong with the tools of a client, a clause; empty if nothing is."""
    return _problem(tool_schemas, value)


def _problem(check: Callable[[Any], Any], value: Any) -> str:
    try:
        check(value)
    except ValueError as error:
        return str(error)
    return ""


def _require_texts(content: Any, number: int, may_be_empty: bool) -> None:
    if content is None and may_be_empty:
        return
    if isinstance(content, list):
        if all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in content):
            return
        raise ValueError(f"message {number} has parts that are not texts, which a language model cannot read")
    if not isinstance(content, str):
        raise ValueError(f"message {number} has no text as its content")


def _sharegpt_calls(text: str, number: int) -> list[Message]:
    try:
        calls = json.loads(text)
        return [
            {"type": "function", "function": {"name": call["name"], "arguments": call.get("arguments", {})}}
            for call in (calls if isinstance(calls, list) else [calls])
        ]
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ValueError(
            f'turn {number} is a call of a function; write its value as {{"name": ..., "arguments": {{...}}}}'
        ) from None
