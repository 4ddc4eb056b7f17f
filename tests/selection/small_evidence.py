"""Answers of a few methods on a few rows, right or wrong at random, and entries made by hand."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.selection.evidence import Arm, Evidence
from orchestrator.selection.selection import Entry, Selection


def accuracy(right: NDArray[np.bool_], draws: NDArray[np.int64]) -> NDArray[np.float64]:
    shares: NDArray[np.float64] = right[draws].mean(axis=1)
    return shares


def arm(*answers: NDArray[np.bool_], random: bool = True) -> Arm:
    """A method by which rows each of its seeds gets right."""
    return Arm(tuple(float(one.mean()) for one in answers), tuple(partial(accuracy, one) for one in answers), random)


def evidence(means: list[float], error: float = 0.01, seeds: int = 3, freedom: int = 6) -> Evidence:
    """Methods whose means are independent, each with that standard error: half its variance of rows, half of seeds."""
    half = error**2 / 2
    return Evidence(np.array(means), np.eye(len(means)) * half, half * seeds, np.full(len(means), seeds), 2000, freedom)


def entry(method: str, score: float, **changes: Any) -> Entry:
    fields: dict[str, Any] = {
        "trial": f"mail/{method}/1",
        "interval": (score - 0.02, score + 0.02),
        "scores": (score,) * 3,
        "validation": score,
        "measurements": {},
    }
    return Entry(method=method, score=score, **{**fields, **changes})


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


def selection(*finalists: Entry, others: tuple[Entry, ...] = (), **changes: Any) -> Selection:
    scored = (*finalists, *others)
    fields: dict[str, Any] = {
        "task": "mail",
        "metric": "macro_f1",
        "higher_is_better": True,
        "prefer": "score",
        "rows": 2000,
        "seeds": 3,
        "recommended": finalists[0].method,
        "trial": finalists[0].trial,
        "reason": "It is.",
        "alternative": "Nothing.",
        "tied": tuple(one.method for one in finalists if one.tied),
        "minimum_detectable_difference": 0.02,
        "evidence": evidence([one.score for one in scored]).to_dict(),
    }
    return Selection(finalists=finalists, others=others, **{**fields, **changes})
