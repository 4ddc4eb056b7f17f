"""The registry on a real MLflow database: the gate, its race, and what a user asks for."""

import json
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE

from orchestrator.errors import InputError, SweepError
from orchestrator.tracking import connection, registry
from orchestrator.tracking.bundle import BUNDLE, Bundle
from orchestrator.tracking.connection import open_client, patiently
from orchestrator.tracking.registry import CHAMPION, Registered, give_alias, list_models, register, show_model
from orchestrator.tracking.verify import verify

from .conftest import MakeBundle
from .small import Made


@pytest.fixture(scope="session")
def made(make_bundle: MakeBundle) -> Made:
    return make_bundle()


@pytest.fixture
def run_id(uri: str, tmp_path: Path) -> str:
    client = open_client(uri)
    return str(client.create_run(client.create_experiment("mail", str(tmp_path / "mlruns"))).info.run_id)


def version(uri: str, bundle: Bundle) -> Registered:
    """A version without files: the gate reads tags alone."""
    client = open_client(uri)
    registry._create_name(client, bundle)
    made = client.create_model_version("mail", "file:///nowhere", None, registry._tags(bundle))
    return Registered("mail", int(made.version), give_alias(client, "mail", int(made.version)))


def scored(made: Made, score: float, trial: int = 0) -> Bundle:
    return made.bundle.model_copy(update={"score": score, "trial": f"mail/lora/{trial}"})


def aliases(uri: str) -> dict[str, int]:
    return registry._aliases(open_client(uri), "mail")


def test_the_champion_is_who_was_better_on_the_same_data(made: Made, uri: str) -> None:
    assert version(uri, scored(made, 0.5)) == Registered("mail", 1, "champion")
    assert version(uri, scored(made, 0.4, 1)) == Registered("mail", 2, "challenger")
    assert aliases(uri) == {"champion": 1, "challenger": 2}
    assert version(uri, scored(made, 0.6, 2)) == Registered("mail", 3, "champion")
    other = scored(made, 0.9, 3).model_copy(update={"data_digest": "e" * 64})
    assert version(uri, other).alias == "challenger"
    assert aliases(uri) == {"champion": 3, "challenger": 4}


