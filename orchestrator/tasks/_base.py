"""The interface of a task type: everything that depends on a task's type is a member of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.tasks.generation import GENERATION_TOKENS, Sampling, generate
from orchestrator.tasks.inputs import ColumnKind, InputColumn, InputSchema
from orchestrator.tasks.section import MAX_NEW_TOKENS, TaskSection
from orchestrator.tasks.text_metrics import texts as text_pairs
from orchestrator.tasks.tokens import IGNORED_LABEL, lengths, model_inputs
from orchestrator.tasks.trivial import TrivialPredictor
from orchestrator.tasks.user_metric import module_of, user_metric

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

    from methods.base.spec import PeftTaskType
    from orchestrator.common.metric import Metric
    from orchestrator.tasks.class_report import ClassReport, RowErrors

Batches = Sequence[NDArray[np.int64]]
"""Row indices of each batch."""


@dataclass(frozen=True)
class Evaluation:
    """What a model makes of a split.

    Args:
        metrics: Score by metric.
        predictions: One line per row in the split's order, with the row's number in ``row`` and the columns that the
            metrics are computed from.
    """

    metrics: dict[str, float]
    predictions: pa.Table


@dataclass(frozen=True)
class TaskType(ABC):
    """One type of task: how its rows are tokenized, trained on, scored and answered.

    A type is one file: its section of the configuration, its metrics, and a subclass of this class, listed in
    ``orchestrator/tasks/registry.py``.

    Split tables hold ``row`` (int64) and the columns of :meth:`TaskSection.contents`. Tokenized tables hold ``row``,
    ``input_ids`` (list of int32) and integers of the type's own; they travel between processes without being copied.

    Args:
        chosen: Names of the metrics that the task is scored by, the optimized one first; none before it is configured.
        generates: Whether ``evaluate`` generates text, for the metrics that need it.
        max_new_tokens: Most tokens to generate for a row.
        sampling: How to draw tokens; ``None`` for the most probable ones.
        generation_tokens: Most tokens of a batch that is generated.
        tokenizer: Decodes what is generated; ``None`` where nothing is.
        labels: Names of the task's labels in the order of their integers; none for a type without labels.
        constants: Numbers of the task, from :meth:`TaskSection.constants`; none before they are known.
    """

    chosen: tuple[str, ...] = ()
    generates: bool = False
    max_new_tokens: int = MAX_NEW_TOKENS
    sampling: Sampling | None = None
    generation_tokens: int = GENERATION_TOKENS
    tokenizer: PreTrainedTokenizerBase | None = None
    labels: tuple[str, ...] = ()
    constants: Mapping[str, float] = field(default_factory=dict, hash=False)

    section: ClassVar[type[TaskSection]]
    """Its section of the configuration."""
    metrics: ClassVar[tuple[Metric, ...]]
    """What it can be scored by, the default first."""
    auto_class: ClassVar[str]
    """The transformers class that loads its models."""
    peft_task_type: ClassVar[PeftTaskType]
    """The kind of model that methods attach to."""
    text_columns: ClassVar[tuple[str, ...]]
    """A split table's columns of texts, the model's input first. Rows with the same texts are duplicates."""
    input_columns: ClassVar[Mapping[str, InputColumn]]
    """What trained models can read, by the split table's columns, the main input first. A model reads those that its
    section's ``input_columns`` names."""
    pads_left: ClassVar[bool] = False
    """Whether decoders read a row at its last token, so that padding goes before the tokens."""
    merged_note: ClassVar[str] = ""
    """What the README of a merged checkpoint says beside how transformers loads it."""
    reproducible_name: ClassVar[str] = "probability"
    """What one number of :meth:`reproducible` is, with its unit."""
    is_divisible: ClassVar[bool] = True
    """Whether a row's loss and score are its own, so that batches and splits can be computed in parts."""
    example_labels: ClassVar[int] = 0
    """How many labels a task has where methods are tried without data; 0 for a type without labels."""
    baseline_metric: ClassVar[str] = "accuracy"
    """The metric of :meth:`baseline`."""
    baseline_name: ClassVar[str] = "majority class"
    """What the baseline answers for every row, as messages name it."""

    @property
    def name(self) -> str:
        """Return the type's name: ``type`` in the configuration, in journals and in bundles."""
        return self.section.type_name()

    @property
    def class_names(self) -> tuple[str, ...]:
        """The labels of which each row has exactly one, for methods that choose among them by their names."""
        return self.labels

    @property
    def predicts_next_token(self) -> bool:
        """Whether its models are causal language models."""
        return self.peft_task_type == "CAUSAL_LM"

    @property
    def scores_tokens(self) -> bool:
        """Whether its models give logits for each token, and not for a row as a whole."""
        return self.peft_task_type != "SEQ_CLS"

    def head_size(self, labels: int) -> int:
        """Return how many outputs the head has that every trial trains; 0 for a language model, which has its own.

        Args:
            labels: Number of the task's labels.
        """
        return 0 if self.predicts_next_token else labels

    def metric(self, name: str) -> Metric:
        """Return the metric of that name.

        Raises:
            ValueError: If the type has none.
        """
        for metric in self.metrics:
            if metric.name == name:
                return metric
        if module_of(name):
            return user_metric(name, self.compared, needs_generation=self.writes_text)
        raise ValueError(f"unknown metric {name!r}; known: {', '.join(metric.name for metric in self.metrics)}")

    @property
    def writes_text(self) -> bool:
        """Whether a metric of the user's own compares generated texts."""
        return any(metric.needs_generation for metric in self.metrics)

    def compared(self, predictions: pa.Table) -> tuple[list[Any], list[Any]]:
        """Return what a metric of the user's own compares: a prediction and a reference for each row.

        A type that generates compares texts; where rows have several references, a row's reference is their list.

        Raises:
            ValueError: If the type gives such metrics nothing to compare, or no text was generated.
        """
        if not self.writes_text:
            raise ValueError(f"{self.name} tasks have no metrics of a file; choose one of theirs")
        several = "references" in predictions.column_names
        pairs = list(text_pairs(predictions, "of a file"))
        return [text for text, _ in pairs], [row if several else row[0] for _, row in pairs]

    def right_predictions(self, rows: pa.Table) -> pa.Table:
        """Return predictions of a split's rows that are all right, as far as :meth:`compared` reads them.

        A metric is tried on them before anything is trained.
        """
        texts = rows[self.text_columns[-1]]
        return pa.table({"row": rows["row"], "generated": texts, "reference": texts})

    @property
    def optimized(self) -> Metric:
        """The metric that the search optimizes."""
        return self.metric(self.chosen[0] if self.chosen else self.metrics[0].name)

    def configured(
        self,
        metrics: Sequence[str],
        max_new_tokens: int,
        tokenizer: PreTrainedTokenizerBase | None,
        labels: tuple[str, ...] = (),
        sampling: Sampling | None = None,
        constants: Mapping[str, float] | None = None,
    ) -> Self:
        """Return the type, ready to score by metrics, of which the first is optimized.

        ``evaluate`` then generates text if the first metric needs it; that of :meth:`for_test` does if any needs it.
        """
        generates = self.metric(metrics[0]).needs_generation
        return replace(
            self,
            chosen=tuple(metrics),
            generates=generates,
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            tokenizer=tokenizer,
            labels=labels,
            constants=constants or {},
        )

    def for_test(self) -> Self:
        """Return the type as it scores the test split: by all of its chosen metrics, also those that generate text."""
        return replace(self, generates=any(self.metric(name).needs_generation for name in self.chosen))

    @property
    def computed(self) -> tuple[Metric, ...]:
        """The metrics that ``evaluate`` computes: all that need no generation, and the chosen ones if it generates."""
        known = [metric for metric in self.metrics if metric.name in self.chosen or not metric.needs_generation]
        known += [self.metric(name) for name in self.chosen if module_of(name)]
        return tuple(metric for metric in known if self.generates or not metric.needs_generation)

    def generate(
        self, model: nn.Module, prompts: Sequence[NDArray[np.int32]], pad_id: int, ends: Sequence[int] = ()
    ) -> list[str]:
        """Return a text for each prompt; see :func:`orchestrator.tasks.generation.generate`.

        Args:
            model: Backbone with its adapter.
            prompts: Token ids of each prompt.
            pad_id: Id of the padding token.
            ends: Tokens that end a text, beside the tokenizer's end of sequence.

        Raises:
            ValueError: If there is no tokenizer.
        """
        if self.tokenizer is None:
            raise ValueError("a tokenizer is needed to generate")
        return generate(
            model,
            prompts,
            self.tokenizer,
            pad_id,
            max_new_tokens=self.max_new_tokens,
            ends=ends,
            sampling=self.sampling,
            tokens=self.generation_tokens,
        )

    def baseline(self, splits: Mapping[str, pa.Table]) -> float | None:
        """Return the :attr:`baseline_metric` of one answer to all test rows; ``None`` where there is no such answer."""
        return None

    def trivial_predictors(self, splits: Mapping[str, pa.Table], predictions: pa.Table) -> tuple[TrivialPredictor, ...]:
        """Return what answers the test rows without reading them; a method that is not better has learned nothing.

        Args:
            splits: The task's split tables.
            predictions: A model's predictions of the test split, whose answers are replaced.
        """
        return ()

    def constant_answer(self, predictions: pa.Table) -> str:
        """Return what a model answers, if it answers every row alike; empty if it does not."""
        return ""

    def refusal(self, config: PretrainedConfig) -> str:
        """Return why models of an architecture cannot learn such tasks, one line; empty if nothing is in the way."""
        return ""

    def render(self, rows: pa.Table, tokenizer: PreTrainedTokenizerBase) -> tuple[pa.Table, list[tuple[int, str]]]:
        """Return the rows of a split as texts that the model reads, where that depends on its tokenizer.

        Returns:
            The split, and the number and the reason of each row that cannot be used.

        Raises:
            MaskError: If the tokenizer can render no row.
        """
        return rows, []

    def tokenizer_refusal(self, tokenizer: PreTrainedTokenizerBase) -> str:
        """Return why rows cannot be tokenized by a tokenizer, one line; empty if nothing is in the way."""
        return ""

    @abstractmethod
    def tokenize(self, rows: pa.Table, tokenizer: PreTrainedTokenizerBase, max_length: int) -> pa.Table:
        """Return the tokenized table of a split, rows cut to ``max_length`` tokens."""

    @abstractmethod
    def collate(
        self, rows: pa.Table, indices: NDArray[np.int64], pad_id: int, pad_left: bool = False
    ) -> dict[str, Tensor]:
        """Return a batch of a tokenized table, padded to its own longest row.

        Args:
            rows: Tokenized table.
            indices: Indices of the batch's rows.
            pad_id: Id of the padding token.
            pad_left: Whether padding goes before the tokens, where the type :attr:`pads_left`.

        Returns:
            ``input_ids`` and ``attention_mask`` of shape ``(rows, tokens)``, and the type's ``labels``; int64.
        """

    def inputs(self, model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return what a model is called with for a collated batch, on the model's device."""
        return model_inputs(model, batch)

    def forward(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """Return what a model gives for a collated batch: :meth:`forward_shape` is its shape.

        Soft prompts have positions of their own before those of the tokens, which are left out.
        """
        logits: Tensor = model(**self.inputs(model, batch)).logits
        return logits[:, -batch["input_ids"].shape[1] :] if self.scores_tokens else logits

    def forward_shape(self, config: PretrainedConfig, batch: dict[str, Tensor]) -> tuple[int, ...]:
        """Return the shape of :meth:`forward`: ``(rows, labels)``, or ``(rows, tokens, labels or vocabulary)``."""
        width: Any = config.get_text_config().vocab_size if self.predicts_next_token else config.num_labels
        rows, tokens = batch["input_ids"].shape
        return (rows, tokens, width) if self.scores_tokens else (rows, width)

    @abstractmethod
    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """Return the scalar to minimize on a collated batch."""

    def loss_terms(self, batch: dict[str, Tensor]) -> int:
        """Return how many terms the mean of :meth:`loss` has: the weight of a batch that is trained in parts."""
        return int((batch["labels"] != IGNORED_LABEL).sum())

    @abstractmethod
    def predictions(
        self, model: nn.Module, rows: pa.Table, batches: Batches, pad_id: int, pad_left: bool = False
    ) -> pa.Table:
        """Return the predictions that :class:`Evaluation` holds, of the rows of the batches in the table's order."""

    def evaluate(
        self, model: nn.Module, rows: pa.Table, batches: Batches, pad_id: int, pad_left: bool = False
    ) -> Evaluation:
        """Score a model on the rows of the batches; its training mode is left unchanged.

        Raises:
            ValueError: If the type generates and has no tokenizer.
        """
        predictions = self.predictions(model, rows, batches, pad_id, pad_left)
        return Evaluation({metric.name: self.score(metric.name, predictions) for metric in self.computed}, predictions)

    def blank_prompt(self, config: TaskSection, tokenizer: PreTrainedTokenizerBase, max_length: int) -> tuple[int, ...]:
        """Return the tokens of a prompt without content, by which scores of choices can be calibrated; none of most.

        Args:
            config: The task's section.
            tokenizer: The tokenizer.
            max_length: Most tokens of a row.
        """
        return ()

    def score(self, metric: str, predictions: pa.Table) -> float:
        """Return a metric of the predictions."""
        return float(self.score_many(metric, predictions, np.arange(predictions.num_rows)[None])[0])

    def score_many(self, metric: str, predictions: pa.Table, draws: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return a metric of many samples of the predictions.

        Args:
            metric: Name of the metric.
            predictions: Predictions as :class:`Evaluation` holds them.
            draws: Row indices of shape ``(samples, rows)``.

        Returns:
            Scores of shape ``(samples,)``.

        Raises:
            ValueError: If the type has no such metric, or the predictions do not hold what it is computed from.
        """
        statistic = self.metric(metric).statistic
        if statistic is None:
            raise ValueError(f"metric {metric!r} has no statistic to compute it by")
        return statistic(predictions, draws)

    def input_schema(self, columns: Mapping[str, str]) -> InputSchema:
        """Return the columns that one trained model reads.

        Args:
            columns: Names under which clients send them, by the split table's columns, which are keys of
                :attr:`input_columns`.
        """
        return InputSchema(
            {name: self.input_columns[split_name] for split_name, name in columns.items()},
            {name: split_name for split_name, name in columns.items()},
        )

    def unanswered(self, inputs: pa.Table) -> pa.Table:
        """Return a split table of inputs whose answers are unknown.

        Columns of texts that are no inputs hold empty texts; a type with other columns overrides this.

        Args:
            inputs: Table of :meth:`InputSchema.to_table`.
        """
        rows = inputs.num_rows
        columns = {name: inputs[name] for name in inputs.column_names}
        others = {
            name: pa.array([""] * rows, pa.string()) for name in self.text_columns if name not in self.input_columns
        }
        return pa.table({"row": pa.array(range(rows), pa.int64()), **columns, **others})

    @abstractmethod
    def answer_columns(self, labels: Sequence[str]) -> dict[str, ColumnKind]:
        """Return the columns of an answer and the kinds of their values."""

    @abstractmethod
    def answer(
        self,
        model: nn.Module,
        rows: pa.Table,
        batches: Batches,
        pad_id: int,
        pad_left: bool,
        labels: Sequence[str],
    ) -> pa.Table:
        """Answer inputs whose answers are unknown.

        Args:
            model: Backbone with its adapter.
            rows: Tokenized table of :meth:`unanswered`; at least one row.
            batches: Row indices of each batch; every row is in one.
            pad_id: Id of the padding token.
            pad_left: Whether padding goes before the tokens.
            labels: Names of the labels in the order of their integers.

        Returns:
            The columns of :meth:`answer_columns`, in the table's order.
        """

    def answer_object(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Return one line of :meth:`answer` as the JSON object that ``peft-sweep predict`` prints."""
        return answer

    @abstractmethod
    def reproducible(self, predictions: pa.Table) -> NDArray[np.float64]:
        """Return the numbers that must be the same when a model predicts again; shape ``(rows, numbers)``."""

    def answered(self, predictions: pa.Table) -> list[Any] | None:
        """Return the label or labels, or the number of the choice, of each row; ``None`` where a type has none."""
        return None

    def class_report(self, predictions: pa.Table) -> ClassReport | None:
        """Return how a model does on each class; ``None`` where rows have no classes, or each has its own."""
        return None

    def row_errors(self, predictions: pa.Table) -> RowErrors | None:
        """Return how wrong a model is about each row; ``None`` where a type has no such number."""
        return None

    def predict_again(
        self, recorded: pa.Table, answer: Callable[[pa.Table], pa.Table], evaluate: Callable[[pa.Table], Evaluation]
    ) -> pa.Table:
        """Return new predictions for recorded test rows, to compare with the recorded ones.

        A type whose answers hold what its metrics are computed from overrides this, so that ``models verify`` checks
        the served model as a whole.

        Args:
            recorded: Split table with the recorded predictions beside its own columns.
            answer: Answers the inputs of a split table through MLflow, as a client would ask for it.
            evaluate: Scores a split table.
        """
        return evaluate(recorded).predictions

    @property
    def example_arguments(self) -> tuple[str, ...]:
        """The tokenizer's outputs that the model reads."""
        return "input_ids", "attention_mask"

    def example_code(self, labels: Sequence[str]) -> tuple[str, ...]:
        """Return lines of Python that run ``adapter.module`` on ``tokens``, for an exported folder's README."""
        arguments = ", ".join(f'{name}=tokens["{name}"]' for name in self.example_arguments)
        call = f"adapter.module({arguments})"
        return ("with torch.no_grad():", f"    logits = {call}.logits", f"print({self.example_output(labels)})")

    def merged_files(self, model: nn.Module) -> dict[str, str]:
        """Return files to write beside a merged checkpoint, by path, for other libraries that load it.

        Args:
            model: The merged model.
        """
        return {}

    def example_output(self, labels: Sequence[str]) -> str:
        """Return the Python expression of what ``logits`` say about one input, for an exported folder's README."""
        return "logits.shape"

    @abstractmethod
    def purpose(self, labels: Sequence[str]) -> str:
        """Return what a model does, for its card: ``Completes a prompt``."""

    @abstractmethod
    def dummy_labels(self, input_ids: Tensor, attention_mask: Tensor, labels: int) -> Tensor:
        """Return labels for made-up tokens, with the shape and dtype of :meth:`collate`'s; also on the meta device.

        Args:
            input_ids: Tokens of shape ``(rows, tokens)``.
            attention_mask: 0 where a token is padding, of the same shape.
            labels: Size of the model's head; 0 for a language model.
        """

    def dummy_batch(
        self, input_ids: Tensor, attention_mask: Tensor, labels: int, targets: int | None = None
    ) -> dict[str, Tensor]:
        """Return a batch as :meth:`collate` makes it, of made-up tokens; also on the meta device.

        A type whose rows are several sequences cuts the tokens into so many parts.

        Args:
            input_ids: As for :meth:`dummy_labels`.
            attention_mask: As for :meth:`dummy_labels`.
            labels: As for :meth:`dummy_labels`.
            targets: Tokens per row that count in the loss, if that is known.
        """
        made_up = self.dummy_labels(input_ids, attention_mask, labels)
        return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": made_up}

    def target_tokens(self, rows: pa.Table) -> NDArray[np.int64]:
        """Return how many tokens of each row of a tokenized table can take part in the loss."""
        return lengths(rows)

    def trained_tokens(self, rows: pa.Table) -> list[NDArray[np.bool_]]:
        """Return which tokens of each row of a tokenized table the model learns to write; none of most types."""
        return [np.zeros(length, bool) for length in lengths(rows)]

    def token_roles(
        self, row: pa.Table, tokens: pa.Table, tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> list[str]:
        """Return who says each token of a row, for people who look at it; empty texts where that means nothing.

        Args:
            row: Split table of one row.
            tokens: Its tokenized table.
            tokenizer: The tokenizer.
            max_length: Tokens to which the row was cut.
        """
        return [""] * int(lengths(tokens)[0])
