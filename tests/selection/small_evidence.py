"""Predictions of a few methods on a few rows, right or wrong at random, and results made by hand."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.common.metric import Metric
from orchestrator.selection.evidence import Evidence, MethodSample
from orchestrator.selection.results import MethodResult
from orchestrator.selection.selection import Selection

MACRO_F1 = Metric(name="macro_f1", label="macro-F1")
PERPLEXITY = Metric(name="perplexity", direction="minimize", bounds=(1.0, float("inf")), label="perplexity")


def accuracy(right: NDArray[np.bool_], draws: NDArray[np.int64]) -> NDArray[np.float64]:
    shares: NDArray[np.float64] = right[draws].mean(axis=1)
    return shares


def sample(*answers: NDArray[np.bool_], random: bool = True) -> MethodSample:
    """A method by which rows each of its seeds gets right."""
    return MethodSample(
        tuple(float(rows.mean()) for rows in answers), tuple(partial(accuracy, rows) for rows in answers), random
    )


def evidence(means: list[float], error: float = 0.01, seeds: int = 3, freedom: int = 6) -> Evidence:
    """Return evidence of independent means with one standard error, half of its variance from rows, half from seeds."""
    half = error**2 / 2
    return Evidence(np.array(means), np.eye(len(means)) * half, half * seeds, np.full(len(means), seeds), 2000, freedom)


def result(method: str, score: float, **changes: Any) -> MethodResult:
    fields: dict[str, Any] = {
        "trial": f"mail/{method}/1",
        "interval": (score - 0.02, score + 0.02),
        "seed_scores": (score,) * 3,
        "checkpoint_score": score,
        "validation": score,
        "measurements": {},
    }
    return MethodResult(method=method, mean_score=score, **{**fields, **changes})


def measurements(
    size: float = 1e6, memory: float = 1e8, latency: float = 0.1, merges: bool = False
) -> dict[str, float]:
    return {
        "adapter_bytes": size,
        "peak_memory_bytes": memory,
        "latency_overhead_1": latency,
        "latency_overhead_32": latency / 2,
        "mergeable": float(merges),
        "train_seconds": 10.0,
        "trainable_parameters": size / 4,
    }


def selection(*finalists: MethodResult, others: tuple[MethodResult, ...] = (), **changes: Any) -> Selection:
    scored = (*finalists, *others)
    fields: dict[str, Any] = {
        "task": "mail",
        "metric": MACRO_F1,
        "prefer": "score",
        "rows": 2000,
        "seeds": 3,
        "recommended": finalists[0].method,
        "trial": finalists[0].trial,
        "reason": "It is.",
        "alternative": "Nothing.",
        "tied": tuple(finalist.method for finalist in finalists if finalist.tied),
        "minimum_detectable_difference": 0.02,
        "evidence": evidence([scored_result.mean_score for scored_result in scored]).to_dict(),
    }
    return Selection(finalists=finalists, others=others, **{**fields, **changes})
