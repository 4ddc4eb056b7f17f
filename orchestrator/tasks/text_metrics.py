"""Metrics of generated text, and of the likelihood of text, for every task type that generates.

Predictions hold ``generated`` (the text, null where none was generated) and ``reference`` (a text) or ``references`` (a
list of texts, the best of which counts); ``nll`` (of a row's target, in nats), ``tokens`` and ``bytes`` (how many of
each the target has).
"""

from __future__ import annotations

import json
import re
import string
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.common.metric import Metric
from orchestrator.tasks.row_sums import RowSums

if TYPE_CHECKING:
    from sacrebleu.metrics.base import Metric as SacreMetric

Floats = NDArray[np.float64]
BLEU_ORDER = 4
CHRF_ORDER, CHRF_BETA = 6, 2


def texts(predictions: pa.Table, metric: str) -> Iterator[tuple[str, list[str]]]:
    """Iterate over the generated text and the references of each row.

    Raises:
        ValueError: If nothing was generated.
    """
    if "generated" not in predictions.column_names or predictions["generated"].null_count:
        raise ValueError(f"these predictions have no metric {metric!r}: no text was generated for them")
    several = "references" in predictions.column_names
    references = predictions["references" if several else "reference"].to_pylist()
    for generated, row in zip(predictions["generated"].to_pylist(), references, strict=True):
        yield generated, row if several else [row]


def bits_per_byte(predictions: pa.Table, draws: NDArray[np.int64]) -> Floats:
    """Return the bits that a model needs per byte of the targets' text, over all rows of a sample."""
    if "bytes" not in predictions.column_names:
        raise ValueError("these predictions have no metric 'bits_per_byte': an earlier release counted no bytes")
    nll, size = (predictions[name].to_numpy() for name in ("nll", "bytes"))
    scores: Floats = nll[draws].sum(axis=1) / np.log(2) / size[draws].sum(axis=1)
    return scores


def perplexity(predictions: pa.Table, draws: NDArray[np.int64]) -> Floats:
    """Return the perplexity per target token over all rows of a sample."""
    nll, tokens = (predictions[name].to_numpy() for name in ("nll", "tokens"))
    scores: Floats = np.exp(nll[draws].sum(axis=1) / tokens[draws].sum(axis=1))
    return scores


def exact_match(predictions: pa.Table) -> Floats:
    """Return 1 for each row whose text is one of its references, without surrounding white space, and 0 else."""
    if "exact" in predictions.column_names and not predictions["exact"].null_count:  # of release 0.1, without texts
        exact: Floats = predictions["exact"].to_numpy().astype(np.float64)[:, None]
        return exact
    pairs = texts(predictions, "exact_match")
    return _column(float(text.strip() in [reference.strip() for reference in row]) for text, row in pairs)


def token_f1(predictions: pa.Table) -> Floats:
    """Return F1 over each row's words, as SQuAD defines it: no case, punctuation or articles (arXiv:1606.05250)."""
    pairs = texts(predictions, "token_f1")
    return _column(max(_word_f1(_words(text), _words(reference)) for reference in row) for text, row in pairs)


def _words(text: str) -> list[str]:
    without_punctuation = text.lower().translate(str.maketrans("", "", string.punctuation))
    return re.sub(r"\b(a|an|the)\b", " ", without_punctuation).split()


def _word_f1(words: list[str], reference: list[str]) -> float:
    if not words or not reference:
        return float(words == reference)
    common = (Counter(words) & Counter(reference)).total()
    return 2 * common / (len(words) + len(reference))


def rouge_l(predictions: pa.Table) -> Floats:
    """Return F1 over each row's longest common subsequence of words, by rouge-score (Lin, 2004)."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"])
    return _column(scorer.score_multi(row, text)["rougeL"].fmeasure for text, row in texts(predictions, "rouge_l"))


def bleu_counts(predictions: pa.Table) -> Floats:
    """Return sacrebleu's counts of each row: its words, its reference's, matches and n-grams by order."""
    return _sacrebleu_counts(predictions, "bleu")


def bleu(sums: Floats) -> Floats:
    """Return BLEU from 0 to 100 of summed counts, smoothed as sacrebleu does by default (Post, 2018).

    An order without a match counts as half a match, the next such order as a quarter, and so on.
    """
    words, reference_words = sums[:, 0], sums[:, 1]
    matches, ngrams = sums[:, 2 : 2 + BLEU_ORDER], sums[:, 2 + BLEU_ORDER :]
    halvings = np.cumsum((matches == 0) & (ngrams > 0), axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        precisions = np.where(matches > 0, matches, 0.5**halvings) / ngrams
        brevity = np.where(words < reference_words, np.exp(1 - reference_words / words), 1.0)
        scores = 100 * brevity * np.exp(np.log(precisions).mean(axis=1))
    defined = (ngrams > 0).all(axis=1) & (matches > 0).any(axis=1)
    result: Floats = np.where(defined, scores, 0.0)
    return result


def chrf_counts(predictions: pa.Table) -> Floats:
    """Return sacrebleu's counts of each row: character n-grams of the text, of the reference, and in both, by order."""
    return _sacrebleu_counts(predictions, "chrf")


