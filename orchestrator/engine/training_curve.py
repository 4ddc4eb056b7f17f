"""A trial's training curve: loss, learning rate, gradient norm and throughput, at a bounded number of steps."""

from __future__ import annotations

import math

from orchestrator.common.trial_types import Curve

POINTS = 100
"""Most points of a trial's curve over its whole schedule."""
DIGITS = 5
"""Significant digits of its numbers: curves travel in the sweep's journal."""


class TrainingCurve:
    """Collects the steps of one trial, and keeps a point of every few.

    A point has the mean loss and the mean gradient norm of the steps since the point before it, so that no step is left
    out, and the learning rate of its own step.

    Args:
        total: optimizer steps of the trial's full schedule.
    """

    def __init__(self, total: int) -> None:
        self._every = max(1, math.ceil(total / POINTS))
        self._points: list[dict[str, float | None]] = []
        self._losses: list[float] = []
        self._norms: list[float] = []
        self._tokens, self._begin_s = 0, 0.0

    def add(
        self, step: int, *, loss: float, learning_rate: float, gradient_norm: float, tokens: int, train_seconds: float
    ) -> None:
        """Add a step.

        Args:
            step: optimizer steps that are done, with this one.
            loss: loss of its whole batch.
            learning_rate: rate that it used, of a parameter group without a multiplier.
            gradient_norm: norm of its gradient before it was clipped.
            tokens: tokens of its batch, with padding.
            train_seconds: lane time of the trial's training until before this step, in seconds. Trials of a pack share
                the time of a pass by their tokens, so that the throughput is that of the whole pack.
        """
        self._losses.append(loss)
        self._norms.append(gradient_norm)
        if step % self._every == 0:
            seconds = train_seconds - self._begin_s
            point = {
                "step": float(step),
                "loss": sum(self._losses) / len(self._losses),
                "learning_rate": learning_rate,
                "gradient_norm": sum(self._norms) / len(self._norms),
                "tokens_per_second": self._tokens / seconds if self._tokens and seconds > 0 else None,
            }
            self._points.append({name: None if value is None else _rounded(value) for name, value in point.items()})
            self._losses, self._norms = [], []
            self._tokens, self._begin_s = 0, train_seconds
        self._tokens += tokens

    def since(self, step: int) -> Curve:
        """Return the points after a step, a list per quantity; empty if there are none."""
        points = [point for point in self._points if (point["step"] or 0) > step]
        return {name: [point[name] for point in points] for name in points[0]} if points else {}

    def restore(self, curve: Curve, train_seconds: float) -> None:
        """Go on after the points of :meth:`since`, which another process has collected.

        Args:
            curve: the points.
            train_seconds: lane time of the trial's training so far, in seconds.
        """
        self._points = [dict(zip(curve, values, strict=True)) for values in zip(*curve.values(), strict=True)]
        self._begin_s = train_seconds


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
