"""The registry on a real MLflow database: the gate, its race, and what a user asks for."""

import json
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST, TEMPORARILY_UNAVAILABLE

from orchestrator.common.errors import InputError, SweepError
from orchestrator.tracking import packaging, registry
from orchestrator.tracking.aliases import apply_promotion_policy, promote, rollback
from orchestrator.tracking.browse import compare_models, list_models, show_model
from orchestrator.tracking.bundle import BUNDLE, Bundle, BundleSelection
from orchestrator.tracking.connection import open_client, retry_while_away
from orchestrator.tracking.promotion import promote_model
from orchestrator.tracking.registry import Registered, register
from orchestrator.tracking.verify import verify
from orchestrator.tracking.versions import CHAMPION, tags_of
from orchestrator.tracking.versions import aliases as held

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
    number = int(client.create_model_version("mail", "file:///nowhere", None, tags_of(bundle)).version)
    titles = apply_promotion_policy(client, "mail")
    assert titles
    return Registered("mail", number, "champion" if titles.champion == number else "challenger")


def scored(made: Made, score: float, trial: int = 0, half: float = 0.03) -> Bundle:
    scores = {"mean_score": score, "checkpoint_score": score, "interval": (score - half, score + half)}
    return made.bundle.model_copy(update={**scores, "trial": f"mail/lora/{trial}", "sweep": f"mail-{trial}"})


def aliases(uri: str) -> dict[str, int]:
    return held(open_client(uri), "mail")


def test_registry_champion_is_significantly_better_on_the_same_data(made: Made, uri: str) -> None:
    assert version(uri, scored(made, 0.5)) == Registered("mail", 1, "champion")
    assert version(uri, scored(made, 0.4, 1)) == Registered("mail", 2, "challenger")
    assert aliases(uri) == {"champion": 1, "challenger": 2}
    assert version(uri, scored(made, 0.6, 2)) == Registered("mail", 3, "champion")
    assert version(uri, scored(made, 0.63, 3)).alias == "challenger"  # as good, as far as these intervals can tell
    other = scored(made, 0.9, 4).model_copy(update={"data_digest": "e" * 64})
    assert version(uri, other).alias == "challenger"
    assert aliases(uri) == {"champion": 3, "challenger": 5}


def test_registry_promote_overrules_the_policy_and_rolls_back(made: Made, uri: str) -> None:
    client = open_client(uri)
    for trial, score in enumerate((0.5, 0.4, 0.3)):
        version(uri, scored(made, score, trial))
    assert promote(client, "mail", 2).champion == 2
    assert promote(client, "mail", 3).champion == 3
    assert aliases(uri) == {"champion": 3, "challenger": 2}
    again = promote(client, "mail", 3)  # changes nothing
    assert (again.champion, again.previous) == (3, 2)
    assert version(uri, scored(made, 0.34, 3)).alias == "challenger"
    assert version(uri, scored(made, 0.45, 4)).alias == "champion"  # it has to beat who was promoted, and does
    for before, after in ((5, 3), (3, 2), (2, 1)):
        was, titles = rollback(client, "mail")
        assert (was, titles.champion) == (before, after) == (before, aliases(uri)["champion"])
    with pytest.raises(InputError, match="no other version was champion before"):
        rollback(client, "mail")


def test_registry_tags_hold_mean_and_checkpoint_score(made: Made, uri: str) -> None:
    chosen = BundleSelection(
        recommended="lora", reason="It is the smallest.", tied=("lora", "ia3"), runner_up="ia3",
        runner_up_reason="It is larger.", probability={"lora": 0.84, "ia3": 0.16},
    )  # fmt: skip
    scores = {"mean_score": 0.7, "seed_scores": (0.6, 0.7, 0.8), "interval": (0.6, 0.8)}
    bundle = scored(made, 0.8).model_copy(update={"selection": chosen, **scores})
    version(uri, bundle)
    version(uri, bundle.model_copy(update={"trial": "mail/ia3/0", "method": "ia3"}))
    tags, tied = (show_model(name, uri)["tags"] for name in ("mail/1", "mail/2"))
    assert (tags["mean_score"], tags["checkpoint_score"]) == ("0.7", "0.8")
    assert (tags["probability"], tied["probability"]) == ("0.84", "0.16")
    assert (tags["role"], tied["role"]) == ("recommended", "tied")
    assert (tags["runner_up"], tags["runner_up_reason"], tags["tied"]) == ("ia3", "It is larger.", "lora, ia3")


