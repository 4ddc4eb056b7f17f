"""Source tasks, from which a trial learns first, and overrides of hard prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.common.errors import InputError
from orchestrator.config.load import load_config
from orchestrator.search.space import resolve

TASK = {"type": "classification", "data": "rows.csv", "text": "text", "label": "label"}
WRITING = {"type": "causal-lm", "data": "rows.csv", "prompt": "text", "completion": "label"}


def written(folder: Path, **changes: Any) -> Path:
    (folder / "rows.csv").write_text("text,label\nhello,a\n")
    values = {
        "backbone": {"model": "org/name"},
        "tasks": {"mail": TASK, "news": TASK, "notes": WRITING},
        "budget": {"trials": 2},
    }
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump({**values, **changes}, sort_keys=False))
    return path


def tasks(*sources: str) -> dict[str, Any]:
    return {"tasks": {"mail": {**TASK, "source_tasks": list(sources)}, "news": TASK, "notes": WRITING}}


def test_source_tasks_are_names_of_other_tasks(tmp_path: Path) -> None:
    config = load_config(written(tmp_path, **tasks("news")))
    assert config.tasks["mail"].source_tasks == ["news"]
    assert config.tasks["news"].source_tasks == []


@pytest.mark.parametrize(
    ("sources", "line"),
    [
        (["mail"], "tasks.mail.source_tasks[0]: 'mail' is the task itself; name another task of this sweep"),
        (["news", "newz"], "tasks.mail.source_tasks[1]: 'newz' is not a task of this sweep; did you mean news?"),
        (["news", "news"], "tasks.mail.source_tasks[1]: 'news' is given twice"),
        (
            ["notes"],
            "tasks.mail.source_tasks[0]: 'notes' is a causal-lm task; name a classification task",
        ),
    ],
)
def test_source_tasks_refuse_unusable_names_in_one_line(tmp_path: Path, sources: list[str], line: str) -> None:
    path = written(tmp_path, **tasks(*sources))
    with pytest.raises(InputError) as caught:
        load_config(path)
    assert caught.value.lines() == [f"{path}: {line}"]


def test_source_tasks_of_the_only_task_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, tasks={"mail": {**TASK, "source_tasks": ["news"]}})
    with pytest.raises(InputError, match="'news' is not a task of this sweep; this sweep has no other task"):
        load_config(path)


def test_hard_prompt_override_accepts_any_text(tmp_path: Path) -> None:
    template = "Review: {text}\nStars: {label}"
    overridden = {
        "hard_prompt": {"template": {"choices": ["label", template]}, "verbalizers": {"value": "a=good; b=bad"}}
    }
    config = load_config(written(tmp_path, search_space=overridden))
    overrides = {name: override.model_dump() for name, override in config.search_space["hard_prompt"].items()}
    space = resolve("hard_prompt", overrides)
    assert space.distributions["template"].choices == ("label", template)  # type: ignore[attr-defined]
    assert space.default["template"] == "label"
    assert space.default["verbalizers"] == "a=good; b=bad"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"choices": ["label", 3]}, "3 is not possible"),
        ({"low": 1, "high": 2}, "cannot be a range"),
    ],
)
def test_hard_prompt_override_refuses_what_is_not_text(tmp_path: Path, override: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_config(written(tmp_path, search_space={"hard_prompt": {"template": override}}))
