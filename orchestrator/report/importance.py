"""Which hyperparameters mattered, method by method, as Optuna reckons it from its own studies (PED-ANOVA)."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)
ENOUGH = 10
"""Complete trials below which shares are chance: the best tenth would be a single trial."""


@dataclass(frozen=True, kw_only=True)
class Importance:
    """What mattered in one study.

    Args:
        trials: complete ones, which alone count.
        shares: by parameter, largest first; they add up to 1.
        note: why there are none.
    """

    trials: int
    shares: dict[str, float]
    note: str = ""


def importances(storage: Path, studies: Iterable[str]) -> dict[str, Importance]:
    """Of each study.

    Args:
        storage: Optuna's file; it is only read, so that a sweep may still be writing it.
        studies: their names, ``task/method``.

    Returns:
        By study; nothing where there is no file.
    """
    wanted = list(studies)
    if not storage.is_file() or not wanted:
        return {}
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        opened = JournalStorage(JournalFileBackend(str(storage)))
        known = set(optuna.get_all_study_names(opened))
        return {name: _of(optuna.load_study(study_name=name, storage=opened)) for name in wanted if name in known}


def _of(study: object) -> Importance:
    import optuna
    from optuna.importance import get_param_importances

    assert isinstance(study, optuna.Study)
    complete = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    if len(complete) < ENOUGH:
        note = f"too few trials: {len(complete)} of {ENOUGH} complete ones"
        return Importance(trials=len(complete), shares={}, note=note)
    if len({trial.value for trial in complete}) == 1:
        return Importance(trials=len(complete), shares={}, note="all complete trials have the same score")
    try:
        shares = get_param_importances(study)
    except (ValueError, RuntimeError, ArithmeticError) as error:
        log.warning("no importances of %s: %s", study.study_name, error)
        return Importance(trials=len(complete), shares={}, note="Optuna can tell none")
    return Importance(trials=len(complete), shares=shares)
