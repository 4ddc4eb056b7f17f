"""What our samplers and storages override of Optuna's."""

from __future__ import annotations

import optuna
import pytest

from .reliance import parameters, relied_on

pytestmark = pytest.mark.filterwarnings("ignore")  # of libraries as they are imported


@relied_on(
    "optuna.samplers._base.BaseSampler.infer_relative_search_space",
    "optuna.samplers._base.BaseSampler.sample_independent",
    "optuna.samplers._base.BaseSampler.sample_relative",
    by="orchestrator/search/cma_es.py",
)
def test_optuna_sampler_signatures() -> None:
    from optuna.samplers import BaseSampler

    assert parameters(BaseSampler.infer_relative_search_space) == "self, study, trial"
    assert parameters(BaseSampler.sample_relative) == "self, study, trial, search_space"
    assert parameters(BaseSampler.sample_independent) == "self, study, trial, param_name, param_distribution"


@relied_on(
    "optuna.storages.journal._base.BaseJournalBackend.append_logs",
    "optuna.storages.journal._base.BaseJournalBackend.read_logs",
    by="orchestrator/search/optuna_file.py",
)
def test_optuna_journal_backend_signatures() -> None:
    from optuna.storages.journal import BaseJournalBackend

    assert parameters(BaseJournalBackend.append_logs) == "self, logs"
    assert parameters(BaseJournalBackend.read_logs) == "self, log_number_from"


@relied_on("optuna.storages._in_memory.InMemoryStorage.get_all_trials", by="orchestrator/search/propose.py")
def test_optuna_samplers_see_trials_through_get_all_trials() -> None:
    asked: list[bool] = []

    class Watched(optuna.storages.InMemoryStorage):
        def get_all_trials(self, *args: object, **options: object) -> list[optuna.trial.FrozenTrial]:
            asked.append(True)
            return []

    assert parameters(optuna.storages.InMemoryStorage.get_all_trials) == "self, study_id, deepcopy, states"
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(storage=Watched(), sampler=optuna.samplers.TPESampler(n_startup_trials=0, seed=0))
    asked.clear()
    study.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
    assert asked, "TPE looks at trials in another way"


def test_optuna_names_objectives_by_a_study_attribute() -> None:
    from optuna.study import study

    from orchestrator.search.optuna_file import METRIC_NAMES

    assert study._SYSTEM_ATTR_METRIC_NAMES == METRIC_NAMES
