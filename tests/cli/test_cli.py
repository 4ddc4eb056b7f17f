"""Output and exit codes of the commands, without running sweeps."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from orchestrator import cli
from orchestrator.common.errors import SweepError
from orchestrator.config import json_schema
from orchestrator.tasks import TASK_TYPES

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))
COMMANDS = [
    "",
    "init",
    "preview",
    "demo",
    "run",
    "resume",
    "plan",
    "methods",
    "schema",
    "export",
    "models",
    "models list",
    "select",
    "models show",
    "models compare",
    "models pull",
    "models promote",
    "models rollback",
    "models verify",
    "predict",
]
ROW_KEYS = {"name", "category", "available", "reason", "trainable", "percent", "mergeable"}
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """Return a function that runs ``peft-sweep`` in an empty folder: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("TERMINAL_WIDTH", "80")
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["peft-sweep", *arguments])
        capfd.readouterr()  # discard earlier output
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), *capfd.readouterr()

    return run


@pytest.fixture
def sweep(tmp_path: Path) -> Callable[..., str]:
    """Return a function that writes a small sweep.yaml with its rows and checkpoint, and returns its path."""

    def write(**changes: Any) -> str:
        from tokenizers import Tokenizer, models
        from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

        words = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1}, unk_token="[UNK]"))
        PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]").save_pretrained(tmp_path / "model")
        shape: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 32}
        shape |= {"num_hidden_layers": 2, "num_attention_heads": 2}
        BertModel(BertConfig(vocab_size=20, max_position_embeddings=64, **shape)).save_pretrained(tmp_path / "model")
        rows = [f"text number {row},{'ab'[row % 2]}" for row in range(40)]
        (tmp_path / "rows.csv").write_text("\n".join(["text,label", *rows]))
        task = {"type": "classification", "data": "rows.csv", "text": "text", "label": "label"}
        values = {"backbone": {"model": "./model"}, "tasks": {"mail": task}, "methods": ["lora", "linear_probe"]}
        (tmp_path / "mail.yaml").write_text(yaml.safe_dump({**values, "budget": {"trials": 2}, **changes}))
        return "mail.yaml"

    return write


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command_fits_eighty_columns(command: Command, name: str) -> None:
    code, out, err = command(*name.split(), "--help")
    assert (code, err) == (0, "")
    assert f"peft-sweep {name}".strip() + " [OPTIONS]" in " ".join(out.split())
    assert max(len(line) for line in out.splitlines()) <= 80


def test_help_lists_every_command(command: Command) -> None:
    _, out, _ = command("--help")
    _, inner, _ = command("models", "--help")
    for name in COMMANDS[1:]:
        assert name.split()[-1] in (inner if " " in name else out).split()


def test_unknown_command_is_an_input_error(command: Command) -> None:
    code, out, err = command("pln")
    assert (code, out) == (2, "")
    assert "pln" in err


@pytest.mark.parametrize("statement", ["import orchestrator.cli", "import orchestrator.config"])
def test_cli_start_imports_nothing_heavy(statement: str) -> None:
    code = f"import sys; {statement}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "ray", "mlflow", "optuna", "peft", "sklearn"} & set(shown.stdout.split())


def test_broken_configuration_prints_a_line_per_problem(command: Command, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,label\nhello,a\n")
    broken = {
        "backbone": {"model": "org/name", "quantisation": "nf4"},
        "tasks": {"mail": {"type": "classification", "data": "rows.csv", "text": "txt", "label": "label"}},
        "methods": ["lorra"],
        "budget": {"trials": 2},
    }
    (tmp_path / "broken.yaml").write_text(yaml.safe_dump(broken, sort_keys=False))
    code, out, err = command("plan", "broken.yaml")
    assert (code, out) == (2, "")
    lines = err.splitlines()
    assert len(lines) == 3
    for line, part in zip(lines, ("backbone.quantisation", "tasks.mail.text", "methods[0]"), strict=True):
        assert line.startswith(f"broken.yaml: {part}: ")
    assert command("run", "broken.yaml") == (2, "", err)


@pytest.mark.parametrize("name", ["plan", "run"])
def test_missing_configuration_file_is_one_line(command: Command, name: str) -> None:
    code, out, err = command(name, "nowhere.yaml")
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert "nowhere.yaml" in line


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "orchestrator.cli", "plan", "nowhere.yaml", "--debug"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path(cli.__file__).parent.parent), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.returncode == 1
    assert "Traceback" in shown.stderr
    assert "InputError" in shown.stderr


