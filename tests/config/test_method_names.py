"""What a configuration may call a method, and how soon it is told that it may not."""

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

import methods
from orchestrator.common.errors import InputError
from orchestrator.common.trial_types import TrialKey, checkpoint_path
from orchestrator.config import json_schema, load_config
from orchestrator.config.plugins import check_plugins, plugin_sources

EXAMPLE = Path(__file__).parents[2] / "examples" / "my_method.py"
VALID: dict[str, Any] = {
    "backbone": {"model": "org/model"},
    "tasks": {"mail": {"type": "classification", "data": "rows.csv", "text": "t", "label": "l", "metric": "accuracy"}},
    "budget": {"trials": 1},
}


def write(folder: Path, **changes: Any) -> Path:
    (folder / "rows.csv").write_text("t,l\n")
    (folder / "my_method.py").write_text(EXAMPLE.read_text())
    file = folder / "sweep.yaml"
    file.write_text(yaml.safe_dump({**VALID, **changes}))
    return file


def lines(folder: Path, **changes: Any) -> list[str]:
    with pytest.raises(InputError) as raised:
        load_config(write(folder, **changes))
    return [line.partition(": ")[2] for line in raised.value.lines()]


def test_methods_are_files_family_members_and_plugins(tmp_path: Path) -> None:
    names = ["lora", "peft:boft", "compose:prefix+adapter", "compose:a=adapter+b=adapter+peft:oft"]
    names += ["my_method", "compose:my_method+ia3"]
    config = load_config(write(tmp_path, plugins=["my_method.py"], methods=names))
    assert config.methods == names
    assert config.plugin_names == ("my_method",)
    assert config.resolved()["plugins"] == [str(tmp_path / "my_method.py")]


def test_methods_default_to_all_files(tmp_path: Path) -> None:
    assert load_config(write(tmp_path)).methods == list(methods.names())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_methd", 'unknown method "my_methd"; did you mean my_method?'),
        ("peft:bofd", 'unknown method "peft:bofd"; did you mean peft:boft?'),
        ("boft", 'unknown method "boft"; did you mean peft:boft?'),
        ("peft:lora", "peft:lora is the method lora; write lora"),
        ("peft:xlora", "peft:xlora mixes LoRA adapters that were trained before"),
        ("compose:prefix+adaptr", 'compose:prefix+adaptr: unknown method "adaptr"; did you mean adapter?'),
        ("compose:lora+full", "compose:lora+full: full cannot be part of a composition: it trains every weight"),
        ("compose:lora+lora", "compose:lora+lora: two parts are called lora; name them, as in first=lora+second=lora"),
        ("compose:", "compose: names no parts; write them behind it"),
        ("_compose", 'unknown method "_compose"; '),
        ("other:lora", 'unknown method "other:lora"; known: adalora, '),
        ("zzzzzzzz", 'unknown method "zzzzzzzz"; known: adalora, adapter, '),
    ],
)
def test_unknown_method_is_one_line_with_a_suggestion(name: str, message: str, tmp_path: Path) -> None:
    (line,) = lines(tmp_path, plugins=["my_method.py"], methods=["lora", name])
    assert line.startswith(f"methods[1]: {message}")


def test_plugin_mistake_is_reported_once(tmp_path: Path) -> None:
    (tmp_path / "empty.py").write_text("")
    (tmp_path / "lora.py").write_text("SPEC = SPACE = 1")
    messages = lines(tmp_path, plugins=["gone.py", "empty.py", "lora.py"], methods=["gone", "empty", "lora"])
    assert messages == [
        f"plugins[0]: there is no {tmp_path / 'gone.py'}",
        "plugins[1]: empty.py: defines no SPEC and no SPACE; a plugin defines SPEC and SPACE",
        "plugins[2]: lora.py: lora is the name of a built-in method; give the file another name",
    ]


def test_plugins_of_the_same_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "my_method.py").write_text(EXAMPLE.read_text())
    (line,) = lines(tmp_path, plugins=["my_method.py", "sub/my_method.py"])
    assert line.startswith("plugins[1]: sub/my_method.py: two plugins are called my_method")


