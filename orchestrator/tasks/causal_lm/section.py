"""The section of causal-lm tasks: the layouts of their rows, and what of a row is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import model_validator

from orchestrator.common.section import refusal
from orchestrator.tasks.columns import Column
from orchestrator.tasks.conversations import (
    alpaca_column,
    as_json,
    conversation_column,
    openai_messages,
    sharegpt_messages,
    tool_schemas,
)
from orchestrator.tasks.file_headers import Key
from orchestrator.tasks.generation import GeneratingSection
from orchestrator.tasks.key_groups import named_group
from orchestrator.tasks.metric_field import MetricNames, MetricsOf
from orchestrator.tasks.templates import Template, render, render_alternatives, template_columns
from orchestrator.tasks.text_metrics import (
    BITS_PER_BYTE,
    BLEU,
    CHRF,
    EXACT_MATCH,
    JSON_FIELDS,
    PERPLEXITY,
    ROUGE_L,
    TOKEN_F1,
    VALID_JSON,
)

METRICS = (
    BITS_PER_BYTE,
    PERPLEXITY,
    EXACT_MATCH,
    TOKEN_F1,
    ROUGE_L,
    BLEU,
    CHRF,
    VALID_JSON,
    JSON_FIELDS,
)


LAYOUTS: dict[str, tuple[str, ...]] = {
    "messages": ("messages",),
    "conversations": ("conversations",),
    "instruction": ("instruction", "output"),
    "prompt": ("prompt", "completion"),
    "text": ("text",),
}
"""The keys that name the columns of each layout of rows; a layout is called like the first."""
CHAT = ("messages", "conversations", "instruction")
"""Layouts that are rendered by the tokenizer's chat template."""
TrainedPart = Literal["assistant", "last", "completion", "all"]
TRAINED: dict[str, tuple[TrainedPart, ...]] = {
    **dict.fromkeys(CHAT, ("assistant", "last", "all")),
    "prompt": ("completion", "all"),
    "text": ("all",),
}
"""What of a row can be trained, the default first."""