def test_registry_tags_lose_no_digit(made: Made) -> None:
    measurements = {"trainable_parameters": 480_771.0, "adapter_bytes": 1_940_409.0, "latency_overhead_1": 1 / 7}
    bundle = made.bundle.model_copy(
        update={"mean_score": 1 / 3, "interval": (0.1 + 0.2, 2 / 3), "measurements": measurements}
    )
    tags = tags_of(bundle)
    assert (tags["trainable_parameters"], tags["adapter_bytes"]) == ("480771", "1940409")
    names = ("mean_score", "interval_low", "interval_high", "latency_overhead_1")
    assert [float(tags[name]) for name in names] == [1 / 3, 0.1 + 0.2, 2 / 3, 1 / 7]


def test_compare_models_by_recorded_scores(made: Made, uri: str) -> None:
    version(uri, scored(made, 0.5))
    version(uri, scored(made, 0.6, 1))
    version(uri, scored(made, 0.61, 2).model_copy(update={"data_digest": "e" * 64}))
    found = compare_models("mail/1", "mail/2", uri)
    assert found["lead"]["difference"] == pytest.approx(-0.1)
    assert found["lead"]["high"] == pytest.approx(-0.1 + 0.03 * 2**0.5)
    assert found["better"] == "second"
    assert found["reason"] == ("mail/2 is better than mail/1 by 0.100 [0.058, 0.142] macro-F1 (95 % interval).")
    same = compare_models("mail/2", "mail/2", uri)
    assert (same["better"], same["reason"].partition(":")[0]) == (None, "Not significant")
    other = compare_models("mail/2", "mail/3", uri)
    assert (other["better"], other["lead"]) == (None, None)
    assert "different data" in other["reason"]


def test_compare_models_says_the_level_of_extended_sweeps(made: Made, uri: str) -> None:
    chosen = BundleSelection(recommended="lora", reason="r", tied=("lora",), runner_up="", runner_up_reason="")
    extended = {"selection": chosen.model_copy(update={"look": 2})}
    for number, changes in enumerate(({}, extended, extended)):
        version(uri, scored(made, 0.5 + number / 10, number).model_copy(update=changes))
    first, later = compare_models("mail/1", "mail/2", uri), compare_models("mail/2", "mail/3", uri)
    assert first["reason"].endswith("macro-F1 (at least 95 % interval).")
    assert (first["lead"]["level"], first["lead"]["at_least"]) == (0.95, True)
    assert later["reason"].endswith("macro-F1 (97.5 % interval).")
    assert (later["lead"]["level"], later["lead"]["at_least"]) == (0.975, False)
    assert promote_model("mail/1", uri, force=True)["comparison"].startswith("mail/1 has 0.500")
    close = scored(made, 0.51, 4).model_copy(update=extended)
    version(uri, close)
    comparison = promote_model("mail/4", uri)["comparison"]
    assert comparison.endswith("which is not significant at a level of at least 95 %")


