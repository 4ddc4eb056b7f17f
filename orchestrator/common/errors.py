"""The two ways a command can end badly, each with its exit code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

KeyPath = tuple[str | int, ...]
"""Keys and list indices that lead to a value of a configuration."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where it stands (key path, row, file) and what to write instead."""

    where: str
    message: str


class InputError(Exception):
    """What the user gave cannot be used. Printed one line per problem; exit code 2.

    Args:
        source: the file or command that the problems are in.
        problems: everything that is wrong with it, found in one go.
        hint: a last line that says how to go on, where the problems themselves do not.
    """

    def __init__(self, source: str, problems: Sequence[Problem], hint: str = "") -> None:
        super().__init__(source, tuple(problems), hint)
        self.source = source
        self.problems = tuple(problems)
        self.hint = hint

    def lines(self) -> list[str]:
        """The error as it is printed, without colour."""
        lines = [": ".join(part for part in (self.source, p.where, p.message) if part) for p in self.problems]
        return [*lines, self.hint] if self.hint else lines

    def __str__(self) -> str:
        return "\n".join(self.lines())


def key_path(path: KeyPath) -> str:
    """Return a key path as it is printed: ``search_space.lora.rank.choices[1]``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def first_line(error: BaseException, empty: str = "") -> str:
    """What an error says, in one line.

    Args:
        error: whose message may have many lines, or none.
        empty: what stands for no message; the error's type, if left out.
    """
    return (str(error).strip() or empty or type(error).__name__).splitlines()[0]


def describe_error(error: BaseException) -> str:
    """An error's type and what it says, in one line; for errors that nobody foresaw."""
    return f"{type(error).__name__}: {first_line(error, 'no message')}"


class SweepError(Exception):
    """The input was fine and the work failed all the same. Exit code 1."""
