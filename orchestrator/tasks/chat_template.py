"""A tokenizer's chat template: renders conversations, and says what it cannot render."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from orchestrator.common.errors import first_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = dict[str, Any]
Span = tuple[int, int]
"""First character, and the one after the last."""

REASONING_PREFILL = re.compile(r"(?:<think>\s*(?:</think>\s*)?|<\|channel>thought\s*(?:<channel\|>\s*)?)$")
"""What a prompt begins the assistant's reasoning with, or skips it by.

It is the assistant's, since it depends on the mode of thinking, and a rendered turn does not always begin with it.
"""
MARK = re.compile(r"\{%-?\s*generation\s*-?%\}")
QUESTION, ANSWER, TOOL, ARGUMENT = "Probe question 17", "Probe answer 29", "probe_function", "probe argument 31"


class MaskError(ValueError):
    """A conversation or a template for which it cannot be said exactly which tokens are the assistant's."""


@dataclass(frozen=True)
class Rendered:
    """A conversation as text.

    Args:
        text: What the model reads.
        marks: The characters that the template itself marks as generated, where it marks any.
    """

    text: str
    marks: tuple[Span, ...] = ()


@dataclass(frozen=True)
class ChatTemplate:
    """A Jinja template with the special tokens that it writes.

    Args:
        source: The template.
        special_tokens: Names and texts of the tokenizer's special tokens, such as ``bos_token``.
    """

    source: str
    special_tokens: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, tools: Sequence[Any] = ()) -> ChatTemplate:
        """Return a tokenizer's template; where it has several by name, the one for tools if there are any.

        Raises:
            MaskError: If there is none, or the tokenizer does not say where a token stands in the text.
        """
        if not tokenizer.chat_template:
            raise MaskError("the tokenizer has no chat template; name one with backbone.chat_template: FILE.jinja")
        if not tokenizer.is_fast:
            raise MaskError("the tokenizer has no fast version, which says where in a text each token stands")
        return cls(tokenizer.get_chat_template(tools=list(tools) or None), dict(tokenizer.special_tokens_map))

    @property
    def is_marked(self) -> bool:
        """Whether it says itself what the assistant generates."""
        return bool(MARK.search(self.source))

    def render(self, messages: Sequence[Message], tools: Sequence[Any] = (), *, answer_next: bool = False) -> Rendered:
        """Render a conversation.

        Args:
            messages: Messages in OpenAI's layout.
            tools: JSON schemas of the tools.
            answer_next: Whether to end with what comes before the assistant's next word.

        Raises:
            MaskError: If the template refuses the conversation, or cannot say what is in it.
        """
        return self._render(self.as_written(messages), tools, answer_next)

    def as_written(self, messages: Sequence[Message]) -> list[Message]:
        """Return messages as the template reads them: contents as texts or parts, arguments as objects or JSON.

        Raises:
            MaskError: If the template has no form for them.
        """
        arguments_as_text = any(message.get("tool_calls") for message in messages) and self._arguments_as_text
        return [_as_written(message, self._in_parts, arguments_as_text) for message in messages]

    def require_usable(self) -> None:
        """Check what holds for all conversations.

        Raises:
            MaskError: If the template leaves out what messages say, or ends an assistant's turn with nothing.
        """
        if not self.end.strip():
            raise MaskError(
                "the chat template writes nothing after an assistant's turn, so that a model trained on it would never "
                "stop; name one that does with backbone.chat_template: FILE.jinja"
            )

    @cached_property
    def end(self) -> str:
        """What the template writes after the assistant's last answer."""
        return self._probe(self._in_parts).text.rpartition(ANSWER)[2]

    @cached_property
    def header(self) -> str:
        """What the template writes before the first answer of the assistant, without what begins its reasoning."""
        question = self.as_written([{"role": "user", "content": QUESTION}])
        before, until = (self._render(question, (), answer_next).text for answer_next in (True, False))
        return REASONING_PREFILL.sub("", before[shared_length(before, until) :])

    @cached_property
    def _in_parts(self) -> bool:
        """Whether a message's content must be a list of parts: some templates show nothing of a plain text."""
        reason = "it leaves out what messages say"
        for in_parts in (False, True):
            try:
                text = self._probe(in_parts).text
            except MaskError as error:
                reason = str(error)
                continue
            if QUESTION in text and ANSWER in text:
                return in_parts
        raise MaskError(f"the chat template cannot be used: {reason}")

    @cached_property
    def _arguments_as_text(self) -> bool:
        """Whether arguments of a tool call must be JSON: some templates add a text to them."""
        call = {"type": "function", "id": "probe00001", "function": {"name": TOOL, "arguments": {"key": ARGUMENT}}}
        question: Message = {"role": "user", "content": QUESTION}
        messages: list[Message] = [question, {"role": "assistant", "content": "", "tool_calls": [call]}]
        for as_text in (False, True):
            written = [_as_written(message, self._in_parts, as_text) for message in messages]
            try:
                text = self._render(written, (), answer_next=False).text
            except MaskError:
                continue
            if TOOL in text and ARGUMENT in text:
                return as_text
        raise MaskError("the chat template cannot render tool calls")

    def _probe(self, in_parts: bool) -> Rendered:
        messages = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}]
        written = [_as_written(message, in_parts, arguments_as_text=False) for message in messages]
        return self._render(written, (), answer_next=False)

    def _render(self, messages: Sequence[Message], tools: Sequence[Any], answer_next: bool) -> Rendered:
        from jinja2 import TemplateError
        from transformers.utils.chat_template_utils import render_jinja_template

        try:
            rendered: Any = render_jinja_template(
                conversations=[list(messages)],
                tools=list(tools) or None,
                chat_template=self.source,
                return_assistant_tokens_mask=self.is_marked,
                add_generation_prompt=answer_next,
                **self.special_tokens,
            )
        except (TemplateError, TypeError, ValueError, KeyError, AttributeError, IndexError) as error:
            raise MaskError(f"the chat template refuses it: {first_line(error)}") from error
        texts, marks = rendered
        return Rendered(texts[0], tuple(marks[0]) if marks else ())


def _as_written(message: Message, in_parts: bool, arguments_as_text: bool) -> Message:
    """Return a message in the form that the template reads."""
    written = {key: value for key, value in message.items() if value is not None}
    content = written.get("content", "")
    if in_parts and isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not in_parts and isinstance(content, list):
        content = "".join(part["text"] for part in content)
    written["content"] = content
    if calls := written.get("tool_calls"):
        written["tool_calls"] = [_call_as_written(call, arguments_as_text) for call in calls]
    return written


def _call_as_written(call: Message, as_text: bool) -> Message:
    function = dict(call.get("function", call))
    arguments = function.get("arguments", {})
    if as_text and not isinstance(arguments, str):
        function["arguments"] = json.dumps(arguments, ensure_ascii=False)
    if not as_text and isinstance(arguments, str):
        try:
            function["arguments"] = json.loads(arguments or "{}")
        except ValueError as error:
            raise MaskError(f"the arguments of {function.get('name')} are not JSON: {first_line(error)}") from error
    return {"type": "function", **call, "function": function}


def shared_length(text: str, other: str) -> int:
    """Return how many characters two texts have in common at their beginning."""
    if text.startswith(other) or other.startswith(text):
        return min(len(text), len(other))
    return next(place for place, pair in enumerate(zip(text, other, strict=False)) if pair[0] != pair[1])
