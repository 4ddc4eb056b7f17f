"""A metric of the user's own: a function in a file, refused in one line or used like any other metric."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from methods.plugins import loader
from orchestrator.common.errors import InputError
from orchestrator.config import load_config
from orchestrator.config.plugins import plugin_sources
from orchestrator.planning.metric_trial import try_metrics
from orchestrator.selection.intervals import bootstrap_interval
from orchestrator.tasks import TASK_TYPES, read_task, task_type
from orchestrator.tasks.registry import recorded_metric
from orchestrator.tasks.user_metric import metric_name, register, user_metric
from orchestrator.tracking.packaging import plugin_sources as bundle_sources

WHOLE = """
DIRECTION = "minimize"


def wrong(predictions, references):
    return sum(p != r for p, r in zip(predictions, references)) / len(references)


def wrong_rows(predictions, references):
    return [float(p != r) for p, r in zip(predictions, references)]
"""


pytestmark = pytest.mark.usefixtures("no_metric_files")


@pytest.fixture
def sweep(tmp_path):
    (tmp_path / "rows.csv").write_text("text,label\n" + "".join(f"text {i},{'ab'[i % 2]}\n" for i in range(40)))

    def write(source=WHOLE, metric="my_metric.py:wrong"):
        (tmp_path / "my_metric.py").write_text(source)
        file = tmp_path / "sweep.yaml"
        file.write_text(
            "backbone: {model: org/name}\nbudget: {trials: 2}\n"
            f"tasks: {{mail: {{type: classification, data: rows.csv, text: text, label: label, metric: {metric}}}}}\n"
        )
        return file

    return write


def pairs(predictions):
    return predictions["p"].to_pylist(), predictions["r"].to_pylist()


def metric_of(name, source=WHOLE):
    loader.register_source("my_metric", source)
    return user_metric(name, pairs, needs_generation=False)


@pytest.fixture
def table():
    random = np.random.default_rng(0)
    return pa.table({"row": range(50), "p": random.integers(0, 2, 50), "r": random.integers(0, 2, 50)})


def test_user_metric_is_read_with_its_direction_and_not_run(sweep):
    config = load_config(sweep(WHOLE + "\nraise RuntimeError('run')\n", "[my_metric.py:wrong, accuracy]"))
    assert config.tasks["mail"].metrics == ("my_metric.wrong", "accuracy")
    register(config.tasks["mail"].metric_references, config.base)
    metric = task_type(config.tasks["mail"], labels=("a", "b")).optimized
    assert (metric.name, metric.direction, metric.label) == ("my_metric.wrong", "minimize", "my_metric.wrong")
    assert recorded_metric("my_metric.wrong", higher_is_better=False) == metric


@pytest.mark.parametrize(
    ("source", "metric", "message"),
    [
        (WHOLE, "other.py:wrong", "tasks.mail.metric: there is no {folder}/other.py"),
        (WHOLE, "my_metric.py:right", "tasks.mail.metric: my_metric.py has no function right; it defines wrong, "),
        ("def wrong(p, r): ...", "my_metric.py:wrong", "my_metric.py says no direction; write DIRECTION = "),
        ("DIRECTION = 'down'\ndef wrong(p, r): ...", "my_metric.py:wrong", "my_metric.py says no direction"),
        ("def wrong(p, r:", "my_metric.py:wrong", "my_metric.py line 1 is not valid Python"),
        (WHOLE, "my_metric.py", "'my_metric.py' is not possible; choose from"),
    ],
)  # fmt: skip
def test_user_metric_that_cannot_be_used_is_refused_without_running_it(sweep, source, metric, message):
    file = sweep(source, metric)
    with pytest.raises(InputError) as raised:
        load_config(file)
    assert message.format(folder=file.parent) in str(raised.value)
    assert len(str(raised.value).splitlines()) <= 2


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return {}['x']", "raises KeyError: 'x'"),
        ("return float('nan')", "returns nan on 8 rows whose predictions are their references"),
        ("return 'good'", "returns a str; it must return one number, or a list with one for each row"),
        ("return [1.0, 2.0]", "returns 2 numbers for 8 rows; it must return one number"),
        ("return [[1.0] * 8] * 8", "returns 8 x 8 numbers for 8 rows"),
        ("return 1.0 if len(set(p)) == 2 else 1 / 0", None),
        ("import nothing_of_this_name", "raises ModuleNotFoundError: No module named 'nothing_of_this_name'"),
    ],
)
def test_user_metric_is_tried_on_a_few_rows_before_training(sweep, body, message):
    config = load_config(sweep(f"DIRECTION = 'maximize'\ndef wrong(p, r):\n    {body}\n"))
    task = config.tasks["mail"]
    register(task.metric_references, config.base)
    data = {"mail": read_task("mail", task, config.base, 0)}
    if message is None:
        try_metrics("sweep.yaml", data)
        return
    with pytest.raises(InputError, match=r"^sweep.yaml: tasks.mail.metric: metric my_metric.wrong") as raised:
        try_metrics("sweep.yaml", data)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_json_references_are_checked_before_training(tmp_path):
    lines = [f'{{"q": "ask {i}", "a": "{{\\"x\\": {i}}}"}}' for i in range(30)]
    (tmp_path / "rows.jsonl").write_text("\n".join([*lines[:-1], '{"q": "ask", "a": "x is 3"}']))
    (tmp_path / "sweep.yaml").write_text(
        "backbone: {model: org/name}\nbudget: {trials: 2}\ntasks:\n  facts: {type: causal-lm, prompt: q, completion: a,"
        " metric: [perplexity, json_fields], data: rows.jsonl, split: {train: 0.1, validation: 0.45, test: 0.45}}\n"
    )
    config = load_config(tmp_path / "sweep.yaml")
    with pytest.raises(InputError, match="'json_fields' needs references that are JSON; that of row 30 is not"):
        try_metrics("sweep.yaml", {"facts": read_task("facts", config.tasks["facts"], tmp_path, 0)})


def test_function_with_a_number_for_each_row_is_called_once_for_all_resamples(table):
    calls = "CALLS = []\n" + WHOLE.replace("    return [float", "    CALLS.append(len(references))\n    return [float")
    metric = metric_of("my_metric.wrong_rows", calls)
    draws = np.random.default_rng(1).integers(50, size=(300, 50))
    wrong = (table["p"].to_numpy() != table["r"].to_numpy()).astype(float)
    assert metric.statistic(table, draws) == pytest.approx(wrong[draws].mean(axis=1))
    assert metric.statistic(table, np.arange(50)[None]) == pytest.approx(wrong.mean())
    assert loader.load("my_metric").CALLS == [50, 50]


def test_function_with_one_number_has_intervals_of_fewer_resamples(table):
    rows, whole = metric_of("my_metric.wrong_rows"), metric_of("my_metric.wrong")
    draws = np.random.default_rng(1).integers(50, size=(100, 50))
    scores, exact = whole.statistic(table, draws), rows.statistic(table, draws)
    scored = ~np.isnan(scores)
    assert scored.sum() == 20
    assert scores[scored] == pytest.approx(exact[scored])
    ends = [bootstrap_interval(partial(metric.statistic, table), 50, seed=0) for metric in (whole, rows)]
    assert ends[0] == pytest.approx(ends[1], abs=0.04)


def test_function_that_fails_on_a_resample_leaves_it_out(table):
    source = "DIRECTION = 'maximize'\ndef share(p, r):\n    return 1 / (r.count(1) > 24)\n"
    scores = metric_of("my_metric.share", source).statistic(table, np.resize(np.arange(50), (10, 50)) // 2)
    assert np.isnan(scores).sum() in (8, 10)


def test_function_that_raises_on_all_rows_is_one_line(table):
    source = "DIRECTION = 'maximize'\ndef share(p, r):\n    raise RuntimeError('two\\nlines')\n"
    with pytest.raises(ValueError, match=r"^metric my_metric.share raises RuntimeError: two$"):
        metric_of("my_metric.share", source).statistic(table, np.arange(50)[None])


def test_user_metric_compares_label_names_and_texts():
    classification = TASK_TYPES["classification"].configured(("accuracy",), 1, None, ("no", "yes"))
    rows = pa.table({"row": [1, 2, 3], "label": pa.array([1, 0, 1], pa.int32())})
    assert classification.compared(classification.right_predictions(rows)) == (["yes", "no", "yes"],) * 2
    several = TASK_TYPES["classification"].configured(
        ("micro_f1",), 1, None, ("no", "yes"), constants={"threshold": 0.5}
    )
    rows = pa.table({"row": [1, 2], "labels": pa.array([[1, 0], []], pa.list_(pa.int32()))})
    assert several.compared(several.right_predictions(rows))[0] == [["no", "yes"], []]
    regression = TASK_TYPES["regression"]
    assert regression.compared(regression.right_predictions(pa.table({"row": [1], "target": [2.5]}))) == ([2.5], [2.5])
    lm = TASK_TYPES["causal-lm"]
    texts = pa.table({"row": [1], "generated": ["a"], "references": [["a", "b"]]})
    assert lm.compared(texts) == (["a"], [["a", "b"]])
    assert lm.compared(texts.drop("references").append_column("reference", [["a"]])) == (["a"], ["a"])


def test_source_of_user_metric_goes_to_the_lanes_and_with_the_bundle(sweep):
    config = load_config(sweep())
    register(config.tasks["mail"].metric_references, config.base)
    assert plugin_sources(config) == (("my_metric", WHOLE),)
    bundle: Any = SimpleNamespace(method="lora", metric="my_metric.wrong", metrics={"accuracy": 1.0})
    assert bundle_sources(bundle) == {"my_metric": WHOLE}
    assert config.resolved()["tasks"]["mail"]["metric"] == f"{config.base}/my_metric.py:wrong"
    assert metric_name(config.resolved()["tasks"]["mail"]["metric"]) == "my_metric.wrong"
    assert Path(config.base, "my_metric.py").is_file()


def test_user_metric_without_its_file_is_named_and_not_computed(table):
    metric = user_metric("gone.score", pairs, needs_generation=True)
    assert metric.statistic is not None
    with pytest.raises(ValueError, match=r"metric gone\.score cannot be computed here: its file did not come"):
        metric.statistic(table, np.arange(50)[None])
