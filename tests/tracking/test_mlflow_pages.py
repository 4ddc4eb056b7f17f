"""What a person sees of a sweep in MLflow's own pages: a real server, a real browser."""

import os
import shutil
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestrator.report.publish import publish
from orchestrator.report.write import read_history, write_report
from orchestrator.simulation.written_sweep import WrittenSweep
from orchestrator.tracking.connection import open_client
from orchestrator.tracking.mlflow_exporter import MlflowExporter
from orchestrator.tracking.registry import register
from orchestrator.tracking.runs_view import view_page

from ..mlflow_server import Server
from ..report.chromium import Browser, chromium
from .conftest import MakeBundle

pytestmark = pytest.mark.slow
ACCENT = (0x16, 0x58, 0xB8)
SWEEP, TRIALS = "airline-20261121-220300", 28


@dataclass
class Pages:
    """The server, its runs, and a browser to look with."""

    uri: str
    experiment: str
    parent: str
    browser: Browser
    pictures: Path

    def open(self, route: str, *words: str, picture: str) -> str:
        """A page's text, once all these words are there."""
        self.browser.open(f"{self.uri}/#/{route}", width=1500, height=1000)
        try:
            return self.browser.wait_for(*words)
        finally:
            self.browser.screenshot(self.pictures / f"mlflow-{picture}.png")


@pytest.fixture(scope="module")
def pages(migrated: Path, tmp_path_factory: pytest.TempPathFactory, make_bundle: MakeBundle) -> Iterator[Pages]:
    if chromium() is None:
        pytest.skip("no Chromium is installed; apt-get install chromium")
    place = tmp_path_factory.mktemp("pages")
    shutil.copy(migrated, place / "mlflow.db")
    folder = WrittenSweep(place / SWEEP, trials=TRIALS).write()
    pictures = Path(os.environ.get("PEFT_SWEEP_SCREENSHOTS", place / "screenshots")).absolute()
    pictures.mkdir(parents=True, exist_ok=True)
    server = Server(place, f"sqlite:///{place / 'mlflow.db'}")
    server.start()
    try:
        parent, client = _told(server.uri, folder), open_client(server.uri)
        experiment = client.get_run(parent).info.experiment_id
        for method, trial in (("lora", "airline/lora/0"), ("ia3", "airline/ia3/0")):
            bundle = make_bundle(method=method, task="airline", sweep=SWEEP, trial=trial).folder
            (run,) = client.search_runs([experiment], f"tags.key = '{trial}'")
            register(bundle, run_id=run.info.run_id, parent_run_id=parent, tracking_uri=server.uri)
        with Browser(place / "profile") as browser:
            yield Pages(server.uri, experiment, parent, browser, pictures)
    finally:
        server.kill()


def _told(uri: str, folder: Path) -> str:
    """The sweep's journal as runs, with the report; the parent's id."""
    exporter = MlflowExporter(folder / "journal.jsonl", uri, "airline", poll=0.05)
    exporter.start()
    assert exporter.close(120)
    assert not exporter.refused
    return publish(read_history(folder), write_report(folder), tracking_uri=uri)["airline"]


def test_mlflow_leads_to_the_champion_within_four_clicks(pages: Pages) -> None:
    """From the list of experiments, as somebody who has never seen one of these sweeps."""
    text = pages.open("experiments", "airline", picture="experiments")
    assert "airline: lora" in text, "the list itself says what was found"
    clicks = 0

    def click(on: str, *words: str) -> str:
        nonlocal clicks
        clicks += 1
        pages.browser.click(on)
        try:
            return pages.browser.wait_for(*words)
        finally:
            pages.browser.screenshot(pages.pictures / f"mlflow-click-{clicks}.png")

    text = click("airline", "Got it", "macro_f1 0.8")
    assert "airline: lora, macro_f1 0.8" in text
    assert "1.9 MB" in text
    assert "Better than" in text
    click("Got it", "version 1")  # what MLflow shows to everybody who comes for the first time
    card = click("version 1", "champion", "Errors on the test rows")
    assert 'mlflow.pyfunc.load_model("models:/airline/1")' in card
    assert clicks <= 4


def test_mlflow_saved_view_has_method_state_and_score(pages: Pages) -> None:
    text = pages.open(view_page(pages.experiment, SWEEP)[2:], "lora-0", "method", "state", picture="view")
    assert {"mean_score", "validation_macro_f1", "pruned"} <= set(text.split())
    assert "lora-0" in text.split(), "the name alone: score and state have columns"
    assert text.index("lora-0") < text.index("linear_probe"), "sorted by score"


def test_mlflow_page_lists_trials_by_method_and_score(pages: Pages) -> None:
    asked = {"searchFilter": "tags.method = 'lora'", "orderByKey": "metrics.`mean_score`", "orderByAsc": "false"}
    text = pages.open(
        f"experiments/{pages.experiment}/runs?{urllib.parse.urlencode(asked)}", "lora-0", "lora-1", picture="experiment"
    )
    assert "ia3-0" not in text


def test_mlflow_page_of_the_parent_run_shows_the_summary(pages: Pages) -> None:
    text = pages.open(
        f"experiments/{pages.experiment}/runs/{pages.parent}", "lora has the best score", "macro_f1", picture="parent"
    )
    assert "Alternative: prefer: size selects" in text
    assert "mean_score" in text


def test_mlflow_page_of_the_parent_run_has_leaderboard_and_plots(pages: Pages) -> None:
    route = f"experiments/{pages.experiment}/runs/{pages.parent}/artifacts/leaderboard.json"
    text = pages.open(route, "leaderboard.csv", "plots", "report.html", "linear_probe", picture="leaderboard")
    assert "config.yaml" in text
    route = f"experiments/{pages.experiment}/runs/{pages.parent}/artifacts/plots"
    pages.open(route, "score-against-trainable-parameters.svg", picture="plots")


def test_mlflow_page_of_the_parent_run_shows_the_report(pages: Pages) -> None:
    route = f"experiments/{pages.experiment}/runs/{pages.parent}/artifacts/report.html"
    pages.open(route, "leaderboard.csv", "report.html", picture="report")
    pages.browser.wait_until("document.querySelector('iframe')?.getBoundingClientRect().height > 300")
    shown = pages.browser.wait_for_colour(ACCENT, pages.pictures / "mlflow-report.png")
    assert shown > 200, "the recommendation stands out in its colour"


def test_mlflow_page_of_the_model_shows_aliases_and_card(pages: Pages) -> None:
    text = pages.open("models/airline", "champion", picture="model")
    assert "Version 1" in text
    card = pages.open("models/airline/versions/1", "champion", "lora", picture="version")
    assert "test rows" in card
    assert "true / predicted" in card


def test_mlflow_page_of_the_parent_run_charts_the_champion_s_interval(pages: Pages) -> None:
    route = f"experiments/{pages.experiment}/runs/{pages.parent}/model-metrics"
    text = pages.open(route, "mean_score", "mean_low", "mean_high", picture="parent-metrics")
    assert not {"attach_seconds", "micro_batches"} & set(text.split())
