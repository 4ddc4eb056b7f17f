"""What a sweep may say about the words of its tasks, and about other tasks to learn from first."""

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


def test_a_task_names_others_to_learn_from(tmp_path: Path) -> None:
    config = load_config(written(tmp_path, **tasks("news")))
    assert config.tasks["mail"].source_tasks == ["news"]
    assert config.tasks["news"].source_tasks == []


@pytest.mark.parametrize(
    ("sources", "line"),
    [
        (["mail"], "tasks.mail.source_tasks[0]: 'mail' is the task itself; name another one of this sweep"),
        (["news", "newz"], "tasks.mail.source_tasks[1]: 'newz' is no task of this sweep; did you mean news?"),
        (["news", "news"], "tasks.mail.source_tasks[1]: 'news' is given twice"),
        (
            ["notes"],
            "tasks.mail.source_tasks[0]: 'notes' is a causal-lm task; a classification task is wanted",
        ),
    ],
)
def test_sources_that_cannot_be_are_one_line(tmp_path: Path, sources: list[str], line: str) -> None:
    path = written(tmp_path, **tasks(*sources))
    with pytest.raises(InputError) as caught:
        load_config(path)
    assert caught.value.lines() == [f"{path}: {line}"]


def test_the_only_task_has_no_others(tmp_path: Path) -> None:
    path = written(tmp_path, tasks={"mail": {**TASK, "source_tasks": ["news"]}})
    with pytest.raises(InputError, match="'news' is no task of this sweep; this sweep has no other one"):
        load_config(path)


def test_a_prompt_may_say_anything(tmp_path: Path) -> None:
    own = "Review: {text}\nStars: {label}"
    space = {"hard_prompt": {"template": {"choices": ["label", own]}, "verbalizers": {"value": "a=good; b=bad"}}}
    config = load_config(written(tmp_path, search_space=space))
    overrides = {name: override.model_dump() for name, override in config.search_space["hard_prompt"].items()}
    found = resolve("hard_prompt", overrides)
    assert found.distributions["template"].choices == ("label", own)  # type: ignore[attr-defined]
    assert found.default["template"] == "label"
    assert found.default["verbalizers"] == "a=good; b=bad"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"choices": ["label", 3]}, "3 is not possible"),
        ({"low": 1, "high": 2}, "cannot be a range"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path: Path, override: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_config(written(tmp_path, search_space={"hard_prompt": {"template": override}}))
