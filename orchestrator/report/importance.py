"""Importance of the hyperparameters of each method, as Optuna computes it from its studies (PED-ANOVA)."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)
MIN_TRIALS = 10
"""Complete trials that are needed: PED-ANOVA compares the best tenth with all, and of fewer that is no whole trial."""


@dataclass(frozen=True, kw_only=True)
class Importance:
    """Importance of the hyperparameters of one study.

    Args:
        trials: number of complete trials; others do not count.
        shares: share by parameter, largest first; they add up to 1.
        note: why there are no shares.
    """

    trials: int
    shares: dict[str, float]
    note: str = ""


def importances(storage: Path, studies: Iterable[str]) -> dict[str, Importance]:
    """Return the importance of the hyperparameters of each study; empty where there is no file.

    Args:
        storage: Optuna's file; it is only read, so that a sweep may still be writing it.
        studies: names of the studies, ``task/method``.
    """
    names = list(studies)
    if not storage.is_file() or not names:
        return {}
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reader = JournalStorage(JournalFileBackend(str(storage)))
        existing = set(optuna.get_all_study_names(reader))
        names = [name for name in names if name in existing]
        return {name: _importance(optuna.load_study(study_name=name, storage=reader)) for name in names}


def _importance(study: object) -> Importance:
    import optuna
    from optuna.importance import get_param_importances

    assert isinstance(study, optuna.Study)
    complete = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    if len(complete) < MIN_TRIALS:
        note = f"too few trials: {len(complete)} of {MIN_TRIALS} complete ones"
        return Importance(trials=len(complete), shares={}, note=note)
    if len({trial.value for trial in complete}) == 1:
        return Importance(trials=len(complete), shares={}, note="all complete trials have the same score")
    try:
        shares = get_param_importances(study)
    except (ValueError, RuntimeError, ArithmeticError) as error:
        log.warning("no importance of %s: %s", study.study_name, error)
        return Importance(trials=len(complete), shares={}, note="Optuna cannot compute it")
    return Importance(trials=len(complete), shares=shares)
