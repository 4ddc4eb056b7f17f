"""Early stopping: whether a trial that has reported at a rung continues, pauses or ends.

The rule is successive halving within one method, in its promoting variant (ASHA; Li et al., 2020, arXiv:1810.05934): a
trial continues while it is among the best of its method's results at the rung. Otherwise it pauses there, and is
promoted once it is among the best. On few results, what cannot be told from the best continues too: of two trials that
have not begun to learn, the one that a rank would stop may be the one that learns. Halving itself never ends a trial:
trials that are still paused when the search closes are recorded as pruned.

``early_stopping: false`` in a configuration is a halving of ``None`` here: every trial continues to the last rung.

:class:`orchestrator.search.progress.Progress` keeps each study's rungs and asks :func:`decide` at each report and
:func:`quota` for promotions. :class:`orchestrator.search.core.Search` carries the decisions out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from orchestrator.common.trial_types import TrialRecord
from orchestrator.search.plans import Decision
from orchestrator.search.rungs import Rung


@dataclass(frozen=True, kw_only=True)
class Halving:
    """The number of trials that continue at a rung.

    Args:
        reduction_factor: The best ``1 / reduction_factor`` of a rung's results continue.
        min_results: Number of results at a rung before its best continue. With fewer, its trials wait; all of them
            continue if no more results can come.
        through: Number of a method's first trials that pause nowhere. The first is the default configuration: methods
            are compared by what they reach at the last rung, so each needs a trial that gets there.
        few_results: Number of results at a rung from which on rank alone decides. With fewer, a trial that is at most
            one standard error of a difference behind the last of those that continue continues as well: which of the
            two is better is noise.
    """

    reduction_factor: float = 2.0
    min_results: int = 2
    through: int = 1
    few_results: int = 6

    def quota(self, results: int, *, no_more: bool) -> int:
        """Return how many of a rung's results continue.

        Args:
            results: The number of results at the rung.
            no_more: Whether no result will follow.
        """
        if results >= self.min_results:
            return max(1, int(results / self.reduction_factor))
        return results if no_more else 0


def quota(halving: Halving | None, rung: Rung, *, no_more: bool, error: float | None = None) -> int:
    """Return how many of a rung's results continue; without halving, all of them.

    Args:
        halving: The rule; ``None`` if every trial continues.
        rung: The results of a method at the rung.
        no_more: Whether the rung gets no more results.
        error: Standard error of the method's scores over validation rows; ``None`` while it is not known.
    """
    if halving is None:
        return rung.results
    best = halving.quota(rung.results, no_more=no_more)
    if error is None or not math.isfinite(error) or rung.results >= halving.few_results:
        return best
    return rung.within(best, math.sqrt(2) * error)


def decide(
    halving: Halving | None,
    record: TrialRecord,
    rung: Rung,
    *,
    is_last: bool,
    budget_spent: bool,
    no_more: bool,
    error: float | None = None,
) -> Decision:
    """Return what happens to a trial that has just reported at a rung.

    Args:
        halving: The rule; ``None`` if every trial continues.
        record: The trial.
        rung: The results of its method at the rung, its own included.
        is_last: Whether this is the last rung, where every trial ends.
        budget_spent: Whether the budget's time is over, so that every trial ends.
        no_more: Whether the rung gets no more results.
        error: As in :func:`quota`.

    Returns:
        ``STOP`` also for a value that is not finite: a trial that has diverged does not recover.
    """
    if is_last or budget_spent or not math.isfinite(record.value):
        return Decision.STOP
    if halving is None or record.key.number < halving.through:
        return Decision.CONTINUE
    is_among_best = rung.rank(record.key.number, record.value) < quota(halving, rung, no_more=no_more, error=error)
    return Decision.CONTINUE if is_among_best else Decision.PAUSE
