"""One of several texts per prompt: the one that a language model finds most likely; accuracy and macro F1."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.common.metric import Metric
from orchestrator.tasks._base import TaskType
from orchestrator.tasks.batches import Batches
from orchestrator.tasks.choice.loss import choice_loss, competing_tokens
from orchestrator.tasks.choice.predictions import answer_column, softmax, with_choices, with_places, with_probabilities
from orchestrator.tasks.choice.rows import choices_problem, render_messages, tokenized
from orchestrator.tasks.choice.scores import calibrated, log_likelihoods
from orchestrator.tasks.choice.section import METRICS, ChoiceTask
from orchestrator.tasks.class_report import ClassReport, RowErrors, one_label_report
from orchestrator.tasks.classes import majority_share, with_probabilities_by_name
from orchestrator.tasks.columns import Column
from orchestrator.tasks.contract.scoring import Evaluation
from orchestrator.tasks.conversations import messages_problem
from orchestrator.tasks.inputs import ColumnKind, InputColumn
from orchestrator.tasks.section import TaskSection
from orchestrator.tasks.templates import render, template_columns
from orchestrator.tasks.tokens import IGNORED_LABEL, in_table_order, integers, lengths, pad, sequences, token_column
from orchestrator.tasks.trivial import AT_RANDOM, TrivialPredictor, drawn, most_frequent, repeated

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase


CONTENT_FREE_TEXT = "N/A"
"""What stands in every column of a prompt without content (Zhao et al., 2021, arXiv:2102.09690)."""


class Choice(TaskType):
    """Any ``AutoModelForCausalLM``, which says how likely each choice is after the prompt.

    Split tables hold ``prompt`` (and the ``messages`` that it was rendered from), ``choices`` (list<string>), and the
    index of the right choice: ``label`` (int32) where all rows have the task's choices, which are its labels, and
    ``answer`` where rows have choices of their own.
    Tokenized tables hold the prompt with the right choice in ``input_ids``, ``prompt_length``, and the tokens of all
    choices. Predictions hold ``label`` (the right choice), ``predicted``, and per choice ``log_likelihoods`` (in nats,
    the sum over its tokens) and ``probabilities`` (their softmax); and ``choices``, where rows have their own.
    """

    section = ChoiceTask
    metrics = METRICS
    auto_class = "AutoModelForCausalLM"
    peft_task_type = "CAUSAL_LM"
    text_columns = ("prompt", "messages", "choices")
    input_columns = MappingProxyType(
        {
            "prompt": InputColumn(example="Tweet: Thank you for the quick help!\nSentiment:"),
            "messages": InputColumn(
                kind="json", example=[{"role": "user", "content": "Thank you!"}], check=messages_problem
            ),
            "choices": InputColumn(kind="strings", example=["negative", "positive"], check=choices_problem),
        }
    )

    def blank_prompt(self, config: TaskSection, tokenizer: PreTrainedTokenizerBase, max_length: int) -> tuple[int, ...]:
        """Return the tokens of the prompt without content, or none where rows are conversations."""
        assert isinstance(config, ChoiceTask)
        if config.prompt is None:
            return ()
        names = template_columns(config.prompt)
        columns = {name: Column.of(name, [CONTENT_FREE_TEXT]) for name in names}
        choices = {} if self.labels else {"choices": pa.array([["a", "b"]])}
        blank = self.unanswered(pa.table({"prompt": render(config.prompt, columns), **choices}))
        rows = self.tokenize(blank, tokenizer, max_length)
        return tuple(rows["input_ids"][0].as_py()[: rows["prompt_length"][0].as_py()])

    @property
    def computed(self) -> tuple[Metric, ...]:
        """The metrics that ``evaluate`` computes: ``macro_f1`` needs the same choices for all rows."""
        return tuple(metric for metric in super().computed if self.labels or metric.name != "macro_f1")

    def baseline(self, splits: Mapping[str, pa.Table]) -> float | None:
        """Return the accuracy of always answering the most frequent training answer."""
        return majority_share(splits) if "label" in splits["train"].column_names else None

    def trivial_predictors(self, splits: Mapping[str, pa.Table], predictions: pa.Table) -> tuple[TrivialPredictor, ...]:
        """Return the most frequent training choice for every row, and for macro-F1 choices in their proportions.

        Where rows have choices of their own: the place among them that is right most often.
        """
        train, rows = splits["train"], predictions.num_rows
        codes = integers(train, answer_column(train)).astype(np.int64)
        common = most_frequent(codes)
        if not self.labels:
            placed = partial(with_places, predictions)
            return (repeated(f"always answering choice {common + 1} of a row", placed, common, rows),)
        answered = partial(with_choices, predictions, len(self.labels))
        always = repeated(f"always answering {self.labels[common]}", answered, common, rows)
        if self.optimized.name != "macro_f1":
            return (always,)
        return always, drawn(AT_RANDOM.replace("labels", "choices"), answered, codes, rows)

    def constant_answer(self, predictions: pa.Table) -> str:
        """Return the choice that all rows get, or its place where rows have choices of their own."""
        numbers = integers(predictions, "predicted")
        if len(numbers) < 2 or (numbers != numbers[0]).any():
            return ""
        return self.labels[numbers[0]] if self.labels else f"choice {numbers[0] + 1}"

    def render(self, rows: pa.Table, tokenizer: PreTrainedTokenizerBase) -> tuple[pa.Table, list[tuple[int, str]]]:
        """Render conversations up to the assistant's answer, by the tokenizer's chat template."""
        return render_messages(rows, tokenizer) if "messages" in rows.column_names else (rows, [])

    def tokenize(self, rows: pa.Table, tokenizer: PreTrainedTokenizerBase, max_length: int) -> pa.Table:
        """Return the columns of the class's docstring; a row that is too long loses the beginning of its prompt.

        Raises:
            InputError: If a choice alone is too long.
        """
        return tokenized(rows, tokenizer, max_length)

    def collate(
        self, rows: pa.Table, indices: NDArray[np.int64], pad_id: int, pad_left: bool = False
    ) -> dict[str, Tensor]:
        """Return ``input_ids``, ``attention_mask``, ``labels`` of shape ``(rows, tokens)``; -100 but at right choices.

        What competes with the right choice stands in ``places`` and ``options``. Padding goes after the tokens, as a
        language model's likelihoods need it.
        """
        import torch

        batch = pad(sequences(rows, indices), pad_id, left=False)
        position = batch["attention_mask"].cumsum(dim=1)
        prompt_lengths = torch.tensor(integers(rows, "prompt_length")[indices])
        is_choice = (position > prompt_lengths[:, None]) & (batch["attention_mask"] == 1)
        labels = batch["input_ids"].where(is_choice, torch.tensor(IGNORED_LABEL))
        return {**batch, "labels": labels, **competing_tokens(rows, indices, answer_column(rows))}

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """Return the mean cross-entropy over the rows' choices, token by token; see :mod:`.choice.loss`."""
        return choice_loss(model, batch)

    def loss_terms(self, batch: dict[str, Tensor]) -> int:
        """Return the number of rows."""
        return len(batch["input_ids"])

    def predictions(
        self, model: nn.Module, rows: pa.Table, batches: Batches, pad_id: int, pad_left: bool = False
    ) -> pa.Table:
        """Return the likelihood of every choice of each row.

        A model that calibrates has it relative to the likelihood after a prompt without content.
        """
        found = [row for indices in batches for row in log_likelihoods(model, rows, indices, pad_id)]
        found = calibrated(found, model, rows, batches, pad_id)
        order, indices = in_table_order(batches)
        table = self._answered(rows).take(pa.array(indices))
        table = with_probabilities(table, [softmax(found[index]) for index in order], bool(self.labels))
        return table.append_column("log_likelihoods", token_column([found[index] for index in order], np.float64))

    def compared(self, predictions: pa.Table) -> tuple[list[Any], list[Any]]:
        """Return the most likely and the right choice of each row, as texts."""
        own = None if self.labels else predictions["choices"].to_pylist()
        listed = own or [self.labels] * predictions.num_rows
        chosen, right = (
            [choices[index] for choices, index in zip(listed, integers(predictions, name), strict=True)]
            for name in ("predicted", "label")
        )
        return chosen, right

    def class_report(self, predictions: pa.Table) -> ClassReport | None:
        """Return the counts of each choice, where all rows have the same."""
        if not self.labels:
            return None
        true, predicted = (integers(predictions, name).astype(np.int64) for name in ("label", "predicted"))
        return one_label_report(true, predicted, self.labels)

    def row_errors(self, predictions: pa.Table) -> RowErrors:
        """Return 1 minus the probability of each row's right choice."""
        pairs = zip(predictions["probabilities"].to_pylist(), integers(predictions, "label"), strict=True)
        return RowErrors("1 - probability of the right choice", 1 - np.array([row[right] for row, right in pairs]))

    def right_predictions(self, rows: pa.Table) -> pa.Table:
        """Return the right choices as predictions."""
        table = self._answered(rows)
        return table.append_column("predicted", table["label"])

    def unanswered(self, inputs: pa.Table) -> pa.Table:
        """Return prompts or conversations whose right choice is unknown, with the task's choices or their own."""
        zeros = pa.array(np.zeros(inputs.num_rows, np.int32))
        prompt = "messages" if "messages" in inputs.column_names else "prompt"
        columns = {"row": pa.array(range(inputs.num_rows), pa.int64()), prompt: inputs[prompt]}
        if "choices" in inputs.column_names:
            return pa.table({**columns, "choices": inputs["choices"], "answer": zeros})
        choices = pa.array([list(self.labels)] * inputs.num_rows, pa.list_(pa.string()))
        return pa.table({**columns, "choices": choices, "label": zeros})

    def answer_columns(self, labels: Sequence[str]) -> dict[str, ColumnKind]:
        """Return ``choice``, and ``probability_CHOICE`` for each choice, or ``probabilities`` if choices vary."""
        if not labels:
            return {"choice": "string", "probabilities": "doubles"}
        probabilities: dict[str, ColumnKind] = {f"probability_{label}": "double" for label in labels}
        return {"choice": "string", **probabilities}

    def answer(
        self,
        model: nn.Module,
        rows: pa.Table,
        batches: Batches,
        pad_id: int,
        pad_left: bool,
        labels: Sequence[str],
    ) -> pa.Table:
        """Return the most likely choice after each prompt, and the probabilities of all choices."""
        predictions = self.predictions(model, rows, batches, pad_id, pad_left)
        predicted, probabilities = integers(predictions, "predicted"), predictions["probabilities"]
        if labels:
            chosen = [labels[index] for index in predicted]
            values = np.array(probabilities.to_pylist()).reshape(-1, len(labels)).T
            return pa.table([pa.array(chosen), *map(pa.array, values)], names=[*self.answer_columns(labels)])
        listed = rows["choices"].to_pylist()
        chosen = [choices[index] for choices, index in zip(listed, predicted, strict=True)]
        return pa.table({"choice": pa.array(chosen), "probabilities": probabilities.cast(pa.list_(pa.float64()))})

    def answer_object(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Return ``choice``, and ``probabilities`` by choice, or in the order of a row's own choices."""
        return answer if "probabilities" in answer else with_probabilities_by_name(answer)

    def reproducible(self, predictions: pa.Table) -> NDArray[np.float64]:
        """Return the probability of every choice, shape ``(choices, 1)``."""
        values: NDArray[np.float64] = predictions["probabilities"].combine_chunks().flatten().to_numpy()
        return values[:, None]

    def answered(self, predictions: pa.Table) -> list[Any]:
        """Return the number of the choice of each row."""
        answers: list[Any] = predictions["predicted"].to_pylist()
        return answers

    def predict_again(
        self, recorded: pa.Table, answer: Callable[[pa.Table], pa.Table], evaluate: Callable[[pa.Table], Evaluation]
    ) -> pa.Table:
        """Return predictions with the probabilities that a client gets, where all rows have the same choices."""
        if not self.labels:
            return evaluate(recorded).predictions
        _, *columns = answer(recorded).columns
        values = np.stack([column.to_numpy() for column in columns], axis=1)
        return with_probabilities(recorded.select(["row", "label"]), [*values], True)

    def purpose(self, labels: Sequence[str]) -> str:
        """Return that it chooses a text, and from which."""
        names = f"one of {len(labels)} texts ({', '.join(labels)})" if labels else "one of the given texts"
        return f"Chooses {names} after a prompt"

    def dummy_labels(self, input_ids: Tensor, attention_mask: Tensor, labels: int) -> Tensor:
        """Return every token that is not padding as a target, of shape ``(rows, tokens)``."""
        return input_ids.masked_fill(attention_mask != 1, IGNORED_LABEL)

    def dummy_batch(
        self, input_ids: Tensor, attention_mask: Tensor, labels: int, targets: int | None = None
    ) -> dict[str, Tensor]:
        """Return a batch as :meth:`collate` makes it, where two choices part before a row's last token."""
        batch = super().dummy_batch(input_ids, attention_mask, labels, targets)
        places = input_ids.new_full((len(input_ids), 1), max(0, input_ids.shape[1] - 2))
        return {**batch, "places": places, "options": input_ids[:, None, -2:]}

    def target_tokens(self, rows: pa.Table) -> NDArray[np.int64]:
        """Return how many tokens each right choice has."""
        return lengths(rows) - integers(rows, "prompt_length")

    def trained_tokens(self, rows: pa.Table) -> list[NDArray[np.bool_]]:
        """Return the tokens of each right choice."""
        pairs = zip(lengths(rows), integers(rows, "prompt_length"), strict=True)
        return [np.arange(length) >= start for length, start in pairs]

    def _answered(self, rows: pa.Table) -> pa.Table:
        """Return row number and ``label``, the right choice; and the ``choices`` where rows have their own."""
        columns = {"row": rows["row"], "label": rows[answer_column(rows)]}
        return pa.table(columns if self.labels else {**columns, "choices": rows["choices"]})
