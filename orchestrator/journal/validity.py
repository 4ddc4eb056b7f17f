"""Find the first line of a journal that is JSON and yet no event that was ever written: somebody has edited it.

Only what every release has written is asked for, and what is read without a default.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

from orchestrator.common.errors import InputError, Problem
from orchestrator.common.trial_types import Answer, Ending, Status, TrialKey
from orchestrator.journal.events import Journal

_Check = Callable[[Any], bool]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_score(value: Any) -> bool:
    return value is None or _is_number(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_trial(value: Any) -> bool:
    try:
        return _is_text(value) and str(TrialKey.parse(value)) == value
    except ValueError:
        return False


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_versions(value: Any) -> bool:
    """Return whether a value has the version and the alias of each registered method."""
    return _is_object(value) and all(
        _is_object(version) and _is_count(version.get("version")) and _is_text(version.get("alias", ""))
        for version in value.values()
    )


def _is_ending(value: Any) -> bool:
    return value in get_args(Ending)


def _is_answer(value: Any) -> bool:
    """Return whether a value can be read as an :class:`~orchestrator.common.trial_types.Answer`."""
    if not _is_object(value) or not value.keys() <= _ANSWER or value.get("status") not in get_args(Status):
        return False
    by_name = [value.get(name) for name in ("metrics", "validation", "measurements")]
    if not all(_is_object(scores) and all(map(_is_score, scores.values())) for scores in by_name):
        return False
    texts = (value.get("reason", ""), value.get("checkpoint") or "")
    return _is_count(value.get("step", 0)) and all(map(_is_text, texts)) and _is_object(value.get("curve", {}))


_ANSWER = {field.name for field in fields(Answer)}
MEANINGS: dict[_Check, str] = {
    _is_number: "a number",
    _is_count: "a whole number from 0",
    _is_score: "a number or null",
    _is_text: "a text",
    _is_object: "an object",
    _is_answer: "the answer of a lane",
    _is_trial: "TASK/METHOD/NUMBER",
    _is_names: "a list of names",
    _is_versions: "a version for each method",
    _is_ending: f"one of {', '.join(get_args(Ending))}",
}
FIELDS: dict[str, dict[str, _Check]] = {
    "sweep": {"sweep": _is_text, "config": _is_object, "identity": _is_object, "tasks": _is_object}
    | {"backbone": _is_object, "directory": _is_text, "versions": _is_object},
    "resume": {"sweep": _is_text},
    "extend": {"trials": _is_count, "limit": _is_count},
    "warm_start": {"configurations": _is_object},
    "trial": {"trial": _is_trial, "params": _is_object, "seed": _is_count},
    "rung": {"trial": _is_trial, "step": _is_count, "value": _is_score, "lane_seconds": _is_number},
    "pause": {"trial": _is_trial, "step": _is_count},
    "promote": {"trial": _is_trial, "step": _is_count},
    "end": {"trial": _is_trial, "state": _is_ending, "reason": _is_text, "lane_seconds": _is_number},
    "drop": {"study": _is_text},
    "readmit": {"study": _is_text},
    "searched": {"reason": _is_text},
    "answer": {"job": _is_text, "answer": _is_answer},
    "registered": {"task": _is_text, "name": _is_text, "version": _is_count, "aliases": _is_names},
    "close": {"reason": _is_text},
}
LATER_FIELDS: dict[str, dict[str, _Check]] = {"registered": {"methods": _is_versions}}
"""Fields that earlier releases did not write."""


def require_valid(path: Path) -> None:
    """Check a journal before anything is done with it.

    Raises:
        InputError: if a line is no event that was ever written: its number, and what is wrong with it.
        SweepError: if a line is not a JSON object.
    """
    for number, message in _problems(Journal.read(path)):
        raise InputError(str(path), [Problem(f"line {number}", message)], "restore the line, or run a new sweep")


@contextmanager
def blaming_journal(path: Path) -> Iterator[None]:
    """Turn an error that a journal's content has caused into the line that is wrong.

    For commands that only read: a journal of many trials is not checked as long as nothing fails.

    Raises:
        InputError: as :func:`require_valid`, where something fails inside and a line of the journal is wrong.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration):
        require_valid(path)
        raise


def _problems(events: Iterable[Mapping[str, Any]]) -> Iterable[tuple[int, str]]:
    began: set[str] = set()
    for number, event in enumerate(events, 1):
        kind = event["event"]
        later = {field: check for field, check in LATER_FIELDS.get(kind, {}).items() if field in event}
        for field, check in {"time": _is_number, **FIELDS.get(kind, {}), **later}.items():
            if field not in event:
                yield number, f"the event {kind!r} has no {field!r}"
            elif not check(event[field]):
                yield number, f"{field!r} of the event {kind!r} is {event[field]!r:.60}, not {MEANINGS[check]}"
        if kind == "trial":
            if event.get("trial") in began:
                yield number, f"the trial {event['trial']} began on an earlier line"
            began.add(event.get("trial", ""))
        elif kind in ("rung", "pause", "promote", "end") and event.get("trial") not in began:
            yield number, f"the trial {event.get('trial')} has not begun on an earlier line"