@pytest.mark.parametrize(
    ("error", "code", "lines"),
    [
        (SweepError("no trial came to a result"), 1, ["peft-sweep: no trial came to a result"]),
        (SweepError("https://ann:s3cret@host is away"), 1, ["peft-sweep: https://***@host is away"]),
        (
            ValueError("s3://key:s3cret@bucket"),
            1,
            ["peft-sweep: unexpected ValueError: s3://***@bucket", "run it again with --debug to see the traceback"],
        ),
        (
            KeyError("odd\nand long"),
            1,
            ["peft-sweep: unexpected KeyError: 'odd\\nand long'", "run it again with --debug to see the traceback"],
        ),
        (
            ValueError("odd\nand long"),
            1,
            ["peft-sweep: unexpected ValueError: odd", "run it again with --debug to see the traceback"],
        ),
    ],
)
def test_errors_print_short_lines_and_exit_codes(
    command: Command, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int, lines: list[str]
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr("orchestrator.config.json_schema", fail)
    ended, out, err = command("schema")
    assert (ended, out, err.splitlines()) == (code, "", lines)


def test_init_writes_a_configuration_and_never_overwrites(command: Command, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,label\n" + "".join(f"some text {i},{'ab'[i % 2]}\n" for i in range(9)))
    code, out, err = command("init", "rows.csv")
    assert (code, err) == (0, "")
    assert out.splitlines()[:2] == ["wrote sweep.yaml", "  rows look like texts with a label: text, label"]
    assert out.splitlines()[-1].endswith("plan sweep.yaml")
    before = (tmp_path / "sweep.yaml").read_text()
    assert command("init", "rows.csv") == (
        2,
        "",
        "sweep.yaml: is there already; move it away, or work in another folder\n",
    )
    assert (tmp_path / "sweep.yaml").read_text() == before


def test_schema_accepts_examples_and_refuses_a_typo(command: Command) -> None:
    code, out, err = command("schema")
    assert (code, err) == (0, "")
    schema = json.loads(out)
    assert schema == json.loads(json.dumps(json_schema()))
    jsonschema.Draft202012Validator.check_schema(schema)
    assert EXAMPLES
    for example in EXAMPLES:
        values = yaml.safe_load(example.read_text())
        jsonschema.validate(values, schema)
        if "plugins" in values:  # whose methods may have any name
            continue
        with pytest.raises(jsonschema.ValidationError, match="lorra"):
            jsonschema.validate({**values, "methods": ["lorra"]}, schema)


def test_plan_json_is_the_only_output(command: Command, sweep: Callable[..., str]) -> None:
    code, out, err = command("plan", sweep(), "--json")
    assert code == 0
    values = json.loads(out)
    assert [row["name"] for row in values["tasks"]["mail"]["methods"]] == ["lora", "linear_probe"]
    assert err == "mail: reading the data and trying the methods on the architecture ...\n"


def test_plan_shows_data_backbone_and_budget(command: Command, sweep: Callable[..., str]) -> None:
    code, out, _ = command("plan", sweep(budget={"trials": 2, "wall_time": "90s"}, training={"max_steps": 40}))
    assert code == 0
    text = " ".join(out.split())
    for part in (
        "mail · classification · 40 rows (24 train, 8 validation, 8 test)",
        "nf4 + double quantization",
        "budget 2 trials or 1:30 of wall time · rungs at 10, 20, 40 steps",
        "next: peft-sweep run mail.yaml",
    ):
        assert part in text
    assert not list(Path().glob("sweeps*"))  # nothing was started


def test_run_refuses_ray_client_before_reading_anything(command: Command) -> None:
    code, out, err = command("run", "nowhere.yaml", "--address", "ray://head:10001")
    assert (code, out) == (2, "")
    assert err.startswith("--address: ray://head:10001: Ray Client is not supported")


@pytest.mark.parametrize("tried", [False, True])
def test_methods_json_has_a_row_per_method(command: Command, sweep: Callable[..., str], tried: bool) -> None:
    sweep()
    code, out, err = command("methods", "--json", *(["--backbone", "./model"] if tried else []))
    assert (code, err) == (0, "")
    rows = json.loads(out)
    assert {tuple(sorted(row)) for row in rows} == {tuple(sorted(ROW_KEYS))}
    assert "lora" in [row["name"] for row in rows]
    trains = {row["name"] for row in rows if tried and row["available"]} - {"hard_prompt"}
    assert {row["name"] for row in rows if row["trainable"] > 0} == trains


def test_methods_shows_references_and_what_is_left_out(command: Command, sweep: Callable[..., str]) -> None:
    sweep()
    assert "Hu et al." in command("methods")[1]
    code, out, err = command("methods", "--backbone", "./model", "--task", "causal-lm")
    assert (code, err) == (0, "")
    _, left_out = out.split("left out")
    assert "linear_probe: cannot train causal-lm tasks" in left_out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--task", "ordinal"], f"--task: ordinal: unknown task type; write one of {', '.join(TASK_TYPES)}"),
        (["--backbone", "x", "--quantization", "nf5"], "--quantization: nf5: write nf4, fp4, int8 or none"),
        (
            ["--backbone", "package:not_there/model"],
            "package:not_there/model: the package is not installed; pip install not-there",
        ),
    ],
)
def test_methods_refuses_unknown_arguments_in_one_line(command: Command, arguments: list[str], line: str) -> None:
    assert command("methods", *arguments) == (2, "", line + "\n")


def test_models_of_an_empty_registry_and_unknown_model(command: Command, tmp_path: Path) -> None:
    store = ["--tracking-uri", f"sqlite:///{tmp_path / 'mlflow.db'}"]
    code, out, _ = command("models", "list", *store)
    assert (code, out) == (0, "no models are registered here; peft-sweep demo registers one\n")
    assert json.loads(command("models", "list", *store, "--json")[1]) == []
    for name in ("show", "verify"):
        lines = [f"mail@champion: nothing is registered in {store[1]} yet", "run a sweep first"]
        code, out, err = command("models", name, "mail@champion", *store)
        assert (code, out, err.splitlines()) == (2, "", lines)