def chrf(sums: Floats) -> Floats:
    """Return chrF from 0 to 100 of summed counts: the F-score with twice the weight on recall (Popović, 2015)."""
    text, reference, both = sums.reshape(len(sums), CHRF_ORDER, 3).transpose(2, 0, 1)
    counted = (text > 0) & (reference > 0)
    orders = np.maximum(counted.sum(axis=1), 1)
    precision, recall = (np.where(counted, both / np.maximum(n, 1), 0).sum(axis=1) / orders for n in (text, reference))
    weighted = CHRF_BETA**2 * precision + recall
    scores: Floats = 100 * (1 + CHRF_BETA**2) * precision * recall / np.where(weighted > 0, weighted, 1)
    return scores


@cache
def _sacrebleu(metric: str) -> SacreMetric:
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    return BLEU(max_ngram_order=BLEU_ORDER, force=True) if metric == "bleu" else CHRF(CHRF_ORDER, beta=CHRF_BETA)


def _sacrebleu_counts(predictions: pa.Table, metric: str) -> Floats:
    pairs = list(texts(predictions, metric))
    most = max(len(row) for _, row in pairs)
    streams = [[row[k] if k < len(row) else None for _, row in pairs] for k in range(most)]
    counts = _sacrebleu(metric)._extract_corpus_statistics([text for text, _ in pairs], streams)  # type: ignore[arg-type]
    return np.asarray(counts, np.float64)


def valid_json(predictions: pa.Table) -> Floats:
    """Return 1 for each row whose whole text is JSON, and 0 else."""
    return _column(float(_parsed(text) is not _NOT_JSON) for text, _ in texts(predictions, "valid_json"))


def json_fields(predictions: pa.Table) -> Floats:
    """Return the share of the fields of each row's reference that the text has with equal values.

    Fields are the values inside nested objects, by their paths; a list is one value.

    Raises:
        ValueError: If a reference is not JSON.
    """
    rows = predictions["row"].to_pylist()
    pairs = texts(predictions, "json_fields")
    return _column(
        max(_equal_fields(text, reference, row) for reference in references)
        for row, (text, references) in zip(rows, pairs, strict=True)
    )


_NOT_JSON = object()


def _equal_fields(text: str, reference: str, row: int) -> float:
    expected = _parsed(reference)
    if expected is _NOT_JSON:
        raise ValueError(f"metric 'json_fields' needs references that are JSON; that of row {row} is not")
    fields, own = _leaves(expected), _leaves(_parsed(text))
    # Compared as JSON text: in Python, 1 and true are equal.
    return sum(path in own and own[path] == value for path, value in fields.items()) / len(fields)


def _leaves(value: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], str]:
    if value is _NOT_JSON:
        return {}
    if not isinstance(value, dict) or not value:
        return {path: json.dumps(value, sort_keys=True)}
    return {key: leaf for name, inner in value.items() for key, leaf in _leaves(inner, (*path, name)).items()}


def _parsed(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError):
        return _NOT_JSON


def _column(values: Iterator[float]) -> Floats:
    return np.fromiter(values, np.float64)[:, None]


def _text_metric(name: str, label: str, per_row: Callable[[pa.Table], Floats]) -> Metric:
    return Metric(name=name, label=label, statistic=RowSums(name, per_row), needs_generation=True)


def _corpus_metric(
    name: str, label: str, per_row: Callable[[pa.Table], Floats], score: Callable[[Floats], Floats]
) -> Metric:
    statistic = RowSums(name, per_row, score)
    return Metric(name=name, label=label, bounds=(0.0, 100.0), statistic=statistic, needs_generation=True)


BITS_PER_BYTE = Metric(
    name="bits_per_byte",
    direction="minimize",
    bounds=(0.0, float("inf")),
    label="bits per byte",
    statistic=bits_per_byte,
)
PERPLEXITY = Metric(
    name="perplexity",
    direction="minimize",
    bounds=(1.0, float("inf")),
    label="perplexity",
    statistic=perplexity,
)
EXACT_MATCH = _text_metric("exact_match", "exact match", exact_match)
TOKEN_F1 = _text_metric("token_f1", "token F1", token_f1)
ROUGE_L = _text_metric("rouge_l", "ROUGE-L", rouge_l)
BLEU = _corpus_metric("bleu", "BLEU", bleu_counts, bleu)
CHRF = _corpus_metric("chrf", "chrF", chrf_counts, chrf)
VALID_JSON = _text_metric("valid_json", "valid JSON", valid_json)
JSON_FIELDS = replace(_text_metric("json_fields", "JSON fields", json_fields), needs_valid_references=True)
