"""What a warm start reads from a real MLflow is what the journals of those sweeps say."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from orchestrator.common.errors import SweepError
from orchestrator.search.plans import StudyPlan
from orchestrator.tracking.connection import open_client
from orchestrator.tracking.runs import RunWriter
from orchestrator.warm_start import EVENT, prior_of
from orchestrator.warm_start.journals import tasks_of_events
from orchestrator.warm_start.runs import RecordedSweeps
from search_spaces._base import SearchSpace

from ..earlier_sweeps import sweep_events

SPACE = SearchSpace(
    distributions={
        "learning_rate": FloatDistribution(1e-5, 1e-1, log=True),
        "rank": IntDistribution(1, 64),
        "place": CategoricalDistribution(["all", "last"]),
        "rslora": CategoricalDistribution([False, True]),
    },
    default={"learning_rate": 1e-3, "rank": 8, "place": "all", "rslora": False},
    sources={},
)
GOOD = {"learning_rate": 0.0123456789012345, "rank": 32, "place": "last", "rslora": True}
PAST = sweep_events(
    "past",
    {
        "lora": [(GOOD, "complete", 0.8), ({**GOOD, "rank": 2}, "pruned", 0.9), ({**GOOD, "rank": 4}, "failed", None)],
        "ia3": [({"learning_rate": 0.1}, "complete", 0.7)],
    },
)
Record = Callable[[list[dict[str, Any]]], None]


@pytest.fixture
def record(uri: str) -> Record:
    """Writes a sweep's events, in an experiment of its own."""

    def write(events: list[dict[str, Any]]) -> None:
        writer = RunWriter(uri, str(events[0]["sweep"]))
        for event in events:
            writer.write(event)

    return write


def test_warm_start_reads_the_same_from_runs_as_from_journals(record: Record, uri: str) -> None:
    record(PAST)
    open_client(uri).create_run("0", tags={"kind": "sweep"})  # of some other program
    open_client(uri).create_run("0", tags={"kind": "sweep", "sweep": "mine", "task": "t"})
    recorded = RecordedSweeps(uri)
    (run,), (journal,) = recorded.recent(), tasks_of_events(PAST)
    assert replace(run, read=list) == replace(journal, read=list)
    told = [sorted((one.trial, one.method, one.state, str(one.value)) for one in e.read()) for e in (run, journal)]
    assert told[0] == told[1]
    assert len(told[0]) == 4
    assert [one.sweep for one in recorded.named("past")] == ["past"]
    assert recorded.named("it's past") == recorded.named("mine") == []


def test_warm_start_configuration_and_its_origin_survive_the_tracking_server(record: Record, uri: str) -> None:
    record(PAST)
    (task_metadata,) = (one.task_metadata for one in tasks_of_events(PAST))
    study = StudyPlan(study="mail/lora", space=SPACE, higher_is_better=True)
    prior = prior_of("auto", [study], {"mail": task_metadata}, tracking_uri=uri, storage="")
    (params,) = prior.of("mail/lora")
    assert {name: (type(value), value) for name, value in params.items()} == {n: (type(v), v) for n, v in GOOD.items()}
    record([*sweep_events("now", {}), {"time": 1.8e9, "event": EVENT, **prior.fields()}])
    client = open_client(uri)
    experiment = client.get_experiment_by_name("now")
    assert experiment
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.tags["warm_start"] == "past/mail"


def test_warm_start_creates_no_database_and_shows_no_secret(tmp_path: Path) -> None:
    file = tmp_path / "none.db"
    assert RecordedSweeps(f"sqlite:///{file}").recent() == []
    assert not file.exists()
    with pytest.raises(SweepError) as caught:
        RecordedSweeps("http://user:secret@127.0.0.1:9").recent()
    assert "secret" not in str(caught.value)
