"""Every mistake is one line: its key path, what is wrong, what to write instead."""

from typing import Any

import pytest
import yaml

from orchestrator.common.errors import InputError
from orchestrator.config import load_config
from orchestrator.tasks import TASK_TYPES

VALID: dict[str, Any] = {
    "backbone": {"model": "org/name"},
    "tasks": {"mail": {"type": "classification", "data": "mail.csv", "text": "text", "label": "label"}},
    "budget": {"trials": 2},
}


@pytest.fixture
def problems(tmp_path):
    """What is wrong with the valid configuration after changes, as printed, without the file's name."""
    (tmp_path / "mail.csv").write_text("text,label,stars\nhello,a,1\n")

    def find(text=None, **changes):
        path = tmp_path / "broken.yaml"
        path.write_text(yaml.safe_dump({**VALID, **changes}, sort_keys=False) if text is None else text)
        with pytest.raises(InputError) as raised:
            load_config(path)
        lines = raised.value.lines()
        assert all(line.startswith(f"{path}: ") for line in lines)
        return [line.removeprefix(f"{path}: ") for line in lines]

    return find


def mail(**changes):
    return {"tasks": {"mail": {**VALID["tasks"]["mail"], **changes}}}


def lm(**changes):
    task = {"type": "causal-lm", "data": "mail.csv", "prompt": "text", "completion": "{label}!"}
    return {"tasks": {"mail": {**task, **changes}}}


