"""Conversations, prompts with completions, texts: cross-entropy of what is to be written, and metrics of what is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import model_validator

from orchestrator.common.section import refusal
from orchestrator.tasks._base import Batches
from orchestrator.tasks.columns import Column
from orchestrator.tasks.conversations import (
    alpaca_column,
    as_json,
    conversation_column,
    messages_problem,
    openai_messages,
    sharegpt_messages,
    tool_schemas,
    tools_problem,
)
from orchestrator.tasks.file_headers import Key
from orchestrator.tasks.generation import GeneratingSection
from orchestrator.tasks.inputs import ColumnKind, InputColumn
from orchestrator.tasks.metric_field import MetricNames, MetricsOf
from orchestrator.tasks.rendering import (
    render_conversations,
    render_prompts,
    rendered_roles,
    tokenize_rendered,
    turn_ends,
)
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
from orchestrator.tasks.token_losses import next_token_losses
from orchestrator.tasks.token_spans import last_stretch
from orchestrator.tasks.tokens import (
    IGNORED_LABEL,
    in_table_order,
    integers,
    lengths,
    pad,
    ragged,
    sequences,
    token_column,
)
from orchestrator.tasks.trivial import TrivialPredictor, has_texts, most_frequent_text, written
from orchestrator.tasks.written_text import TextWriter, references_of

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase


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
"""The keys that name the columns of each layout of rows."""
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
        named = {layout: [key for key in keys if getattr(self, key)] for layout, keys in LAYOUTS.items()}
        layouts = [layout for layout, keys in named.items() if keys]
        if len(layouts) != 1:
            choices = "; ".join(" and ".join(keys) for keys in LAYOUTS.values())
            raise ValueError(f"name the columns of one layout: {choices}")
        if missing := [key for key in LAYOUTS[layouts[0]] if key not in named[layouts[0]]]:
            raise refusal([((missing[0],), f"is missing; {layouts[0]} needs it")])
        if self.input and layouts[0] != "instruction":
            raise refusal([(("input",), "belongs to instruction and output")])
        if self.train_on and self.train_on not in TRAINED[layouts[0]]:
            raise refusal([(("train_on",), f"must be {' or '.join(TRAINED[layouts[0]])} where rows have {layouts[0]}")])
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


class CausalLM(TextWriter):
    """Any ``AutoModelForCausalLM``.

    Split tables hold ``prompt`` and ``completion``; those of conversations, once rendered, also ``text`` and the
    ``spans`` of characters that are trained. Predictions hold ``nll`` (float64, of all the tokens that are trained),
    ``tokens`` (int32, how many those are), ``bytes`` (int32, of the completion's text), and two columns that are null
    where nothing was generated: ``generated`` and ``reference`` (the greedily generated text and the completion as the
    tokenizer decodes it, without surrounding white space).
    """

    section = CausalLMTask
    metrics = METRICS
    auto_class = "AutoModelForCausalLM"
    peft_task_type = "CAUSAL_LM"
    text_columns = ("prompt", "completion")
    input_columns = MappingProxyType(
        {
            "prompt": InputColumn(example="Once upon a time"),
            "messages": InputColumn(
                kind="json", example=[{"role": "user", "content": "Tell me a story."}], check=messages_problem
            ),
            "tools": InputColumn(kind="json", example=[], required=False, check=tools_problem),
        }
    )

    def trivial_predictors(self, splits: Mapping[str, pa.Table], predictions: pa.Table) -> tuple[TrivialPredictor, ...]:
        """Return the most frequent training completion, and copies of the prompts, where texts are scored."""
        if not has_texts(predictions):
            return ()
        common = most_frequent_text(splits["train"]["completion"].to_pylist())
        texts = {
            "always writing the most frequent training completion": [common.strip()] * predictions.num_rows,
            "copying the prompt": splits["test"]["prompt"].to_pylist(),
        }
        return written(predictions, texts)

    def render(self, rows: pa.Table, tokenizer: PreTrainedTokenizerBase) -> tuple[pa.Table, list[tuple[int, str]]]:
        """Render conversations by the tokenizer's chat template; other rows stay as they are."""
        return render_conversations(rows, tokenizer) if "tools" in rows.column_names else (rows, [])

    def unanswered(self, inputs: pa.Table) -> pa.Table:
        """Return a split table of prompts, or of conversations that :meth:`tokenize` renders."""
        none = pa.array([""] * inputs.num_rows, pa.string())
        columns = {"prompt": none, "completion": none, **{name: inputs[name] for name in inputs.column_names}}
        return pa.table({"row": pa.array(range(inputs.num_rows), pa.int64()), **columns})

    def tokenize(self, rows: pa.Table, tokenizer: PreTrainedTokenizerBase, max_length: int) -> pa.Table:
        """Return the tokens of each row, and which of them are trained.

        A row that is too long loses its beginning; only where the part that is trained last is too long alone does it
        lose its end.

        Returns:
            Columns ``row``, ``input_ids``, ``trained`` (list of bool), ``prompt_length`` (tokens before the last part
            that is trained), ``bytes`` (of the trained text) and ``cut`` (tokens that were left out); and, of
            conversations whose answers are generated, ``prompt_ids``.
        """
        if "text" not in rows.column_names and "messages" in rows.column_names:
            rows = render_prompts(rows, tokenizer)
        if "text" in rows.column_names:
            return self._tokenize_rendered(rows, tokenizer, max_length)
        opening, ids, prompt_lengths, sizes, cut = _opening(tokenizer), [], [], [], []
        for batch in rows.select(["prompt", "completion"]).to_batches(max_chunksize=4096):
            prompts, completions = (_plain_ids(tokenizer, batch[name]) for name in ("prompt", "completion"))
            texts = batch["completion"].to_pylist()
            for prompt, completion, text in zip(prompts, completions, texts, strict=True):
                end = [*completion, tokenizer.eos_token_id][: max_length - len(opening) - 1]
                start = [*opening, *prompt[-(max_length - len(opening) - len(end)) :]]
                ids.append([*start, *end])
                prompt_lengths.append(len(start))
                is_whole = len(end) >= len(completion)
                read = text if is_whole else cast("str", tokenizer.decode(end))
                sizes.append(len(read.encode()))
                cut.append(len(opening) + len(prompt) + len(completion) + 1 - len(ids[-1]))
        trained = [np.arange(len(row)) >= length for row, length in zip(ids, prompt_lengths, strict=True)]
        if "train_on" in rows.column_names:
            trained = [np.ones(len(row), bool) for row in ids]
        return _tokenized(rows, ids, trained, prompt_lengths, sizes, cut)

    def collate(
        self, rows: pa.Table, indices: NDArray[np.int64], pad_id: int, pad_left: bool = False
    ) -> dict[str, Tensor]:
        """Return ``input_ids``, ``attention_mask``, ``labels`` of shape ``(rows, tokens)``; -100 outside completions.

        Padding goes after the tokens, whatever ``pad_left`` is: positions then count from the first token, and soft
        prompts stand next to it, so that a row's likelihood does not depend on its batch. Only generation pads on the
        left, by itself.
        """
        import torch

        batch = pad(sequences(rows, indices), pad_id, left=False)
        # By position and never by the padding token, which is the end-of-sequence token of many tokenizers.
        is_trained = pad(sequences(rows, indices, "trained"), 0, left=False)["input_ids"] == 1
        return {**batch, "labels": batch["input_ids"].where(is_trained, torch.tensor(IGNORED_LABEL))}

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """Return the mean cross-entropy over all completion tokens of the batch."""
        return next_token_losses(model, batch)[0].mean()

    def loss_terms(self, batch: dict[str, Tensor]) -> int:
        """Return how many tokens are predicted; nothing predicts a row's first token."""
        return int((batch["labels"][:, 1:] != IGNORED_LABEL).sum())

    def predictions(
        self, model: nn.Module, rows: pa.Table, batches: Batches, pad_id: int, pad_left: bool = False
    ) -> pa.Table:
        """Return the likelihood of each completion and, if the type generates, the generated text beside it.

        Raises:
            ValueError: If the type generates and has no tokenizer.
        """
        import torch

        nll, tokens = [], []
        with torch.no_grad():
            for indices in batches:
                losses, is_labelled = next_token_losses(model, self.collate(rows, indices, pad_id, pad_left))
                row_of_loss = is_labelled.nonzero()[:, 0].cpu().numpy()
                nll.append(np.bincount(row_of_loss, losses.double().cpu().numpy(), minlength=len(indices)))
                tokens.append(np.bincount(row_of_loss, minlength=len(indices)))
        return self.scored_texts(model, rows, batches, nll, tokens, pad_id)

    def answer_columns(self, labels: Sequence[str]) -> dict[str, ColumnKind]:
        """Return ``completion``."""
        return {"completion": "string"}

    def answer(
        self,
        model: nn.Module,
        rows: pa.Table,
        batches: Batches,
        pad_id: int,
        pad_left: bool,
        labels: Sequence[str],
    ) -> pa.Table:
        """Return a completion of each prompt."""
        _, indices = in_table_order(batches)
        return pa.table({"completion": pa.array(self._generated(model, rows, indices, pad_id), pa.string())})

    def purpose(self, labels: Sequence[str]) -> str:
        """Return that it completes prompts."""
        return "Completes a prompt"

    def target_tokens(self, rows: pa.Table) -> NDArray[np.int64]:
        """Return how many tokens of each row are trained."""
        values, offsets = ragged(rows, "trained")
        targets: NDArray[np.int64] = np.diff(np.concatenate([[0], np.cumsum(values)])[offsets])
        return targets

    def trained_tokens(self, rows: pa.Table) -> list[NDArray[np.bool_]]:
        """Return which tokens of each row the loss counts."""
        return [row == 1 for row in sequences(rows, np.arange(rows.num_rows), "trained")]

    def token_roles(
        self, row: pa.Table, tokens: pa.Table, tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> list[str]:
        """Return the roles of a conversation's messages, or ``prompt`` and ``completion``."""
        if "text" in row.column_names:
            return rendered_roles(row.to_pylist()[0], tokenizer, max_length)
        prompt = int(integers(tokens, "prompt_length")[0])
        return ["prompt"] * prompt + ["completion"] * (int(lengths(tokens)[0]) - prompt)

    def _tokenize_rendered(self, rows: pa.Table, tokenizer: PreTrainedTokenizerBase, max_length: int) -> pa.Table:
        ids, trained, cut = tokenize_rendered(rows, tokenizer, max_length)
        prompt_lengths = [last_stretch(mask) for mask in trained]
        texts = tokenizer.batch_decode(
            [row[mask].tolist() for row, mask in zip(ids, trained, strict=True)], skip_special_tokens=True
        )
        table = _tokenized(rows, ids, trained, prompt_lengths, [len(text.encode()) for text in texts], cut)
        is_asked = not any(mask.any() for mask in trained)
        if not self.generates and not is_asked:
            return table
        # What a client's conversation is rendered to, which need not be how the row's text begins.
        prompts = _plain_ids(tokenizer, rows["prompt"].combine_chunks())
        return table.append_column("prompt_ids", token_column([prompt[-max_length + 1 :] for prompt in prompts]))

    def _generated(self, model: nn.Module, rows: pa.Table, indices: NDArray[np.int64], pad_id: int) -> list[str]:
        """Generate what follows the prompts of rows; an answer in a conversation ends with the assistant's turn."""
        is_chat = "prompt_ids" in rows.column_names and self.tokenizer is not None
        ends = turn_ends(self.tokenizer) if is_chat else []  # type: ignore[arg-type]
        return self.generate(model, _prompts(rows, indices), pad_id, ends)

    def _reference_ids(self, rows: pa.Table, indices: NDArray[np.int64]) -> list[list[int]]:
        prompt_lengths = integers(rows, "prompt_length")[indices]
        parts = zip(sequences(rows, indices), sequences(rows, indices, "trained"), prompt_lengths, strict=True)
        return [sequence[length:][trained[length:] == 1].tolist() for sequence, trained, length in parts]


def _tokenized(
    rows: pa.Table,
    ids: Sequence[Sequence[int] | NDArray[np.int32]],
    trained: Sequence[NDArray[np.bool_]],
    prompt_lengths: list[int],
    sizes: list[int],
    cut: list[int],
) -> pa.Table:
    numbers = {"prompt_length": prompt_lengths, "bytes": sizes, "cut": cut}
    columns = {name: pa.array(values, pa.int32()) for name, values in numbers.items()}
    tokens = {"input_ids": token_column(ids), "trained": token_column(trained, np.uint8)}
    return pa.table({"row": rows["row"], **tokens, **columns, **references_of(rows)})


def _prompts(rows: pa.Table, indices: NDArray[np.int64]) -> list[NDArray[np.int32]]:
    if "prompt_ids" in rows.column_names:
        return sequences(rows, indices, "prompt_ids")
    prompt_lengths = integers(rows, "prompt_length")[indices]
    return [sequence[:length] for sequence, length in zip(sequences(rows, indices), prompt_lengths, strict=True)]


def _plain_ids(tokenizer: PreTrainedTokenizerBase, texts: pa.Array) -> list[list[int]]:
    settings = {"add_special_tokens": False, "return_attention_mask": False, "verbose": False}
    ids: list[list[int]] = tokenizer(texts.to_pylist(), **settings)["input_ids"]
    return ids


def _opening(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the beginning-of-sequence token, if the tokenizer puts it before a text itself."""
    special: list[int] = tokenizer("")["input_ids"]
    return [token for token in special if token == tokenizer.bos_token_id][:1]