def test_registry_sees_a_version_registered_meanwhile(made: Made, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another sweep registers a better one between our reading of the versions and our setting of the alias."""
    client = open_client(uri)
    setting, others = client.set_registered_model_alias, [scored(made, 0.9, 9)]

    def slow(*args: str) -> None:
        if others:
            assert version(uri, others.pop()).alias == "champion"
        setting(*args)

    registry._create_name(client, made.bundle)
    client.create_model_version("mail", "file:///nowhere", None, tags_of(scored(made, 0.5)))
    monkeypatch.setattr(client, "set_registered_model_alias", slow)
    titles = apply_promotion_policy(client, "mail")
    assert titles
    assert (titles.champion, titles.challenger) == (2, 1)
    assert aliases(uri) == {"champion": 2, "challenger": 1}


def test_registry_agrees_on_the_champion_of_concurrent_sweeps(made: Made, uri: str) -> None:
    start, scores = threading.Barrier(4), [0.3, 0.9, 0.5, 0.7]

    def one(trial: int) -> None:
        start.wait(30)
        retry_while_away(lambda: version(uri, scored(made, scores[trial], trial)))

    threads = [threading.Thread(target=one, args=(trial,)) for trial in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    found = {model["version"]: float(model["tags"]["mean_score"]) for model in list_models(uri)}
    assert sorted(found.values()) == sorted(scores)
    assert found[aliases(uri)["champion"]] == 0.9


def test_model_reference_names_a_version(made: Made, uri: str) -> None:
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
def test_unknown_model_reference_lists_known_ones(made: Made, uri: str, reference: str, message: str) -> None:
    version(uri, scored(made, 0.5))
    with pytest.raises(InputError, match=message.replace("?", r"\?")):
        show_model(reference, uri)


def test_reading_the_registry_creates_no_database(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'none.db'}"
    assert list_models(uri) == []
    with pytest.raises(InputError, match=r"nothing is registered in sqlite:///.* yet"):
        show_model("mail", uri)
    assert not list(tmp_path.iterdir())


def test_list_models_leaves_out_other_programs(made: Made, uri: str) -> None:
    client = open_client(uri)
    client.create_registered_model("theirs")
    client.create_model_version("theirs", "file:///nowhere")
    version(uri, scored(made, 0.5))
    assert [model["name"] for model in list_models(uri)] == ["mail"]


def test_requests_are_retried_while_the_server_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    answers: list[Any] = [MlflowException("away", TEMPORARILY_UNAVAILABLE), ConnectionError("away"), "done"]

    def step() -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    assert retry_while_away(step) == "done"
    assert slept == [2, 2]
    answers.append(ConnectionError("sqlite://user:secret@host is away"))
    with pytest.raises(SweepError, match=r"MLflow: .* is away") as error:
        retry_while_away(step, seconds=0)
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
def test_registered_model_predicts_in_a_fresh_process(
    registered: Registered, made: Made, uri: str, tmp_path: Path
) -> None:
    assert registered == Registered("mail", 1, "champion")
    program = """
import json, mlflow, pandas as pd, sys
model = mlflow.pyfunc.load_model("models:/mail@champion")
frame = model.predict(pd.DataFrame(json.loads(sys.argv[1])))
print(json.dumps(frame.to_dict("list")))
"""
    answer = subprocess.run(
        [sys.executable, "-c", program, json.dumps(made.inputs)],
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
def test_register_twice_changes_nothing(registered: Registered, made: Made, uri: str, run_id: str) -> None:
    assert register(made.folder, run_id=run_id, tracking_uri=uri) == registered
    (model,) = list_models(uri)
    assert model["aliases"] == ["champion"]
    assert model["tags"]["backbone_checksum"] == made.bundle.backbone.checksum
    assert float(model["tags"]["mean_score"]) == made.bundle.mean_score
    shown = show_model("mail@champion", uri)
    assert shown["description"].startswith("Assigns one of 3 labels"), "without the title, which is the name"
    assert shown["run_id"] == run_id


def test_register_leaves_the_aliases_of_others_alone(made: Made, uri: str, run_id: str) -> None:
    client = open_client(uri)
    client.create_registered_model("mail")
    number = client.create_model_version("mail", "file:///theirs").version
    client.set_registered_model_alias("mail", CHAMPION, number)
    with pytest.raises(SweepError, match="belongs to others: its alias champion is on version 1, which no sweep has"):
        register(made.folder, run_id=run_id, tracking_uri=uri)
    assert held(client, "mail") == {CHAMPION: 1}
    assert len(client.search_model_versions("name = 'mail'")) == 1


def test_register_tries_to_package_a_refused_bundle_once(
    made: Made, uri: str, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise MlflowException("no module named 'lost'")

    monkeypatch.setattr(packaging, "save_pyfunc", refuse)
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("tried again"))
    with pytest.raises(SweepError, match="the model could not be packaged: no module named 'lost'"):
        register(made.folder, run_id=run_id, tracking_uri=uri)


@pytest.mark.slow
@pytest.mark.parametrize(("request_name", "is_answer_lost"), [("log_model_artifacts", False), ("log_outputs", True)])
def test_register_completes_an_interrupted_upload(
    made: Made, uri: str, run_id: str, monkeypatch: pytest.MonkeyPatch, request_name: str, is_answer_lost: bool
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    client = open_client(uri)
    send, broken = getattr(client, request_name), [True]

    def break_off(*args: Any) -> None:
        is_broken = broken.pop() if broken else False
        if not is_broken or is_answer_lost:
            send(*args)
        if is_broken:
            raise ConnectionError("broken off")

    monkeypatch.setattr(client, request_name, break_off)
    monkeypatch.setattr(registry, "open_client", lambda *_: client)
    assert register(made.folder, run_id=run_id, tracking_uri=uri).version == 1
    experiment = client.get_run(run_id).info.experiment_id
    (model,) = client.search_logged_models([experiment])
    outputs = client.get_run(run_id).outputs
    assert outputs is not None
    assert [output.model_id for output in outputs.model_outputs] == [model.model_id]


@pytest.mark.slow
def test_registered_model_has_no_pickle_and_pinned_requirements(registered: Registered, uri: str) -> None:
    folder = Path(open_client(uri).get_model_version_download_uri("mail", "1"))
    names = {file.name for file in folder.rglob("*") if file.is_file()}
    assert not {name for name in names if name.endswith((".pkl", ".pickle", ".bin", ".pt"))}
    pins = (folder / "requirements.txt").read_text().split()
    assert all("==" in pin and "+" not in pin for pin in pins)
    assert {"torch", "peft", "transformers"} <= {pin.partition("==")[0] for pin in pins}
    assert (folder / "code" / "methods" / "lora.py").exists()


@pytest.mark.slow
def test_verify_finds_equal_and_changed_predictions(registered: Registered, made: Made, uri: str) -> None:
    found = verify(registered.reference, uri)
    assert (found.ok, found.rows, found.version) == (True, 30, 1)
    assert found.largest_difference <= 1e-9
    assert found.score_now == pytest.approx(made.bundle.checkpoint_score)
    assert found.to_dict()["ok"] is True
    bundle = Path(next(iter(Path(uri.removeprefix("sqlite:///")).parent.rglob(BUNDLE))))
    values = json.loads(bundle.read_text())
    values["checkpoint_score"] += 0.1
    values["environment"]["torch"] = "1.0"
    bundle.write_text(json.dumps(values))
    wrong = verify("mail", uri)
    assert not wrong.ok
    assert any(note.startswith("torch: ") for note in wrong.notes)
    assert not replace(found, largest_difference=2e-6).ok
    assert not replace(found, largest_difference=float("nan")).ok


def test_registry_reads_again_after_a_refused_alias(made: Made, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both find no alias and both insert it: the database refuses the second."""
    client, refused = open_client(uri), [True]
    setting = client.set_registered_model_alias

    def refuse(*args: str) -> None:
        if refused:
            refused.pop()
            raise MlflowException("UNIQUE constraint failed", BAD_REQUEST)
        setting(*args)

    registry._create_name(client, made.bundle)
    client.create_model_version("mail", "file:///nowhere", None, tags_of(scored(made, 0.5)))
    monkeypatch.setattr(client, "set_registered_model_alias", refuse)
    titles = apply_promotion_policy(client, "mail")
    assert titles
    assert (titles.champion, aliases(uri)) == (1, {"champion": 1})

    def always(*args: str) -> None:
        raise MlflowException("not allowed here", BAD_REQUEST)

    monkeypatch.setattr(client, "set_registered_model_alias", always)
    client.create_model_version("mail", "file:///nowhere", None, tags_of(scored(made, 0.9, 1)))
    with pytest.raises(MlflowException, match="not allowed here"):
        apply_promotion_policy(client, "mail")


def test_registry_registers_what_is_no_better_than_the_baseline_without_alias(
    made: Made, uri: str, run_id: str, tmp_path: Path
) -> None:
    trivial = {"name": "always answering negative", "score": 0.276, "interval": [0.27, 0.28]}
    shutil.copytree(made.folder, tmp_path / "bundle")
    file = tmp_path / "bundle" / BUNDLE
    values = {**json.loads(file.read_text()), "trivial": {**trivial, "lead": 0.02, "lead_low": -0.01}}
    file.write_text(json.dumps({**values, "collapsed_seeds": 2}))
    registered = register(tmp_path / "bundle", run_id=run_id, tracking_uri=uri)
    assert registered == Registered("mail", 1, "")
    assert registered.reference == "mail/1"
    assert aliases(uri) == {}
    tags = show_model("mail/1", uri)["tags"]
    assert (tags["state"], tags["baseline"]) == ("no_better_than_baseline", "always answering negative")
    assert (float(tags["baseline_score"]), tags["collapsed_seeds"]) == (0.276, "2")
    assert version(uri, scored(made, 0.1, 1)) == Registered("mail", 2, "champion"), "it has nothing to beat"
    assert promote(open_client(uri), "mail", 1).champion == 1, "a user may"
