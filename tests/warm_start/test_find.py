"""Which earlier sweeps are used, and the errors and notes if there are none. The tracking server is a fake."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import FloatDistribution, IntDistribution

from orchestrator.common.errors import InputError, SweepError
from orchestrator.journal.events import Journal
from orchestrator.search.plans import StudyPlan
from orchestrator.warm_start import EVENT, Prior, TaskMetadata, prior_of
from orchestrator.warm_start.earlier import EarlierTask
from orchestrator.warm_start.find import MAX_SWEEPS, SweepNames
from orchestrator.warm_start.journals import tasks_of_events
from orchestrator.warm_start.runs import RecordedSweeps
from search_spaces._base import SearchSpace

from ..earlier_sweeps import sweep_events

SPACE = SearchSpace(
    distributions={"learning_rate": FloatDistribution(1e-5, 1e-1, log=True), "rank": IntDistribution(1, 64)},
    default={"learning_rate": 1e-3, "rank": 8},
    sources={},
)
STUDIES = [StudyPlan(study=f"tweets/{m}", space=SPACE, higher_is_better=True) for m in ("lora", "linear_probe")]
(TWEETS,) = (task.task_metadata for task in tasks_of_events(sweep_events("like this", {})))
GOOD = {"learning_rate": 0.0123456789012345, "rank": 32}
TRIALS: dict[str, list[tuple[dict[str, Any], str, float | None]]] = {
    "lora": [(GOOD, "complete", 0.8), ({**GOOD, "rank": 2}, "pruned", 0.9), ({**GOOD, "rank": 4}, "failed", None)],
    "ia3": [({"learning_rate": 0.1}, "complete", 0.7)],
}
Events = list[dict[str, Any]]
Find = Callable[..., Prior]


class Server:
    """A fake tracking server."""

    def __init__(self) -> None:
        self.sweeps: list[EarlierTask] = []
        self.away = False

    def record(self, events: Events) -> None:
        self.sweeps += tasks_of_events(events)

    def recent(self, recorded: RecordedSweeps) -> list[EarlierTask]:
        if self.away:
            raise SweepError("MLflow at http://here: is away")
        return self.sweeps

    def named(self, recorded: RecordedSweeps, name: str) -> list[EarlierTask]:
        return [task for task in self.recent(recorded) if task.sweep == name]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    server = Server()
    monkeypatch.setattr(RecordedSweeps, "recent", lambda recorded: server.recent(recorded))
    monkeypatch.setattr(RecordedSweeps, "named", lambda recorded, name: server.named(recorded, name))
    return server


@pytest.fixture
def find(tmp_path: Path) -> Find:
    def find(names: SweepNames, task_metadata: TaskMetadata = TWEETS) -> Prior:
        return prior_of(names, STUDIES, {"tweets": task_metadata}, tracking_uri="http://here", storage=str(tmp_path))

    return find


def write_journal(folder: Path, events: Events) -> Path:
    place = folder / str(events[0]["sweep"])
    journal = Journal(place / "journal.jsonl")
    for event in events:
        journal.append(**event)
    return place


def test_warm_start_takes_best_configuration_with_its_origin(server: Server, find: Find) -> None:
    server.record(sweep_events("past", TRIALS))
    prior = find("auto")
    assert prior.of("tweets/lora") == (GOOD,)
    assert prior.of("tweets/linear_probe") == ()
    (origin,) = prior.origins
    assert (origin.task, origin.sweep, origin.earlier_task) == ("tweets", "past", "mail")
    assert origin.similarity == pytest.approx(1.0)
    assert (prior.counts(origin), prior.notes) == ({"lora": 1}, ())
    (transferred,) = prior.configurations["tweets/lora"]
    assert (transferred.sweep, transferred.trial, transferred.rank) == ("past", "mail/lora/0", 3 / 4)


def test_warm_start_reads_local_sweep_without_the_server(server: Server, find: Find, tmp_path: Path) -> None:
    server.away = True
    folder = write_journal(tmp_path, sweep_events("past", TRIALS))
    assert find(["past"]).of("tweets/lora") == (GOOD,)
    assert find([str(folder)]).of("tweets/lora") == (GOOD,)


def test_warm_start_finds_recorded_sweep_by_name(server: Server, find: Find) -> None:
    server.record(sweep_events("past", TRIALS))
    server.record(sweep_events("other", {"lora": [({**GOOD, "rank": 3}, "complete", 0.9)]}))
    assert find(["past"]).of("tweets/lora") == (GOOD,)


def test_warm_start_error_lists_sweeps_that_there_are(server: Server, find: Find, tmp_path: Path) -> None:
    write_journal(tmp_path, sweep_events("mail-20261101", {}))
    server.record(sweep_events("past", {}))
    with pytest.raises(InputError) as caught:
        find(["mail-20261101", "mial-20261101", "it's"])
    typo, other = caught.value.lines()
    assert typo == (
        f"search.warm_start[1]: mial-20261101: there is no sweep of that name in {tmp_path}; "
        "did you mean mail-20261101?; nor at http://here; there is: past"
    )
    assert other.startswith("search.warm_start[2]: it's: there is no sweep of that name in ")


def test_warm_start_uses_dissimilar_sweep_only_if_named(server: Server, find: Find) -> None:
    decoder = {"type": "causal-lm", "metric": "perplexity", "labels": 0}
    server.record(sweep_events("past", TRIALS, model="large", digest="c", **decoder))
    automatic = find("auto")
    assert (automatic.of("tweets/lora"), automatic.origins) == ((), ())
    assert automatic.notes == ("no earlier sweep is used for tweets: none has this backbone or this type of task",)
    assert find(["past"]).of("tweets/lora") == (GOOD,)
    far = replace(TWEETS, type="causal-lm", metric="exact_match", architecture="", parameters=0, characters=800)
    reason = "the most similar is past/mail with similarity 0.34, less than 0.5 (of 1)"
    assert find("auto", far).notes == (f"no earlier sweep is used for tweets: {reason}",)


def test_warm_start_auto_uses_a_few_most_similar_sweeps(server: Server, find: Find) -> None:
    for number in reversed(range(MAX_SWEEPS + 2)):
        server.record(sweep_events(f"past-{number}", TRIALS, rows=6000 * (number + 1)))
    assert [origin.sweep for origin in find("auto").origins] == [f"past-{number}" for number in range(MAX_SWEEPS)]


def test_warm_start_auto_survives_unreachable_server(server: Server, find: Find) -> None:
    assert find("auto").notes == ("no earlier sweep is used for tweets: there is none",)
    server.away = True
    assert find("auto").notes == ("no earlier sweeps were looked for: MLflow at http://here: is away",)
    with pytest.raises(SweepError, match="is away"):  # only the server could know such a sweep
        find(["past"])


def test_warm_start_ignores_journal_without_sweep_event(find: Find, tmp_path: Path) -> None:
    write_journal(tmp_path, [{"event": "close", "sweep": "past", "reason": "failed"}])
    assert find(["past"]).notes == ("no earlier sweep is used for tweets: there is none",)


def test_warm_start_of_resumed_sweep_comes_from_its_journal(server: Server, find: Find, tmp_path: Path) -> None:
    server.record(sweep_events("past", TRIALS))
    prior = find("auto")
    file = write_journal(tmp_path, sweep_events("now", {})) / "journal.jsonl"
    assert Prior.of_events(Journal.read(file)) is None
    Journal(file).append(EVENT, **prior.fields())
    assert Prior.of_events(Journal.read(file)) == prior
    assert json.loads(json.dumps(prior.fields())) == prior.fields()


def test_warm_start_event_of_0_1_is_still_read(server: Server, find: Find, tmp_path: Path) -> None:
    server.record(sweep_events("past", TRIALS))
    prior = find("auto")
    fields = json.loads(json.dumps(prior.fields()).replace('"rank": 0.75', '"standing": 0.75'))
    assert fields != prior.fields()
    file = write_journal(tmp_path, sweep_events("now", {})) / "journal.jsonl"
    Journal(file).append(EVENT, **fields)
    assert Prior.of_events(Journal.read(file)) == prior
