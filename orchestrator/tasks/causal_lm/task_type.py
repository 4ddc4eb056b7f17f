"""Conversations, prompts with completions, texts: cross-entropy of what is to be written, and metrics of what is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.tasks.batches import Batches
from orchestrator.tasks.causal_lm.section import METRICS, CausalLMTask
from orchestrator.tasks.causal_lm.tokenizing import prompt_ids, reference_ids, tokenized_conversations, tokenized_texts
from orchestrator.tasks.conversations import messages_problem, tools_problem
from orchestrator.tasks.inputs import InputColumn
from orchestrator.tasks.rendering import render_conversations, render_prompts, rendered_roles, turn_ends
from orchestrator.tasks.token_losses import next_token_losses
from orchestrator.tasks.tokens import IGNORED_LABEL, integers, lengths, pad, ragged, sequences
from orchestrator.tasks.trivial import TrivialPredictor, has_texts, most_frequent_text, written
from orchestrator.tasks.written_text import TextWriter

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase


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
            return tokenized_conversations(rows, tokenizer, max_length, are_generated=self.generates)
        return tokenized_texts(rows, tokenizer, max_length)

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

    def _generated(self, model: nn.Module, rows: pa.Table, indices: NDArray[np.int64], pad_id: int) -> list[str]:
        """Generate what follows the prompts of rows; an answer in a conversation ends with the assistant's turn."""
        is_chat = "prompt_ids" in rows.column_names and self.tokenizer is not None
        ends = turn_ends(self.tokenizer) if is_chat else []  # type: ignore[arg-type]
        return self.generate(model, prompt_ids(rows, indices), pad_id, ends)

    def _reference_ids(self, rows: pa.Table, indices: NDArray[np.int64]) -> list[list[int]]:
        return reference_ids(rows, indices)
