"""What a card and MLflow show of a model's errors, and a version's page within MLflow's limits."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.tasks import TASK_TYPES
from orchestrator.tracking.connection import open_client
from orchestrator.tracking.error_tables import CARD_CLASSES, WORST_ROWS, ErrorTables
from orchestrator.tracking.evaluation import digests
from orchestrator.tracking.registry import register
from orchestrator.tracking.version_page import MAX_DESCRIPTION, REST, description

from .conftest import MakeBundle

LABELS = ("bad|worse", "fine", "good")


def tables(labels: tuple[str, ...], rows: int = 50) -> tuple[ErrorTables, pa.Table, NDArray[np.float64]]:
    draw = np.random.default_rng(0)
    values = draw.dirichlet(np.ones(len(labels)), rows)
    label = pa.array(draw.integers(0, len(labels), rows).astype(np.int32))
    table = pa.table({"row": np.arange(1, rows + 1), "text": [f"text {row}" for row in range(rows)], "label": label})
    column = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), len(labels))
    predictions = table.select(["row", "label"]).append_column("probabilities", column)
    type_ = TASK_TYPES["classification"].configured(("macro_f1",), 8, None, labels)
    return ErrorTables.of(type_, table, predictions), table, 1 - values[np.arange(rows), label.to_numpy()]


def test_worst_rows_are_named_by_digest_without_their_values() -> None:
    errors, table, missing = tables(LABELS)
    worst = int(missing.argmax())
    assert errors.worst[0] == (worst + 1, digests(table)[worst], missing[worst])
    assert len(errors.worst) == WORST_ROWS
    everything = errors.markdown() + "".join(errors.files().values())
    assert not [text for text in table["text"].to_pylist() if f'"{text}"' in everything]


def test_card_shows_classes_and_confusion_matrix() -> None:
    errors, table, _ = tables(LABELS)
    text, files = errors.markdown(), errors.files()
    rows = np.bincount(table["label"].to_numpy())
    assert "| bad\\|worse | " in text
    classes = json.loads(files["classes.json"])
    assert classes["columns"] == ["class", "precision", "recall", "f1", "rows", "predicted"]
    assert [line[4] for line in classes["data"]] == rows.tolist()
    matrix = json.loads(files["confusion_matrix.json"])
    assert [sum(line[1:]) for line in matrix["data"]] == rows.tolist()
    assert f"| fine | {' | '.join(map(str, matrix['data'][1][1:]))} |" in text


def test_card_of_many_classes_shows_the_lowest_scores() -> None:
    errors, _, _ = tables(tuple(f"class {number}" for number in range(40)), rows=400)
    text = errors.markdown()
    assert f"The {CARD_CLASSES} of 40 classes with the lowest F1" in text
    assert "true class (lines)" not in text
    assert len(json.loads(errors.files()["classes.json"])["data"]) == 40


def test_version_description_fits_into_every_database() -> None:
    sections = [("Score", 300), ("Errors on the test rows", 2000), ("Use", 900), ("Comparison (f1)", 1500)]
    card = "# mail\n\nWhat it is.\n\n" + "\n\n".join(f"## {name}\n\n{'x' * size}" for name, size in sections)
    card += "\n\n## Origin\n\n" + "y" * 3000
    shown = description(card, "Pages: here.")
    assert len(shown) <= MAX_DESCRIPTION
    assert shown.startswith("What it is.\n\nPages: here.\n\n## Score")
    assert "## Use" in shown
    assert "## Errors" in shown
    assert "## Origin" not in shown
    assert shown.endswith(REST)
    short = card[:2000]
    assert description(short) == short.removeprefix("# mail\n\n")


def test_registered_version_links_its_pages_and_shows_errors(make_bundle: MakeBundle, uri: str, tmp_path: Path) -> None:
    client = open_client(uri)
    experiment = client.create_experiment("mail", str(tmp_path / "mlruns"))
    parent, trial = (str(client.create_run(experiment).info.run_id) for _ in range(2))
    client.set_tag(trial, "mlflow.loggedArtifacts", json.dumps([{"path": "samples.json", "type": "table"}]))
    register(make_bundle().folder, run_id=trial, parent_run_id=parent, tracking_uri=uri)
    page = client.get_model_version("mail", "1").description or ""
    (model,) = client.search_logged_models([experiment])
    for link in (f"runs/{trial})", f"runs/{parent})", f"models/{model.model_id})"):
        assert f"](#/experiments/{experiment}/{link}" in page
    assert "| negative | " in page
    listed = json.loads(client.get_run(trial).data.tags["mlflow.loggedArtifacts"])
    names = ["samples.json", "classes.json", "confusion_matrix.json", "worst_rows.json"]
    assert listed == [{"path": name, "type": "table"} for name in names]
    file = client.download_artifacts(trial, "confusion_matrix.json")
    assert len(json.loads(Path(file).read_text())["data"]) == 3
    file = client.download_artifacts(trial, "worst_rows.json")
    assert len(json.loads(Path(file).read_text())["data"]) == WORST_ROWS