def test_a_version_registered_meanwhile_is_seen(made: Made, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another sweep registers a better one between our reading of the versions and our setting of the alias."""
    client = open_client(uri)
    setting, others = client.set_registered_model_alias, [scored(made, 0.9, 9)]

    def slow(*args: str) -> None:
        if others:
            assert version(uri, others.pop()).alias == "champion"
        setting(*args)

    registry._create_name(client, made.bundle)
    client.create_model_version("mail", "file:///nowhere", None, registry._tags(scored(made, 0.5)))
    monkeypatch.setattr(client, "set_registered_model_alias", slow)
    assert give_alias(client, "mail", 1) == "challenger"
    assert aliases(uri)["champion"] == 2


def test_many_at_once_agree_on_the_best(made: Made, uri: str) -> None:
    start, scores = threading.Barrier(4), [0.3, 0.9, 0.5, 0.7]

    def one(trial: int) -> None:
        start.wait(30)
        patiently(lambda: version(uri, scored(made, scores[trial], trial)))

    threads = [threading.Thread(target=one, args=(trial,)) for trial in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    found = {model["version"]: float(model["tags"]["score"]) for model in list_models(uri)}
    assert sorted(found.values()) == sorted(scores)
    assert found[aliases(uri)["champion"]] == 0.9


def test_a_reference_names_a_version(made: Made, uri: str) -> None:
    version(uri, scored(made, 0.5))
    version(uri, scored(made, 0.4, 1))
    assert [show_model(name, uri)["version"] for name in ("mail", "mail@champion", "mail/2", "mail@challenger")] == [
        1, 1, 2, 2,
    ]  # fmt: skip
    assert Registered("mail", 3, CHAMPION).reference == "mail@champion"
    assert Registered("mail", 3, "challenger").reference == "mail/3"


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("mial@champion", "no model of that name; did you mean mail?"),
        ("letters@champion", "no model of that name; known: mail"),
        ("mail@boss", "no such version; known: mail@champion, mail/1"),
        ("mail/7", "no such version; known: mail@champion, mail/1"),
    ],
)
def test_a_wrong_reference_is_told_what_there_is(made: Made, uri: str, reference: str, message: str) -> None:
    version(uri, scored(made, 0.5))
    with pytest.raises(InputError, match=message.replace("?", r"\?")):
        show_model(reference, uri)


def test_looking_makes_no_database(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'none.db'}"
    assert list_models(uri) == []
    with pytest.raises(InputError, match="nothing is registered yet"):
        show_model("mail", uri)
    assert not list(tmp_path.iterdir())


def test_models_of_other_programs_are_not_listed(made: Made, uri: str) -> None:
    client = open_client(uri)
    client.create_registered_model("theirs")
    client.create_model_version("theirs", "file:///nowhere")
    version(uri, scored(made, 0.5))
    assert [model["name"] for model in list_models(uri)] == ["mail"]


def test_trying_goes_on_while_the_server_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(connection.time, "sleep", slept.append)
    answers: list[Any] = [MlflowException("away", TEMPORARILY_UNAVAILABLE), ConnectionError("away"), "done"]

    def step() -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    assert patiently(step) == "done"
    assert slept == [2, 2]
    answers.append(ConnectionError("sqlite://user:secret@host is away"))
    with pytest.raises(SweepError, match=r"MLflow: .* is away") as error:
        patiently(step, seconds=0)
    assert "secret" not in str(error.value)


@pytest.fixture
def registered(
    made: Made, uri: str, run_id: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Registered:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.chdir(elsewhere)
    found = register(made.folder, run_id=run_id, tracking_uri=uri)
    assert not list(elsewhere.iterdir())  # no other database, no files that nobody asked for
    return found


@pytest.mark.slow
def test_a_registered_model_predicts_in_a_fresh_process(
    registered: Registered, made: Made, uri: str, tmp_path: Path
) -> None:
    assert registered == Registered("mail", 1, "champion")
    program = """
import json, mlflow, pandas as pd, sys
model = mlflow.pyfunc.load_model("models:/mail@champion")
frame = model.predict(pd.DataFrame({"text": json.loads(sys.argv[1])}))
print(json.dumps(frame.to_dict("list")))
"""
    answer = subprocess.run(
        [sys.executable, "-c", program, json.dumps(made.texts)],
        env={"MLFLOW_TRACKING_URI": uri, "PATH": "", "HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    frame = pd.DataFrame(json.loads(answer.stdout.splitlines()[-1]))
    assert list(frame) == ["label", *(f"probability_{label}" for label in made.bundle.labels)]
    from pyarrow import parquet

    recorded = np.array(parquet.read_table(made.folder / "evaluation/test.parquet")["probabilities"].to_pylist())
    np.testing.assert_allclose(frame.iloc[:, 1:].to_numpy(), recorded, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_registering_twice_changes_nothing(registered: Registered, made: Made, uri: str, run_id: str) -> None:
    assert register(made.folder, run_id=run_id, tracking_uri=uri) == registered
    (model,) = list_models(uri)
    assert model["aliases"] == ["champion"]
    assert model["tags"]["backbone_checksum"] == made.bundle.backbone.checksum
    assert float(model["tags"]["score"]) == made.bundle.score
    shown = show_model("mail@champion", uri)
    assert shown["description"].startswith("# mail")
    assert shown["run_id"] == run_id


@pytest.mark.slow
def test_an_upload_that_broke_off_is_completed(
    made: Made, uri: str, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection.time, "sleep", lambda _: None)
    client = open_client(uri)
    upload, broken = client.log_model_artifacts, [True]

    def break_off(*args: str) -> None:
        if broken:
            broken.pop()
            raise ConnectionError("broken off")
        upload(*args)

    monkeypatch.setattr(client, "log_model_artifacts", break_off)
    monkeypatch.setattr(registry, "open_client", lambda *_: client)
    assert register(made.folder, run_id=run_id, tracking_uri=uri).version == 1
    experiment = client.get_run(run_id).info.experiment_id
    assert len(client.search_logged_models([experiment])) == 1


@pytest.mark.slow
def test_what_is_registered_needs_no_pickle_and_pins_what_it_needs(registered: Registered, uri: str) -> None:
    folder = Path(open_client(uri).get_model_version_download_uri("mail", "1"))
    names = {file.name for file in folder.rglob("*") if file.is_file()}
    assert not {name for name in names if name.endswith((".pkl", ".pickle", ".bin", ".pt"))}
    pins = (folder / "requirements.txt").read_text().split()
    assert all("==" in pin and "+" not in pin for pin in pins)
    assert {"torch", "peft", "transformers"} <= {pin.partition("==")[0] for pin in pins}
    assert (folder / "code" / "methods" / "lora.py").exists()


@pytest.mark.slow
def test_verification_finds_what_was_recorded_and_what_was_not(registered: Registered, made: Made, uri: str) -> None:
    found = verify(registered.reference, uri)
    assert (found.ok, found.rows, found.version) == (True, 30, 1)
    assert found.largest_difference <= 1e-9
    assert found.score_now == pytest.approx(made.bundle.score)
    assert found.to_dict()["ok"] is True
    bundle = Path(next(iter(Path(uri.removeprefix("sqlite:///")).parent.rglob(BUNDLE))))
    values = json.loads(bundle.read_text())
    values["score"] += 0.1
    values["environment"]["torch"] = "1.0"
    bundle.write_text(json.dumps(values))
    wrong = verify("mail", uri)
    assert not wrong.ok
    assert any(note.startswith("torch: ") for note in wrong.notes)
    assert not replace(found, largest_difference=2e-6).ok
    assert not replace(found, largest_difference=float("nan")).ok
