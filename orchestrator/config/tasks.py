"""What a sweep says about its tasks: where the rows are, which columns count, what is measured."""

from __future__ import annotations

from collections.abc import Mapping
from string import Formatter
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, ValidationInfo, model_validator

from orchestrator.common.suggest import did_you_mean
from orchestrator.config.kinds import Count, Fraction, Number, Scalar
from orchestrator.config.rows import row_problems
from orchestrator.config.section import Section, refusal


class DataFiles(Section):
    """Splits that are given as files of their own."""

    train: str
    """Rows to train on."""
    validation: str
    """Rows to choose on."""
    test: str
    """Rows that are looked at once, at the end."""


class Split(Section):
    """How to split one file; the fractions add up to 1."""

    train: Fraction = 0.6
    """Fraction of the rows to train on."""
    validation: Fraction = 0.2
    """Fraction of the rows to choose on."""
    test: Fraction = 0.2
    """Fraction of the rows that are looked at once, at the end."""

    @model_validator(mode="after")
    def _whole(self) -> Split:
        if abs((total := self.train + self.validation + self.test) - 1) > 1e-6:
            raise ValueError(f"the fractions add up to {total:.6g}; they must add up to 1")
        return self


def _regex(pattern: str) -> str:
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        pc.match_substring_regex(pa.array([""]), pattern)
    except pa.ArrowInvalid as error:
        raise ValueError(f"is no regular expression of RE2 ({str(error).split(': ', 1)[-1]})") from error
    return pattern


class Condition(Section):
    """What a column's value must be for its row to count; all that is given must hold."""

    matches: Annotated[str, AfterValidator(_regex)] | None = None
    """A regular expression (RE2 syntax) that is found somewhere in the text."""
    at_least: Number | None = None
    """The smallest number."""
    at_most: Number | None = None
    """The largest number."""
    equals: Scalar | None = None
    """The value itself."""

    @model_validator(mode="after")
    def _some(self) -> Condition:
        if not self.model_dump(exclude_none=True):
            raise ValueError("says nothing; give matches, at_least, at_most or equals")
        return self


def _data_kind(value: Any) -> str | None:
    if isinstance(value, str):
        return "file"
    return "files" if isinstance(value, dict | DataFiles) else None


Data = Annotated[
    Annotated[str, Tag("file")] | Annotated[DataFiles, Tag("files")],
    Discriminator(
        _data_kind,
        custom_error_type="data",
        custom_error_message="write one file to split, or {train: ..., validation: ..., test: ...}",
    ),
]


def template_columns(template: str) -> list[str]:
    """The columns that a template names: those in its braces, or itself where it has none.

    Raises:
        ValueError: if the braces hold anything but column names.
    """
    if "{" not in template and "}" not in template:
        return [template]
    columns = []
    for _, field, spec, conversion in Formatter().parse(template):
        if field is not None:
            if not field or spec or conversion:
                raise ValueError(f"{template!r} must have column names alone in its braces, as in {{text}}")
            columns.append(field)
    if not columns:
        raise ValueError(f"{template!r} names no column; write {{column}} where its value goes")
    return columns


def _template(template: str) -> str:
    template_columns(template)
    return template


class _Rows(Section):
    data: Data
    """One file to split, or ``{train, validation, test}``. Parquet, csv, jsonl or arrow, by suffix (``.csv.gz`` too):
    a path relative to the configuration's folder, a URI such as ``s3://bucket/rows.parquet``, or
    ``package:NAME/SUBPATH`` for a file inside an installed Python package."""
    split: Split = Split()
    """Fractions of the three splits, where ``data`` is one file."""
    where: dict[str, Condition] = Field(default_factory=dict)
    """Which rows count, by column; without it all do."""
    max_rows: Count | None = None
    """At most so many rows of each file, drawn with the seed; for trying things out."""
    drop_invalid: bool = False
    """Leave out rows that cannot be used, and count them, instead of stopping."""
    encoding: str = "utf-8"
    """Text encoding of csv files, as Python names it."""
    source_tasks: list[str] = Field(default_factory=list)
    """Other tasks of this sweep, of the same type, for methods that learn from them first; the most like it first."""

    def columns(self) -> dict[tuple[str, ...], list[str]]:
        """The columns that must be there, by the key path that names them."""
        return {("where", column): [column] for column in self.where}

    def files(self) -> dict[tuple[str, ...], str]:
        """The files, by the key path that names them."""
        if isinstance(self.data, str):
            return {("data",): self.data}
        return {("data", split): file for split, file in self.data.model_dump().items()}

    @model_validator(mode="after")
    def _readable(self, info: ValidationInfo) -> _Rows:
        if problems := row_problems(self.files(), self.columns(), self.encoding, info.context):
            raise refusal(problems)
        return self


class ClassificationTask(_Rows):
    """One label per text."""

    type: Literal["classification"]
    """One label per text."""
    text: str
    """Column of the texts."""
    label: str
    """Column of the labels: texts, whole numbers, or true and false."""
    metric: Literal["macro_f1", "accuracy"] = "macro_f1"
    """What the search maximises."""

    def columns(self) -> dict[tuple[str, ...], list[str]]:
        """The columns that must be there, by the key path that names them."""
        return {("text",): [self.text], ("label",): [self.label], **super().columns()}


class CausalLMTask(_Rows):
    """One completion per prompt; the loss counts the completion only."""

    type: Literal["causal-lm"]
    """One completion per prompt."""
    prompt: Annotated[str, AfterValidator(_template)]
    """Column of the prompts, or a template with columns in braces: ``Review: {text} Rating:``."""
    completion: Annotated[str, AfterValidator(_template)]
    """Column of the completions, or a template with columns in braces."""
    metric: Literal["perplexity", "exact_match"] = "perplexity"
    """What the search minimises (perplexity of the completions) or maximises (exact match when generating)."""
    max_new_tokens: Count = 32
    """How many tokens to generate at most, for ``exact_match``."""

    def columns(self) -> dict[tuple[str, ...], list[str]]:
        """The columns that must be there, by the key path that names them."""
        ours: dict[tuple[str, ...], list[str]] = {
            (key,): template_columns(getattr(self, key)) for key in ("prompt", "completion")
        }
        return {**ours, **super().columns()}


Task = Annotated[ClassificationTask | CausalLMTask, Field(discriminator="type")]


def source_problems(tasks: Mapping[str, Task]) -> list[tuple[tuple[str | int, ...], str]]:
    """Source tasks that cannot be: unknown ones, the task itself, those of another type.

    Returns:
        Pairs of a key path and what is wrong there.
    """
    return [
        ((name, "source_tasks", place), problem)
        for name, task in tasks.items()
        for place, source in enumerate(task.source_tasks)
        if (problem := _source_problem(name, place, source, tasks))
    ]


def _source_problem(name: str, place: int, source: str, tasks: Mapping[str, Task]) -> str:
    others = [other for other in tasks if other != name]
    if source == name:
        return f"{source!r} is the task itself; name another one of this sweep"
    if source not in tasks:
        hint = did_you_mean(source, others) if others else "this sweep has no other one"
        return f"{source!r} is no task of this sweep; {hint}"
    if source in tasks[name].source_tasks[:place]:
        return f"{source!r} is given twice"
    if tasks[source].type != tasks[name].type:
        return f"{source!r} is a {tasks[source].type} task; a {tasks[name].type} task is wanted"
    return ""
