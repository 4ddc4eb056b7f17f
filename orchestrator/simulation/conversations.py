"""Made-up conversations of every kind that a chat template must render: turns, tools, reasoning, unicode, lengths."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

Message = dict[str, Any]

WORDS = (
    *("river", "lamp", "seven", "quiet", "window", "the", "of", "a", "is", "because", "morning", "ticket", "copper,"),
    *("engine;", "(left)", '"right"', "price:", "3.50", "user", "assistant", "system", "model", "tool"),
)
UNICODE = ("naïve", "Straße", "数据", "こんにちは", "🙂", "👩‍👩‍👧", "e\u0301", "עברית", "ไทย", "\u00a0", "Ω≈ç", "—")
SHAPES = (" ", " ", " ", "\n", "\n\n", "  ", "\t")
TOOLS: tuple[Message, ...] = tuple(
    {
        "type": "function",
        "function": {
            "name": name,
            "description": description,
            "parameters": {
                "type": "object",
                "properties": {key: {"type": "string", "description": f"The {key}."}},
                "required": [key],
            },
        },
    }
    for name, description, key in (
        ("get_weather", "Tell the weather of a place.", "city"),
        ("find_train", "Find the next train.", "station"),
    )
)


@dataclass(frozen=True)
class Conversation:
    """A conversation.

    Args:
        messages: Messages in OpenAI's layout.
        tools: JSON schemas of the tools; empty without tools.
    """

    messages: list[Message]
    tools: list[Message]


def make_conversation(seed: int, *, system: bool = True, tools: bool = True, reasoning: bool = True) -> Conversation:
    """Make a conversation.

    Args:
        seed: Seed; equal seeds and settings give equal conversations.
        system: Whether it may have a message of the system.
        tools: Whether it may have tools and calls of them.
        reasoning: Whether the assistant's messages may have reasoning.
    """
    draw = random.Random(seed)
    has_tools, has_reasoning = tools and draw.random() < 0.35, reasoning and draw.random() < 0.4
    messages: list[Message] = []
    if system and draw.random() < 0.5:
        messages.append({"role": "system", "content": _text(draw)})
    for _ in range(draw.choice((1, 1, 2, 2, 3, 5))):
        messages.append({"role": "user", "content": _text(draw)})
        if has_tools and draw.random() < 0.6:
            for number in range(draw.choice((1, 1, 2))):
                messages += _tool_step(draw, len(messages) + number, has_reasoning)
        messages.append(_answer(draw, has_reasoning))
    if draw.random() < 0.05:
        messages.append({"role": "user", "content": _text(draw)})
    return Conversation(messages, list(TOOLS) if has_tools else [])


def _answer(draw: random.Random, has_reasoning: bool) -> Message:
    message = {"role": "assistant", "content": _text(draw)}
    if has_reasoning and draw.random() < 0.7:
        message["reasoning_content"] = _text(draw, empty=0)
    return message


def _tool_step(draw: random.Random, number: int, has_reasoning: bool) -> list[Message]:
    tool = draw.choice(TOOLS)["function"]
    (key,) = tool["parameters"]["properties"]
    call_id = f"call{number:05d}"
    arguments = {key: _text(draw, empty=0, long=0)}
    call = {"id": call_id, "type": "function", "function": {"name": tool["name"], "arguments": arguments}}
    content = _text(draw, empty=0, long=0) if draw.random() < 0.2 else ""
    message: Message = {"role": "assistant", "content": content, "tool_calls": [call]}
    if has_reasoning and draw.random() < 0.5:
        message["reasoning_content"] = _text(draw, empty=0)
    result = {"role": "tool", "name": tool["name"], "tool_call_id": call_id, "content": _text(draw, empty=0)}
    return [message, result]


def _text(draw: random.Random, empty: float = 0.04, long: float = 0.02) -> str:
    """Return a text: sometimes empty, seldom very long, sometimes with white space around it."""
    chance = draw.random()
    if chance < empty:
        return ""
    length = 2000 if chance < empty + long else draw.choice((1, 3, 8, 20))
    words = [draw.choice(UNICODE) if draw.random() < 0.12 else draw.choice(WORDS) for _ in range(length)]
    text = words[0] + "".join(draw.choice(SHAPES) + word for word in words[1:])
    if draw.random() < 0.1:
        text = draw.choice((" ", "\n", "\n\n")) + text
    return text + draw.choice((" ", "\n")) if draw.random() < 0.1 else text
