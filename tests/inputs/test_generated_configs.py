"""Whatever a sweep.yaml holds, it is a configuration or a line for each mistake."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from orchestrator.config import load_config
from tests.inputs.generated import changed, ends_well, tried, values

CONFIG: dict[str, Any] = {
    "name": "mail",
    "backbone": {"model": "org/name", "quantization": "nf4", "revision": "main", "chat_template": "chat.jinja"},
    "tasks": {
        "mail": {"type": "classification", "data": "mail.csv", "text": "text", "label": "label", "metric": ["mcc"]}
        | {"split": {"train": 0.6, "validation": 0.2, "test": 0.2}, "where": {"stars": {"at_least": 1}}},
        "stars": {"type": "regression", "data": {"train": "mail.csv", "validation": "mail.csv", "test": "mail.csv"}}
        | {"text": "text", "target": "stars"},
        "say": {"type": "causal-lm", "data": "mail.csv", "prompt": "{text}?", "completion": "label"},
        "tag": {"type": "token-classification", "data": "mail.csv", "tokens": "text", "tags": "label"},
    },
    "methods": ["lora", "compose:lora+ia3", "peft:loha", "hard_prompt"],
    "search_space": {
        "lora": {
            "rank": {"choices": [4, 8]},
            "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
            "batch_size": {"low": 4, "high": 12, "step": 4},
            "dropout": {"value": 0.1},
        }
    },
    "budget": {"trials": 6, "wall_time": "2h", "lane_hours": 2.5, "money": 3.0, "cost_per_lane_hour": 1.0},
    "training": {"max_steps": 4, "max_length": 16, "clip_norm": 1.0},
    "search": {"sampler": "tpe", "constraints": ["adapter <= 10 MB"], "allocation": "race", "first_rung": 0.5}
    | {"early_stopping": True, "warm_start": ["auto"]},
    "selection": {"seeds": 3, "contenders": 4, "prefer": "size"},
    "lanes": {"min": 1, "max": "auto", "workers": 1, "pack": 2, "cpus": 1.0, "gpus": 0.5, "gpu_memory": "80GB"},
    "mlflow": {"tracking_uri": "sqlite:///mlflow.db", "registry_uri": "sqlite:///mlflow.db", "experiment": "x"},
    "plugins": ["plugin.py"],
    "storage": "sweeps",
    "seed": 1,
}
PLUGIN = "SPEC = SPACE = None\n"


def load(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "mail.csv").write_text("text,label,stars\nhello there,a,1\n")
        (Path(folder) / "chat.jinja").write_text("{{ messages }}")
        (Path(folder) / "plugin.py").write_text(PLUGIN)
        (file := Path(folder) / "sweep.yaml").write_bytes(content)
        ends_well(lambda: load_config(file))


def check_changed(config: Any) -> None:
    load(yaml.safe_dump(config, allow_unicode=True).encode("utf-8", "surrogatepass"))


def check_text(parts: tuple[int, int, bytes]) -> None:
    content = yaml.safe_dump(CONFIG).encode()
    start, stop, inserted = parts
    load(content[:start] + inserted + content[stop:])


places = st.integers(0, len(yaml.safe_dump(CONFIG)))
bytes_of_yaml = st.text("&*!|>'\"%@`[]{},:-?#~ \n\t\0abc019.", max_size=8).map(str.encode) | st.binary(max_size=4)

test_changed_config, test_changed_config_many_times = tried(changed(CONFIG, values))(check_changed)
test_config_text, test_config_text_many_times = tried(st.tuples(places, places, bytes_of_yaml))(check_text)
