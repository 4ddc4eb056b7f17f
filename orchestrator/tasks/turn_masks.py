"""Which characters of a conversation are the assistant's, whatever the chat template.

A conversation is rendered message by message. Where every rendering begins the next one, the assistant's turns are the
differences. Where not (templates that drop earlier reasoning, or write another end after the last turn), each turn is
rendered as the last one of a sample of its own. What is exact in neither way is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from orchestrator.tasks.chat_template import (
    REASONING_PREFILL,
    ChatTemplate,
    MaskError,
    Message,
    Rendered,
    Span,
    shared_length,
)

TrainOn = Literal["assistant", "last", "all"]


@dataclass(frozen=True)
class Sample:
    """A text to train on.

    Args:
        text: What the model reads.
        trained: The characters that it learns to write, in order.
        prompt: What is before the last of the assistant's turns where it is to be generated.
        answer: The rest of that turn.
        messages: How many of the conversation's messages it holds.
        answered: How many messages are before that turn.
    """

    text: str
    trained: tuple[Span, ...]
    prompt: str
    answer: str
    messages: int
    answered: int


def samples(
    template: ChatTemplate, messages: Sequence[Message], tools: Sequence[Any] = (), train_on: TrainOn = "assistant"
) -> list[Sample]:
    """Return the samples of a conversation: one, or one for each of the assistant's turns.

    Raises:
        MaskError: If nothing would be trained, or what is the assistant's cannot be said exactly.
    """
    turns = [place for place, message in enumerate(messages) if message["role"] == "assistant"]
    if not turns:
        raise MaskError("no message is the assistant's, so that nothing would be trained")
    if turns[0] == 0:
        raise MaskError("the assistant speaks first; begin with a message of the user")
    conversation = _Conversation(template, messages, tools)
    if train_on == "all":
        whole = conversation.until(len(messages)).text
        return [Sample(whole, ((0, len(whole)),), *conversation.prompt_and_answer(turns[-1]), len(messages), turns[-1])]
    turns = turns[-1:] if train_on == "last" else turns
    if together := conversation.together(turns):
        return [together]
    return [conversation.alone(turn) for turn in turns]


class _Conversation:
    """A conversation with its renderings, each made once."""

    def __init__(self, template: ChatTemplate, messages: Sequence[Message], tools: Sequence[Any]) -> None:
        self.template, self.messages, self.tools = template, messages, tools
        self._until: dict[int, Rendered] = {}
        self._before: dict[int, str] = {}

    def until(self, stop: int) -> Rendered:
        """Render the first messages."""
        if stop not in self._until:
            self._until[stop] = self.template.render(self.messages[:stop], self.tools)
        return self._until[stop]

    def before(self, turn: int) -> str:
        """Return what precedes a turn of the assistant where it is generated."""
        if turn not in self._before:
            self._before[turn] = self.template.render(self.messages[:turn], self.tools, answer_next=True).text
        return self._before[turn]

    def opening(self, turn: int) -> str:
        """Return what precedes the first of a turn's characters that are the assistant's."""
        return REASONING_PREFILL.sub("", self.before(turn))

    def together(self, turns: Sequence[int]) -> Sample | None:
        """Return the conversation as one sample; ``None`` where a rendering does not begin the next one."""
        whole = self.until(len(self.messages))
        regions: list[Span] = []
        for turn in turns:
            opening, until = self.opening(turn), self.until(turn + 1).text
            if not whole.text.startswith(opening) or not whole.text.startswith(until):
                return None
            regions.append((len(opening), len(until)))
        if any(later[0] < earlier[1] for earlier, later in pairwise(regions)):
            return None
        return self._sample(whole, turns, regions, len(self.messages))

    def alone(self, turn: int) -> Sample:
        """Return a sample that ends with a turn and trains it alone.

        Raises:
            MaskError: If the turn does not begin as the template says that it would.
        """
        rendered, opening = self.until(turn + 1), self.opening(turn)
        if not rendered.text.startswith(opening):
            raise MaskError(
                f"message {turn + 1} cannot be told from those before it: the chat template renders them differently "
                "once it is there"
            )
        return self._sample(rendered, [turn], [(len(opening), len(rendered.text))], turn + 1)

    def prompt_and_answer(self, turn: int) -> tuple[str, str]:
        """Return what precedes a turn where it is generated, and what it is then expected to be."""
        prompt, text = self.before(turn), self.until(turn + 1).text
        return prompt, text[shared_length(prompt, text) :]

    def _sample(self, rendered: Rendered, turns: Sequence[int], regions: Sequence[Span], messages: int) -> Sample:
        for turn, (start, end) in zip(turns, regions, strict=True):
            self._require_rendered(self.messages[turn], rendered.text[start:end], turn)
        spans = list(regions)
        if self.template.is_marked:
            spans = [span for pair in zip(turns, regions, strict=True) for span in self._marked(rendered, *pair)]
        return Sample(rendered.text, tuple(spans), *self.prompt_and_answer(turns[-1]), messages, turns[-1])

    def _marked(self, rendered: Rendered, turn: int, region: Span) -> Iterator[Span]:
        """Yield the marked characters of a turn, after a check by the turn's own ones.

        Raises:
            MaskError: If the marks leave out the turn, its end, or go beyond it.
        """
        # The header may be marked or not; what is before it is not the assistant's.
        first = shared_length(self.until(turn).text, rendered.text)
        marks = [mark for mark in rendered.marks if mark[0] < region[1] and mark[1] > first]
        if not marks:
            raise MaskError(f"the chat template's generation marks leave out message {turn + 1}")
        if marks[0][0] < first or marks[-1][1] > region[1]:
            raise MaskError(f"the chat template marks more than message {turn + 1} as generated")
        if rendered.text[marks[-1][1] : region[1]].strip():
            raise MaskError(f"the chat template's generation marks leave out the end of message {turn + 1}")
        yield from marks

    def _require_rendered(self, message: Message, turn_text: str, turn: int) -> None:
        """Check that a turn holds what its message says.

        Raises:
            MaskError: If the template leaves something out, or nothing would be trained.
        """
        if not turn_text.strip():
            raise MaskError(f"the chat template renders nothing of message {turn + 1}")
        if (header := self.template.header) and turn_text.startswith(header):
            raise MaskError(f"the chat template opens message {turn + 1} by {header!r}, which its prompt for it lacks")
        content = message.get("content") or ""
        texts = [content] if isinstance(content, str) else [part["text"] for part in content]
        for text in texts:
            if text.rpartition("</think>")[2].strip() not in turn_text:
                raise MaskError(f"the chat template leaves out the content of message {turn + 1}")
        for call in message.get("tool_calls") or ():
            if str(call.get("function", call).get("name")) not in turn_text:
                raise MaskError(f"the chat template leaves out a tool call of message {turn + 1}")
