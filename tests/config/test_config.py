import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

import methods
from orchestrator.common.errors import InputError
from orchestrator.common.field_types import parse_duration
from orchestrator.config import Choices, Fixed, Range, SweepConfig, json_schema, load_config
from orchestrator.config.yaml_file import read_yaml
from orchestrator.tasks.templates import template_columns

EXAMPLES = Path(__file__).parents[2] / "examples"

SMALL = """
backbone: {model: org/name}
tasks:
  mail: {type: classification, data: mail.csv, text: text, label: label}
budget: {trials: 2}
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "mail.csv").write_text("text,label\nhello,a\n")
    return tmp_path


def written(folder, text, name="sweep.yaml"):
    path = folder / name
    path.write_text(text)
    return path


def test_config_defaults_all_but_backbone_tasks_and_budget(folder):
    config = load_config(written(folder, SMALL))
    assert config.methods == list(methods.names())
    assert config.backbone.quantization == "nf4"
    assert config.tasks["mail"].metrics == ("macro_f1",)
    assert config.tasks["mail"].split.model_dump() == {"train": 0.6, "validation": 0.2, "test": 0.2}
    assert (config.training.max_steps, config.search.min_results, config.lanes.max) == (200, 2, "auto")
    assert config.mlflow.tracking_uri == "sqlite:///mlflow.db"
    assert config.base == folder


@pytest.mark.parametrize(
    ("stem", "name"), [("airline", "airline"), ("my sweep!", "my-sweep-"), ("_x", "x"), ("!", "sweep")]
)
def test_sweep_name_defaults_to_the_file_name(folder, stem, name):
    assert load_config(written(folder, SMALL, f"{stem}.yaml")).name == name


def test_config_can_be_pickled_with_its_folder(folder):
    config = load_config(written(folder, SMALL))
    again = pickle.loads(pickle.dumps(config))
    assert again == config
    assert again.base == folder


def test_resolved_config_does_not_depend_on_the_folder(folder, monkeypatch):
    config = load_config(written(folder, SMALL + "lanes: {max: 3}\nsearch_space: {}\n"))
    resolved = json.loads(json.dumps(config.resolved()))
    assert resolved["tasks"]["mail"]["data"] == str(folder / "mail.csv")
    monkeypatch.chdir("/")
    again = SweepConfig.model_validate(resolved)
    assert again.resolved() == resolved


def test_resolved_config_keeps_durations(folder):
    config = load_config(written(folder, SMALL.replace("trials: 2", "wall_time: 1h30m")))
    assert config.budget.wall_time == 5400
    assert SweepConfig.model_validate(config.resolved()).budget.wall_time == 5400


def test_resolved_config_holds_no_secret(folder):
    text = SMALL + (
        "mlflow: {tracking_uri: 'postgresql://me:hunter2@host/db', registry_uri: 'https://host/?api_key=hunter2&x=1'}\n"
        "storage: 's3://hunter2:hunter2@bucket/sweeps?region=eu'\n"
    )
    resolved = load_config(written(folder, text)).resolved()
    assert "hunter2" not in json.dumps(resolved)
    assert resolved["mlflow"]["tracking_uri"] == "postgresql://***@host/db"
    assert resolved["mlflow"]["registry_uri"] == "https://host/?api_key=***&x=1"
    assert resolved["storage"] == "s3://***@bucket/sweeps?region=eu"


def test_overrides_are_recognized_by_their_keys(folder):
    text = SMALL + (
        "search_space:\n  lora:\n    rank: {choices: [4, 8]}\n"
        "    learning_rate: {low: 1e-4, high: 1e-2, log: true}\n    batch_size: {value: 16}\n"
    )
    overrides = load_config(written(folder, text)).search_space["lora"]
    assert overrides["rank"] == Choices(choices=[4, 8])
    assert overrides["learning_rate"] == Range(low=1e-4, high=1e-2, log=True)
    assert overrides["batch_size"] == Fixed(value=16)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("45s", 45), ("90m", 5400), ("2h", 7200), ("1h30m", 5400), ("1h 5m 2s", 3902), ("0.5h", 1800)],
)
def test_duration_is_parsed_to_seconds(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("value", ["", "2", 2, "2d", "h", "30m1h", "0s", "-5m", None, True])
def test_invalid_duration_is_refused(value):
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(value)


@pytest.mark.parametrize(
    ("template", "columns"),
    [("text", ["text"]), ("Q: {q} A:", ["q"]), ("{a}{b}", ["a", "b"]), ("{{x}} {a}", ["a"])],
)
def test_template_columns_are_those_in_braces(template, columns):
    assert template_columns(template) == columns


@pytest.mark.parametrize("template", ["{}", "{a!r}", "{a:>5}", "{{a}}", "{a", "a}"])
def test_invalid_template_is_refused(template):
    with pytest.raises(ValueError, match=r"."):
        template_columns(template)


@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        ("1e-4", 1e-4), ("1.0e-4", 1e-4), (".5", 0.5), ("-3", -3), ("010", 10), ("1:30", "1:30"), ("no", "no"),
        ("on", "on"), ("true", True), ("~", None), ("null", None), ("2024-01-01", "2024-01-01"), ("'1'", "1"),
    ],
)  # fmt: skip
def test_yaml_scalars_follow_yaml_1_2(tmp_path, scalar, value):
    parsed = read_yaml(written(tmp_path, f"key: {scalar}"))[0]["key"]
    assert (parsed, type(parsed)) == (value, type(value))


def test_yaml_cannot_build_python_objects(tmp_path):
    with pytest.raises(InputError, match="could not determine a constructor"):
        read_yaml(written(tmp_path, "key: !!python/object/apply:os.getcwd []"))


def test_load_config_imports_no_machine_learning_library():
    program = (
        "import sys, pathlib; from orchestrator.config import load_config, json_schema;"
        f"load_config(pathlib.Path({str(EXAMPLES / 'airline.yaml')!r})); json_schema();"
        "print([m for m in ('torch', 'ray', 'mlflow', 'transformers', 'sklearn') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_examples_are_valid_configs_and_match_the_schema(path):
    load_config(path)
    assert list(Draft202012Validator(json_schema()).iter_errors(read_yaml(path)[0])) == []


def test_schema_refuses_what_load_config_refuses():
    config = read_yaml(EXAMPLES / "airline.yaml")[0]
    config["backbone"]["quantisation"] = "nf4"
    config["methods"] = ["lorra"]
    config["lanes"] = {"max": 0}
    paths = {error.json_path for error in Draft202012Validator(json_schema()).iter_errors(config)}
    assert paths == {"$.backbone", "$.methods[0]", "$.lanes.max"}


def test_schema_describes_every_field():
    schema = json_schema()
    sections = [schema, *schema["$defs"].values()]

    def described(field):
        return "description" in field or ("$ref" in field and described(schema["$defs"][field["$ref"].split("/")[-1]]))

    assert [name for section in sections for name, field in section["properties"].items() if not described(field)] == []