@pytest.mark.parametrize(
    ("method", "space", "message"),
    [
        (
            "compose:prefix+adapter",
            {"prefix.tokns": {"value": 3}},
            "prefix.tokns: unknown hyperparameter; did you mean",
        ),
        ("compose:prefix+adapter", {"lora.on": {"value": False}}, "lora.on: unknown hyperparameter; "),
        ("compose:prefix+adapter", {"prefix.batch_size": {"value": 8}}, "prefix.batch_size: unknown hyperparameter"),
        ("compose:prefix+adapter", {"layer_2": {"choices": [True, 1]}}, "layer_2.choices[1]: 1 is not possible; "),
        ("peft:hra", {"rr": {"value": 8}}, "rr: unknown hyperparameter; "),
    ],
)
def test_override_of_a_family_member_is_checked(method, space, message, tmp_path: Path) -> None:
    (line,) = lines(tmp_path, methods=[method], search_space={method: space})
    assert line.startswith(f"search_space.{method}.{message}")


def test_composition_switches_can_be_searched(tmp_path: Path) -> None:
    switch = {"choices": [True, False]}
    space = {"compose:prefix+adapter": {"layer_11": switch, "prefix.on": switch, "adapter.layer_0": {"value": False}}}
    assert load_config(write(tmp_path, search_space=space)).search_space


def test_plugin_overrides_are_checked_after_it_runs(tmp_path: Path) -> None:
    space = {"my_method": {"frist": {"value": 0.5}}, "compose:my_method+ia3": {"my_method.first": {"value": "half"}}}
    config = load_config(write(tmp_path, plugins=["my_method.py"], search_space=space))
    with pytest.raises(InputError) as raised:
        check_plugins(config)
    second, first = sorted(line.partition(": ")[2] for line in raised.value.lines())
    assert first == "search_space.my_method.frist: unknown hyperparameter; did you mean first?"
    assert second.startswith("search_space.compose:my_method+ia3.my_method.first.value: 'half' is not possible")


def test_plugin_that_breaks_the_contract_is_one_line(tmp_path: Path) -> None:
    file = write(tmp_path, plugins=["my_method.py"], methods=["my_method"])
    broken = EXAMPLE.read_text().replace("torch.ones", "torch.zeros")
    (tmp_path / "my_method.py").write_text(broken)
    with pytest.raises(InputError) as raised:
        check_plugins(load_config(file))
    (line,) = raised.value.lines()
    assert "plugins[0]: my_method.py: SPEC declares starts_as_identity, and a fresh attachment changes" in line


def test_plugin_sources_are_sent_to_lanes(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, plugins=["my_method.py"], methods=["my_method"]))
    check_plugins(config)
    assert plugin_sources(config) == (("my_method", EXAMPLE.read_text()),)


def test_method_names_are_checked_without_torch(tmp_path: Path) -> None:
    names = ["my_method", "compose:serial=adapter+peft:boft", "peft:oft"]
    space = {names[1]: {"boft.learning_rate": {"low": 1e-4, "high": 1e-3}}, "my_method": {"first": {"value": 0.1}}}
    file = write(tmp_path, plugins=["my_method.py"], methods=names, search_space=space)
    code = f"""
        import sys
        from pathlib import Path
        from orchestrator.config import load_config
        load_config(Path({str(file)!r}))
        assert not {{"torch", "peft", "transformers"}} & set(sys.modules)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


def test_schema_accepts_the_same_method_names() -> None:
    def invalid_paths(**changes: Any) -> set[str]:
        return {error.json_path for error in Draft202012Validator(json_schema()).iter_errors({**VALID, **changes})}

    assert invalid_paths(methods=["lora", "peft:boft", "compose:prefix+adapter"]) == set()
    assert invalid_paths(methods=["my_method"]) == {"$.methods[0]"}
    assert invalid_paths(plugins=["my_method.py"], methods=["my_method"], search_space={"my_method": {}}) == set()
    assert invalid_paths(search_space={"lorra": {}}) == {"$.search_space"}
    assert invalid_paths(plugins="my_method.py") == {"$.plugins"}


def test_checkpoint_paths_escape_equals_plus_and_colon() -> None:
    trial = TrialKey("mail/compose:serial=adapter+prefix", 3)
    assert TrialKey.parse(str(trial)) == trial
    assert (trial.task, trial.method) == ("mail", "compose:serial=adapter+prefix")
    assert checkpoint_path(trial, 4) == "checkpoints/mail/compose.serial~adapter-prefix/3/step-4"