class CausalLMTask(GeneratingSection):
    """Conversations, prompts with completions, or texts; the loss counts what the model is to write."""

    answer_column = "completion"

    type: Literal["causal-lm"]
    """Texts to write: conversations, prompts with completions, or plain texts."""
    messages: str | None = None
    """Column of conversations in OpenAI's layout: ``[{"role": "user", "content": "..."}, ...]``, with tool calls."""
    conversations: str | None = None
    """Column of conversations in ShareGPT's layout: ``[{"from": "human", "value": "..."}, ...]``."""
    tools: str = "tools"
    """Column of the tools of a conversation, as JSON schemas; the files need not have it."""
    instruction: str | None = None
    """Column of the instructions, in Alpaca's layout."""
    input: str | None = None
    """Column of what the instruction is about, in Alpaca's layout; its values may be empty."""
    output: str | None = None
    """Column of the answers, in Alpaca's layout."""
    prompt: Template | None = None
    """Column of the prompts, or a template with columns in braces: ``Review: {text} Rating:``."""
    completion: Template | None = None
    """Column of the completions, or a template with columns in braces. A row may have a list of them: the first is
    trained, and metrics of generated text compare with all."""
    text: str | None = None
    """Column of plain texts, all of whose tokens are trained."""
    train_on: TrainedPart | None = None
    """Which tokens the loss counts: ``assistant`` (all of the assistant's turns; the default of conversations),
    ``last`` (its last turn), ``completion`` (the default of prompts with completions) or ``all``."""
    metric: Annotated[MetricNames, MetricsOf(METRICS)] = METRICS[0].name
    """What the search optimizes: a name, or a list whose first is optimized and whose others are recorded beside it.
    A task with ``prompt`` and ``completion`` that names none is scored by ``perplexity``."""

    @model_validator(mode="before")
    @classmethod
    def _keep_default_of_0_1(cls, values: Any) -> Any:
        """Score by perplexity where nothing is said, so that such a sweep stays comparable with its earlier runs."""
        if isinstance(values, dict) and {"prompt", "completion"} <= values.keys():
            return {"metric": PERPLEXITY.name, **values}
        return values

    @model_validator(mode="after")
    def _has_one_layout(self) -> CausalLMTask:
        layout = named_group(self, tuple(LAYOUTS.values()))[0]
        if self.input and layout != "instruction":
            raise refusal([(("input",), "belongs to instruction and output")])
        if self.train_on and self.train_on not in TRAINED[layout]:
            raise refusal([(("train_on",), f"must be {' or '.join(TRAINED[layout])} where rows have {layout}")])
        return self

    @classmethod
    def in_memory(cls) -> Self:
        """Return the section of a task of prompts and completions in memory."""
        columns = {"prompt": "prompt", "completion": "completion"}
        return cls.model_validate({"type": cls.type_name(), "data": "memory.jsonl", **columns})

    @property
    def layout(self) -> str:
        """The layout of the rows: a key of :data:`LAYOUTS`."""
        return next((layout for layout, keys in LAYOUTS.items() if getattr(self, keys[0])), "prompt")

    @property
    def trained(self) -> TrainedPart:
        """What of a row is trained."""
        return self.train_on or TRAINED[self.layout][0]

    @property
    def input_columns(self) -> dict[str, str]:
        """Return ``messages`` and ``tools`` of conversations; ``prompt`` of others, as the template makes it."""
        return {"messages": "messages", "tools": "tools"} if self.layout in CHAT else {"prompt": "prompt"}

    def content_columns(self) -> dict[Key, list[str]]:
        """Return the columns that the keys of the layout name."""
        keys = [*LAYOUTS[self.layout], *(["input"] if self.input else [])]
        if self.layout in ("messages", "conversations"):
            keys.append("tools")
        return {(key,): template_columns(name) for key in keys if (name := getattr(self, key))}

    def optional_columns(self) -> tuple[str, ...]:
        """Return the columns of tools and of Alpaca's inputs."""
        if self.layout in ("messages", "conversations"):
            return (self.tools,)
        return (self.input,) if self.input else ()

    def contents(self, columns: Mapping[str, Column]) -> dict[str, pa.Array]:
        """Return ``prompt`` and ``completion``, and ``references`` where rows have lists of completions.

        Conversations are the prompt, as JSON, with ``tools`` (JSON) and ``train_on`` beside it, until they are
        rendered. ``train_on`` is beside other rows where all of their tokens are trained.
        """
        if self.messages:
            return self._chat(conversation_column(columns[self.messages], openai_messages), columns)
        if self.conversations:
            return self._chat(conversation_column(columns[self.conversations], sharegpt_messages), columns)
        if self.instruction:
            assert self.output
            return self._chat(alpaca_column(columns, self.instruction, self.input, self.output), columns)
        if self.text:
            texts = columns[self.text].texts
            return {"prompt": pa.array([""] * len(texts)), "completion": texts}
        assert self.prompt
        assert self.completion
        completions, references = render_alternatives(self.completion, columns)
        contents = {"prompt": render(self.prompt, columns), "completion": completions}
        if references is not None:
            contents["references"] = references
        if self.trained == "all":
            contents["train_on"] = pa.array(["all"] * len(contents["prompt"]))
        return contents

    def _chat(self, conversations: pa.Array, columns: Mapping[str, Column]) -> dict[str, pa.Array]:
        rows = len(conversations)
        tools = pa.array([""] * rows)
        if self.tools in columns:
            tools = pa.array(columns[self.tools].map(lambda value: as_json(tool_schemas(value))), pa.string())
        contents = {"prompt": conversations, "completion": pa.array([""] * rows), "tools": pc.fill_null(tools, "")}
        return {**contents, "train_on": pa.array([self.trained] * rows)}