NAMES = "use letters, digits and - _ . only, and begin with a letter or digit"
OVERRIDE = "write {choices: [...]}, {low: ..., high: ...} or {value: ...}"
CASES = [
    (
        {"backbone": {"model": "org/name", "quantisation": "nf4"}},
        "backbone.quantisation: unknown key; did you mean quantization?",
    ),
    ({"bakbone": {}}, "bakbone: unknown key; did you mean backbone?"),
    (
        {"backbone": {"model": "org/name", "quantization": "nf5"}},
        "backbone.quantization: 'nf5' is not possible; did you mean nf4?",
    ),
    ({"backbone": {}}, "backbone.model: is missing"),
    ({"backbone": None}, "backbone: is empty; write a mapping"),
    ({"backbone": {"model": "./nowhere"}}, "backbone.model: there is no {folder}/nowhere"),
    ({"backbone": {"model": "model.gguf"}}, "backbone.model: there is no {folder}/model.gguf"),
    (
        {"backbone": {"model": "package:not_there/model"}},
        "backbone.model: package:not_there/model: the package is not installed; pip install not-there",
    ),
    (
        {"backbone": {"model": "s3://x/y"}},
        "backbone.model: cannot be a URI; write a hub id, a folder, or package:NAME/SUBFOLDER",
    ),
    ({"tasks": {}}, "tasks: is empty; give at least 1"),
    ({"tasks": {"a/b": VALID["tasks"]["mail"]}}, f"tasks.a/b: is 'a/b'; {NAMES}"),
    (mail(type="clasification"), "tasks.mail.type: 'clasification' is not possible; did you mean classification?"),
    ({"tasks": {"mail": {"text": "text"}}}, "tasks.mail.type: is missing; choose from " + ", ".join(TASK_TYPES)),
    (
        {"tasks": {"mail": {"data": "mail.csv"}}},
        "tasks.mail: rows look like texts with a number: text, stars; write type: regression, text: text,"
        " target: stars for that, or type: classification, with text and label, if each number is a class of its own",
    ),
    (
        mail(label="lable"),
        'tasks.mail.label: column "lable" is not in mail.csv; did you mean label? (columns: text, label, stars)',
    ),
    (mail(label="zzz"), 'tasks.mail.label: column "zzz" is not in mail.csv (columns: text, label, stars)'),
    (mail(data="mial.csv"), "tasks.mail.data: there is no file {folder}/mial.csv"),
    (
        mail(data="mail.xls"),
        "tasks.mail.data: 'mail.xls' must end in .parquet, .csv, .tsv, .json, .jsonl, .ndjson, .arrow, .feather,"
        " or one of these and .gz, .bz2, .zst",
    ),
    (mail(data=5), "tasks.mail.data: write one file to split, or {{train: ..., validation: ..., test: ...}}"),
    (mail(data={"train": "mail.csv", "test": "mail.csv"}), "tasks.mail.data.validation: is missing"),
    (mail(split={"train": 0.7}), "tasks.mail.split: the fractions add up to 1.1; they must add up to 1"),
    (mail(split={"train": 1.5}), "tasks.mail.split.train: is 1.5; it must be at most 1"),
    (mail(where={"text": {}}), "tasks.mail.where.text: is empty; give matches, at_least, at_most or equals"),
    (
        mail(where={"a.b": {"equals": 1}}),
        'tasks.mail.where.a.b: column "a.b" is not in mail.csv (columns: text, label, stars)',
    ),
    (mail(encoding="utf-9000"), "tasks.mail.encoding: 'utf-9000' is not an encoding that Python knows"),
    (
        mail(metric="perplexity"),
        "tasks.mail.metric: 'perplexity' is not possible; "
        "choose from: macro_f1, accuracy, mcc, balanced_accuracy, roc_auc, micro_f1",
    ),
    (
        lm(prompt="{txt}"),
        'tasks.mail.prompt: column "txt" is not in mail.csv; did you mean text? (columns: text, label, stars)',
    ),
    (lm(prompt="{}"), "tasks.mail.prompt: '{{}}' must have column names alone in its braces, as in {{text}}"),
    (lm(max_new_tokens=0), "tasks.mail.max_new_tokens: is 0; it must be at least 1"),
    ({"methods": ["lora", "ia3", "lorra"]}, 'methods[2]: unknown method "lorra"; did you mean lora?'),
    ({"methods": ["lora", "lora"]}, "methods: lora given more than once"),
    ({"methods": "lora"}, "methods: is 'lora'; write a list"),
    ({"methods": []}, "methods: is empty; give at least 1"),
    ({"search_space": {"lorra": {}}}, 'search_space.lorra: unknown method "lorra"; did you mean lora?'),
    (
        {"search_space": {"lora": {"rnk": {"value": 8}}}},
        "search_space.lora.rnk: unknown hyperparameter; did you mean rank?",
    ),
    (
        {"search_space": {"lora": {"rank": {"choices": [8, 1.5]}}}},
        "search_space.lora.rank.choices[1]: 1.5 is not possible; write a whole number",
    ),
    (
        {"search_space": {"lora": {"learning_rate": {"value": "high"}}}},
        "search_space.lora.learning_rate.value: 'high' is not possible; write a number",
    ),
    (
        {"search_space": {"lora": {"targets": {"value": "al_linear"}}}},
        "search_space.lora.targets.value: 'al_linear' is not possible; did you mean all_linear?",
    ),
    ({"search_space": {"lora": {"rank": 8}}}, f"search_space.lora.rank: {OVERRIDE}"),
    ({"search_space": {"lora": {"rank": {"lo": 3}}}}, f"search_space.lora.rank: {OVERRIDE}"),
    (
        {"search_space": {"lora": {"rank": {"low": 3, "high": 9, "lo": 3}}}},
        "search_space.lora.rank.lo: unknown key; did you mean low?",
    ),
    ({"search_space": {"lora": {"rank": {"low": 3}}}}, "search_space.lora.rank.high: is missing"),
    (
        {"search_space": {"lora": {"rank": {"choices": []}}}},
        "search_space.lora.rank.choices: is empty; give at least 1",
    ),
    (
        {"search_space": {"lora": {"rank": {"choices": [8, [1]]}}}},
        "search_space.lora.rank.choices[1]: [1] is not possible; write a text, a number, true or false",
    ),
    (
        {"search_space": {"lora": {"rank": {"low": 1, "high": "48"}}}},
        "search_space.lora.rank.high: '48' is not a number",
    ),
    (
        {"search_space": {"lora": {"rank": {"choices": [8, 8]}}}},
        "search_space.lora.rank.choices: a choice is given twice",
    ),
    (
        {"search_space": {"lora": {"learning_rate": {"low": 0, "high": 1, "log": True}}}},
        "search_space.lora.learning_rate.low: is 0; it must be above 0 on a logarithmic scale",
    ),
    (
        {"search_space": {"lora": {"learning_rate": {"low": 2, "high": 1}}}},
        "search_space.lora.learning_rate.high: is 1; it must be above low, which is 2",
    ),
    ({"budget": {}}, "budget: has no limit; give trials, wall_time, lane_hours or money"),
    ({"budget": {"trials": True}}, "budget.trials: is true; write a whole number"),
    ({"budget": {"trials": 0}}, "budget.trials: is 0; it must be at least 1"),
    (
        {"budget": {"wall_time": 90}},
        "budget.wall_time: 90 is not a duration; write it with its unit, as in 45s, 90m, 2h or 1h30m",
    ),
    ({"training": {"max_steps": "100"}}, "training.max_steps: is '100'; write a whole number"),
    ({"training": {"clip_norm": 0}}, "training.clip_norm: is 0; it must be above 0"),
    (
        {"budget": {"money": 20}},
        "budget.money: needs the cost of a lane; write cost_per_lane_hour beside it",
    ),
    (
        {"search": {"sampler": "gp"}},
        "search.sampler: is gp, which learns only from finished trials; "
        "write search.early_stopping: false, or sampler: tpe",
    ),
    (
        {"search": {"constraints": ["adapter 10 MB"]}},
        "search.constraints[0]: 'adapter 10 MB' is not a constraint; "
        "write it as in adapter <= 10 MB or trainable <= 1M",
    ),
    (
        {"search": {"constraints": ["adaptor <= 10 MB"]}},
        "search.constraints[0]: adaptor is not a quantity that is known before training; did you mean adapter?",
    ),
    (
        {"search": {"constraints": ["adapter >= 10 MB"]}},
        "search.constraints[0]: 'adapter >= 10 MB' is not an upper bound; write adapter <= 10 MB",
    ),
    (
        {"search": {"constraints": ["trainable <= many"]}},
        "search.constraints[0]: 'many' is not a count; write it as in 50k, 1.5M or 1000000",
    ),
    (
        {"search": {"constraints": ["latency <= 1.2"]}},
        "search.constraints[0]: latency is known only after training; "
        "once the sweep has finished, use peft-sweep select --max-latency-overhead",
    ),
    (
        {"search": {"constraints": ["adapter <= 1MB", "adapter <= 2MB"]}},
        "search.constraints: adapter given more than once",
    ),
    ({"search": {"first_rung": 2}}, "search.first_rung: is 2; it must be at most 1"),
    ({"lanes": {"min": 3, "max": 2}}, "lanes.max: is 2; it must be at least min, which is 3"),
    (
        {"lanes": {"workers": 2, "gpus": 0.5}},
        "lanes.gpus: is 0.5; each of 2 workers needs a GPU of its own, write 1 or 0",
    ),
    ({"lanes": {"pack": 0}}, "lanes.pack: 0 is not possible; write auto or a whole number from 1 on"),
    ({"seed": -1}, "seed: is -1; it must be at least 0"),
    ({"name": "a b"}, f"name: is 'a b'; {NAMES}"),
]


