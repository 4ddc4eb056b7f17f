"""The two kinds of errors that end a command, each with its exit code, and errors as one line of text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MAX_REASON = 250
"""Characters of what a client of an object store or a server says."""
KeyPath = tuple[str | int, ...]
"""Keys and list indices that lead to a value of a configuration."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with an input.

    Args:
        where: a key path, a row or a file; may be empty.
        message: what is wrong, and what to write instead.
    """

    where: str
    message: str


class InputError(Exception):
    """An input of the user that cannot be used. Printed one line per problem; exit code 2.

    Args:
        source: the file, option or command that the problems are in.
        problems: all problems of the source, so that one run shows them all.
        hint: a last line with the next step, where the messages do not contain it.
    """

    def __init__(self, source: str, problems: Sequence[Problem], hint: str = "") -> None:
        super().__init__(source, tuple(problems), hint)
        self.source = source
        self.problems = tuple(problems)
        self.hint = hint

    def lines(self) -> list[str]:
        """Return the lines that are printed: ``SOURCE: WHERE: MESSAGE`` for each problem, then the hint."""
        lines = [one_line(": ".join(part for part in (self.source, p.where, p.message) if part)) for p in self.problems]
        return [*lines, self.hint] if self.hint else lines

    def __str__(self) -> str:
        return "\n".join(self.lines())


def one_line(text: str) -> str:
    """Return a text with escapes in place of line breaks and other control characters that an input may hold."""
    return "".join(char if char.isprintable() or char == " " else ascii(char)[1:-1] for char in text)


def key_path(path: KeyPath) -> str:
    """Return a key path as it is printed: ``search_space.lora.rank.choices[1]``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def first_line(error: BaseException, empty: str = "") -> str:
    """Return the first line of an error's message.

    Args:
        error: an error whose message may have any number of lines.
        empty: the text for an empty message; the name of the error's type if left out.
    """
    return (str(error).strip() or empty or type(error).__name__).splitlines()[0]


def short_line(error: BaseException) -> str:
    """Return the beginning of an error's first line, into which some clients of servers put a page of text."""
    line = first_line(error)
    return line if len(line) <= MAX_REASON else f"{line[:MAX_REASON]} ..."


def describe_error(error: BaseException) -> str:
    """Return an unexpected error as one line: ``TYPE: MESSAGE``."""
    return f"{type(error).__name__}: {first_line(error, 'no message')}"


class SweepError(Exception):
    """A failure of the work itself, with valid input. Exit code 1."""


class MachineryError(SweepError):
    """A process that a sweep cannot do without has died. Work that waits for it never ends."""
