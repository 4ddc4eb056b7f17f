"""What the sections of all task types have in common: where the rows are, which of them count, how they are split."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Self, get_args

import pyarrow as pa
from pydantic import AfterValidator, Discriminator, Field, Tag, ValidationInfo, model_validator

from orchestrator.common.field_types import Count, Fraction, Number, Scalar
from orchestrator.common.section import Section, refusal
from orchestrator.tasks.columns import Column
from orchestrator.tasks.file_headers import Key, header_problems
from orchestrator.tasks.metric_field import MetricNames
from orchestrator.tasks.user_metric import metric_name

if TYPE_CHECKING:
    from orchestrator.tasks.generation import Sampling

MAX_NEW_TOKENS = 32


class DataFiles(Section):
    """Splits that are given as files of their own."""

    train: str
    """Rows to train on."""
    validation: str
    """Rows to choose on."""
    test: str
    """Rows that are scored once, at the end."""


class Split(Section):
    """How to split one file; the fractions add up to 1."""

    train: Fraction = 0.6
    """Fraction of the rows to train on."""
    validation: Fraction = 0.2
    """Fraction of the rows to choose on."""
    test: Fraction = 0.2
    """Fraction of the rows that are scored once, at the end."""

    @model_validator(mode="after")
    def _adds_up(self) -> Split:
        if abs((total := self.train + self.validation + self.test) - 1) > 1e-6:
            raise ValueError(f"the fractions add up to {total:.6g}; they must add up to 1")
        return self


def _require_regex(pattern: str) -> str:
    import pyarrow.compute as pc

    try:
        pc.match_substring_regex(pa.array([""]), pattern)
    except pa.ArrowInvalid as error:
        raise ValueError(f"is not a regular expression of RE2 ({str(error).split(': ', 1)[-1]})") from error
    return pattern


class Condition(Section):
    """What a column's value must be for its row to count; every key that is set must hold."""

    matches: Annotated[str, AfterValidator(_require_regex)] | None = None
    """A regular expression (RE2 syntax) that matches anywhere in the text."""
    at_least: Number | None = None
    """The smallest number."""
    at_most: Number | None = None
    """The largest number."""
    equals: Scalar | None = None
    """The value itself."""

    @model_validator(mode="after")
    def _has_a_key(self) -> Condition:
        if not self.model_dump(exclude_none=True):
            raise ValueError("is empty; give matches, at_least, at_most or equals")
        return self


def _data_tag(value: Any) -> str | None:
    if isinstance(value, str):
        return "file"
    return "files" if isinstance(value, dict | DataFiles) else None


Data = Annotated[
    Annotated[str, Tag("file")] | Annotated[DataFiles, Tag("files")],
    Discriminator(
        _data_tag,
        custom_error_type="data",
        custom_error_message="write one file to split, or {train: ..., validation: ..., test: ...}",
    ),
]


