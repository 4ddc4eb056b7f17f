"""The commands of the registry on a real MLflow database: what they print, and with which exit code."""

import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from pyarrow import parquet

from orchestrator import cli
from orchestrator.tracking.aliases import apply_promotion_policy
from orchestrator.tracking.bundle import EVALUATION
from orchestrator.tracking.connection import open_client
from orchestrator.tracking.registry import register
from orchestrator.tracking.versions import tags_of

from .conftest import MakeBundle
from .small import Made

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def made(make_bundle: MakeBundle) -> Made:
    return make_bundle()


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, uri: str) -> Command:
    """Runs ``peft-sweep`` in the database's folder; exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("PEFT_SWEEP_CACHE", str(tmp_path / "cache"))

    def run(*arguments: str, rows: bytes = b"") -> tuple[int, str, str]:
        # Named in full: MLflow keeps the connections of a URI, so a relative one would stay in the first test's folder.
        place = [] if "--tracking-uri" in arguments else ["--tracking-uri", uri]
        monkeypatch.setattr(sys, "argv", ["peft-sweep", *arguments, *place])
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(rows), isatty=lambda: not rows))
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), *capfd.readouterr()

    return run


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.fixture
def three(made: Made, uri: str) -> None:
    """Versions without files; the second is better than the first, the third is as good as the second."""
    client = open_client(uri)
    client.create_registered_model("mail")
    for number, score in enumerate((0.5, 0.6, 0.61)):
        scores = {"mean_score": score, "checkpoint_score": score, "interval": (score - 0.03, score + 0.03)}
        bundle = made.bundle.model_copy(
            update={
                **scores,
                "sweep": f"mail-{number}",
                "measurements": {"adapter_bytes": 2.4e6, "nothing": float("nan")},
            }
        )
        client.create_model_version("mail", "file:///nowhere", None, tags_of(bundle), description="# mail")
    apply_promotion_policy(client, "mail")


@pytest.mark.usefixtures("three")
def test_models_list_is_newest_first(command: Command) -> None:
    code, out, _ = command("models", "list")
    assert code == 0
    _, third, second, first, following = out.splitlines()
    assert third.split() == ["mail", "3", "challenger", "lora", "0.610", "[0.580,", "0.640]", "2.4", "MB"]
    assert second.split()[:3] == ["mail", "2", "champion"]
    assert first.split()[:3] == ["mail", "1", "lora"]
    assert following == "next: peft-sweep models show mail/3"
    assert max(map(len, out.splitlines())) <= 80
    found = json.loads(command("models", "list", "--json")[1])
    assert [(one["version"], one["aliases"]) for one in found] == [(3, ["challenger"]), (2, ["champion"]), (1, [])]
    assert "nothing" not in found[0]["tags"]


@pytest.mark.usefixtures("three")
def test_models_promote_and_rollback(command: Command) -> None:
    assert command("models", "promote", "mail/3")[:2] == (
        0,
        "mail: version 3 is the champion (before: version 2)\n"
        "  mail/3 has 0.610 [0.580, 0.640] and mail/2 has 0.600 [0.570, 0.630]: it is better than the champion by 0.010"
        " macro-F1, which is not significant at a level of 95 %\n"
        "to return to version 2: peft-sweep models rollback mail\n",
    )
    assert json.loads(command("models", "show", "mail@champion", "--json")[1])["version"] == 3
    assert command("models", "promote", "mail/3")[1].startswith("mail: version 3 is the champion already\n")
    found = json.loads(command("models", "rollback", "mail", "--json")[1])
    assert found == {"name": "mail", "was": 3, "champion": 2, "challenger": 3, "before": 1}
    assert command("models", "rollback", "mail")[1].splitlines()[0].startswith("mail: version 1 is the champion")
    code, _, err = command("models", "rollback", "mail")
    assert (code, err.splitlines()) == (
        2,
        [
            "mail: no other version was champion before this one",
            "promote another version: peft-sweep models promote mail/VERSION",
        ],
    )


@pytest.mark.usefixtures("three")
def test_models_promote_of_a_worse_version_needs_force(command: Command) -> None:
    code, _, err = command("models", "promote", "mail/1")
    assert code == 2
    assert err.splitlines() == [
        "mail/1: mail/1 has 0.500 [0.470, 0.530] and mail/2 has 0.600 [0.570, 0.630]: it is worse than the champion by"
        " 0.100 macro-F1",
        "to promote it all the same: peft-sweep models promote mail/1 --force",
    ]
    assert json.loads(command("models", "show", "mail@champion", "--json")[1])["version"] == 2
    assert command("models", "promote", "mail/1", "--force")[0] == 0
    assert json.loads(command("models", "show", "mail@champion", "--json")[1])["version"] == 1


@pytest.mark.usefixtures("three")
def test_models_compare(command: Command) -> None:
    code, out, _ = command("models", "compare", "mail/1", "mail/2")
    assert code == 0
    assert out.splitlines()[0].split() == ["mail/1", "mail/2"]
    assert "mail/2 is better than mail/1 by 0.100 [0.058, 0.142] macro-F1 (95 % interval)." in out
    assert max(map(len, out.splitlines())) <= 80
    assert json.loads(command("models", "compare", "mail/3", "mail@champion", "--json")[1])["better"] is None


@pytest.mark.usefixtures("three")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["promote", "mial/1"], "mial/1: there is no model of that name; did you mean mail?"),
        (["promote", "mail/9"], "mail/9: there is no such version; known: mail@challenger, mail@champion, "),
        (["rollback", "mial"], "mial: there is no model of that name; did you mean mail?"),
        (["rollback", "mail@champion"], "models rollback: mail@champion: is a version; write the model's name alone"),
        (["compare", "mail/1", "mial"], "mial: there is no model of that name; did you mean mail?"),
        (["pull", "s/mail/lora/0"], "models pull: s/mail/lora/0: is a trial; write NAME@champion or NAME/3, or: "),
        (["pull", "mial"], "mial: there is no model of that name; did you mean mail?"),
    ],
)
def test_models_commands_refuse_unknown_references_in_one_line(
    command: Command, arguments: list[str], message: str
) -> None:
    code, out, err = command("models", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(message)
    assert len(err.splitlines()) == 1


def test_models_commands_report_an_unreachable_registry_in_one_line(command: Command) -> None:
    for arguments in (["list"], ["show", "mail"], ["promote", "mail/1"]):
        code, out, err = command("models", *arguments, "--tracking-uri", "http://someone:secret@127.0.0.1:9")
        assert (code, out) == (1, "")
        assert err.startswith("peft-sweep: MLflow at http://")
        assert "secret" not in err
        assert len(err.splitlines()) == 1


@pytest.fixture
def registered(made: Made, uri: str, tmp_path: Path) -> None:
    client = open_client(uri)
    run = client.create_run(client.create_experiment("mail", str(tmp_path / "mlruns"))).info.run_id
    register(made.folder, run_id=run, tracking_uri=uri)


@pytest.mark.slow
@pytest.mark.usefixtures("registered")
def test_predict_command_reproduces_recorded_predictions(command: Command, made: Made, tmp_path: Path) -> None:
    rows = "".join(json.dumps({"id": n, **row}) + "\n" for n, row in enumerate(made.inputs)).encode()
    code, out, err = command("predict", "mail", rows=rows)
    assert code == 0, err
    found = [json.loads(line) for line in out.splitlines()]
    assert [row["id"] for row in found] == list(range(len(made.inputs)))
    recorded = parquet.read_table(made.folder / EVALUATION)["probabilities"].to_pylist()
    now = [[row["probabilities"][label] for label in made.bundle.labels] for row in found]
    np.testing.assert_allclose(now, recorded, rtol=0, atol=1e-6)
    assert all(row["label"] == max(row["probabilities"], key=row["probabilities"].get) for row in found)
    assert err.startswith(f"mail version 1 (lora): {len(found)} rows, ")
    assert len(err.splitlines()) == 1

    assert command("predict", "mail", "--out", "answers.jsonl", rows=rows)[:2] == (0, "")
    assert (tmp_path / "answers.jsonl").read_text() == out
    assert (tmp_path / "answers.jsonl").stat().st_mode & 0o777 == 0o666 & ~umask()
    before = sorted(tmp_path.iterdir())
    code, _, err = command("predict", "mail", "--out", "answers.jsonl", rows=rows + b"{}\n")
    assert (code, err.splitlines()[0]) == (2, "standard input: line 31: has no text; it has: none")
    assert (tmp_path / "answers.jsonl").read_text() == out  # as it was
    assert sorted(tmp_path.iterdir()) == before
    assert command("predict", "mail", "--out", "no/where.jsonl", rows=rows)[0] == 2
    code, _, err = command("predict", "mail")
    assert (code, err) == (2, "standard input: has no rows; write peft-sweep predict mail < rows.jsonl\n")


@pytest.mark.slow
@pytest.mark.usefixtures("registered")
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated")  # peft's own use of transformers 5
def test_models_pull_gives_a_folder_that_peft_loads(command: Command, made: Made, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    code, out, err = command("models", "pull", "mail@champion")
    assert code == 0, err
    assert 'with peft    peft.PeftModel.from_pretrained(model, "mail-1")' in out
    model = AutoModelForSequenceClassification.from_pretrained(made.checkpoint, num_labels=3)
    loaded = PeftModel.from_pretrained(model, tmp_path / "mail-1")
    assert loaded.peft_config["default"].peft_type == "LORA"
    code, _, err = command("models", "pull", "mail@champion")
    assert code == 2
    assert "mail-1" in err