@pytest.mark.parametrize(("changes", "line"), CASES, ids=[line.split(":")[0] for _, line in CASES])
def test_config_error_is_one_line_per_mistake(problems, tmp_path, changes, line):
    if "{folder}" in line or "{{" in line:
        line = line.format(folder=tmp_path)
    assert problems(**changes) == [line]


def test_config_errors_are_listed_together_in_file_order(problems):
    text = """
backbone: {model: org/name, quantisation: nf4}
tasks:
  mail: {type: classification, data: mail.csv, text: text, label: lable, metrik: x}
methods: [lora, lorra]
search_space:
  lora: {rank: {choices: [x]}, learning_rate: {low: 2, high: 1}, rnk: {value: 1}}
training: {max_length: 1}
training: {max_steps: 0}
"""
    assert [line.split(": ")[0] for line in problems(text)] == [
        "training",
        "backbone.quantisation",
        "tasks.mail.label",
        "tasks.mail.metrik",
        "methods[1]",
        "search_space.lora.rank.choices[0]",
        "search_space.lora.learning_rate.high",
        "search_space.lora.rnk",
        "training.max_steps",
        "budget",
    ]


@pytest.mark.parametrize("text", ["a: 1\nb: 2\na: 3\n", "{a: 1, b: 2, a: 3}"])
def test_repeated_key_is_refused(problems, text):
    assert any(line.startswith("a: given twice, in lines 1 and ") for line in problems(text))


def test_broken_yaml_is_named_by_line(problems):
    (line,) = problems("backbone: {model: x\ntasks: [")
    assert line.startswith("line 2, column 6: while parsing a flow mapping, expected ',' or '}'")


@pytest.mark.parametrize("text", ["", "- a\n", "word"])
def test_config_file_without_a_mapping_is_refused(problems, text):
    assert problems(text) == ["is not a configuration; it must be a mapping with backbone, tasks, budget"]


def test_config_file_with_two_documents_is_refused(problems):
    assert "expected a single document" in problems("a: 1\n---\nb: 2\n")[0]


def test_config_file_that_is_not_utf_8_is_refused(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_bytes(b"name: \xff\xfe\xff")
    with pytest.raises(InputError, match=r"x\.yaml: line 1: is no text in UTF-8; save the file as UTF-8"):
        load_config(path)


def test_missing_config_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.yaml: there is no such file"):
        load_config(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.parquet", b"PAR1 no", "cannot be read as parquet: "),
        ("x.arrow", b"no", "cannot be read as arrow: "),
        ("x.csv", b"", "is empty"),
        ("x.jsonl", b"{\n}", "is one JSON object over many lines; write an array of rows, or a row on each line"),
    ],
)
def test_broken_data_file_is_named_by_key(problems, tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    (line,) = problems(**mail(data=name))
    assert line.startswith(f"tasks.mail.data: {name} {message}")