class TaskSection(Section):
    """The base of a task type's section.

    A type adds its name as a ``Literal``, the keys that name its columns, and its metric:
    :data:`MetricNames` annotated with :class:`MetricsOf` of the type's metrics.
    """

    data: Data
    """One file to split, or ``{train, validation, test}``. Parquet, arrow, csv, tsv, json or jsonl, by suffix
    (``.gz``, ``.bz2`` and ``.zst`` too), a folder of such shards, or a pattern as in ``rows-*.parquet``: a path
    relative to the configuration's folder, a URI such as ``s3://bucket/rows.parquet``, ``package:NAME/SUBPATH`` inside
    an installed Python package, or ``hf:NAME/CONFIG:SPLIT``, a data set of the hub, by the extra ``data``."""
    split: Split = Split()
    """Fractions of the three splits, where ``data`` is one file."""
    where: dict[str, Condition] = Field(default_factory=dict)
    """Which rows count, by column; all rows without it."""
    max_rows: Count | None = None
    """The most rows to use of each file, drawn with the seed; for trying things out."""
    drop_invalid: bool = False
    """Leave out rows that cannot be used, and count them, instead of stopping."""
    strip: bool = False
    """Remove white space at both ends of texts and labels."""
    encoding: str = "utf-8"
    """Text encoding of csv files, as Python names it."""
    source_tasks: list[str] = Field(default_factory=list)
    """Other tasks of this sweep, of the same type, for methods that learn from them first; the most similar first."""

    if TYPE_CHECKING:  # every type has these two as fields, each with its own values
        type: str
        metric: MetricNames

    @classmethod
    def type_name(cls) -> str:
        """Return the name of the task type."""
        name: str = get_args(cls.model_fields["type"].annotation)[0]
        return name

    @classmethod
    def in_memory(cls) -> Self:
        """Return the section of a task without files, whose columns are called like the keys that name them."""
        keys = [key for key, field in cls.model_fields.items() if field.is_required() and key not in ("type", "data")]
        return cls.model_validate({"type": cls.type_name(), "data": "memory.jsonl", **{key: key for key in keys}})

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the metrics that are recorded; the first is optimized."""
        return tuple(map(metric_name, self.metric_references))

    @property
    def metric_references(self) -> tuple[str, ...]:
        """The metrics as they are written: names, and functions in files."""
        return (self.metric,) if isinstance(self.metric, str) else tuple(self.metric)

    @property
    def input_columns(self) -> dict[str, str]:
        """The columns that a trained model reads: their names in ``predict`` and in MLflow's signature.

        The keys are the split table's columns, which :attr:`TaskType.input_columns` describes.
        """
        raise NotImplementedError

    @property
    def generated_tokens(self) -> int:
        """The most tokens that a model generates for a row, where the type generates at all."""
        return MAX_NEW_TOKENS

    @property
    def sampled(self) -> Sampling | None:
        """How generated tokens are drawn; ``None`` where each is the most probable one."""
        return None

    def content_columns(self) -> dict[Key, list[str]]:
        """Return the columns that a row is made of, by the key path that names them."""
        raise NotImplementedError

    def optional_columns(self) -> Collection[str]:
        """Return those of :meth:`content_columns` that a file may lack, and whose values may be empty."""
        return ()

    def contents(self, columns: Mapping[str, Column]) -> dict[str, pa.Array]:
        """Return a split table's columns beside ``row``: texts, numbers or lists of them.

        Args:
            columns: The columns that :meth:`content_columns` names; their docstring tells how to read and refuse.
        """
        raise NotImplementedError

    def encode(
        self, tables: dict[str, pa.Table], files: Mapping[str, str], key: str
    ) -> tuple[dict[str, pa.Table], tuple[str, ...]]:
        """Replace labels by numbers.

        A column ``label`` (int32) with the class of each row keeps the classes' shares in every split.

        Args:
            tables: Tables of :meth:`contents` by split, ``train`` among them.
            files: File names by split, for errors.
            key: Key path of the task, for errors.

        Returns:
            The tables, without the rows that ``drop_invalid`` drops; and the names of what the model's head gives: the
            classes in the order of their integers, one name for a number, none for a language model.
        """
        return tables, ()

    def constants(self, train: pa.Table) -> dict[str, float]:
        """Return numbers that a trained model needs beside its weights; journals and bundles record them.

        Args:
            train: Training rows of :meth:`encode`.
        """
        return {}

    def columns(self) -> dict[Key, list[str]]:
        """Return the columns that the files must have, by the key path that names them."""
        optional = self.optional_columns()
        content = {
            key: [name for name in names if name not in optional] for key, names in self.content_columns().items()
        }
        return {**content, **{("where", column): [column] for column in self.where}}

    def files(self) -> dict[Key, str]:
        """Return the files by the key path that names them."""
        if isinstance(self.data, str):
            return {("data",): self.data}
        return {("data", split): file for split, file in self.data.model_dump().items()}

    @model_validator(mode="after")
    def _has_readable_files(self, info: ValidationInfo) -> TaskSection:
        if problems := header_problems(self.files(), self.columns(), self.encoding, info.context):
            raise refusal(problems)
        return self
