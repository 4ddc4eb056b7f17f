"""What ``peft-sweep preview`` shows: tokens, what is trained, what is cut."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from orchestrator import cli

TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}"
TEMPLATE += "{% if add_generation_prompt %}<assistant>{% endif %}"
Preview = Callable[..., tuple[int, str, str]]
CHAT = {"type": "causal-lm", "data": "rows.jsonl", "messages": "messages"}
LABELS = {"type": "classification", "data": "rows.jsonl", "text": "text", "label": "label"}


@pytest.fixture
def preview(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Preview:
    """Return a function that previews a task on a checkpoint without usable weights."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    model = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(pre_tokenizers.ByteLevel.alphabet())}, merges=[]))
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=model, eos_token="</s>", chat_template=TEMPLATE).save_pretrained("model")
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 300}
    Path("model/config.json").write_text(json.dumps({"model_type": "llama", "max_position_embeddings": 512, **shape}))
    save_file({"nothing": np.zeros(1, np.float32)}, "model/model.safetensors")
    rows = [
        {
            "messages": [{"role": "user", "content": f"ask {n} 🙂"}, {"role": "assistant", "content": f"say {n} é"}],
            "text": f"text {n}",
            "label": "ab"[n % 2],
        }
        for n in range(20)
    ]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def run(task: dict[str, Any], *arguments: str, max_length: int = 64) -> tuple[int, str, str]:
        values = {
            "backbone": {"model": "./model"},
            "tasks": {"mail": task},
            "methods": ["lora"],
            "budget": {"trials": 1},
        }
        Path("mail.yaml").write_text(yaml.safe_dump({**values, "training": {"max_length": max_length}}))
        monkeypatch.setattr(sys, "argv", ["peft-sweep", "preview", "mail.yaml", *arguments])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), *capfd.readouterr()

    return run


def test_preview_json_is_an_object_per_row_with_its_mask(preview: Preview) -> None:
    code, out, _ = preview(CHAT, "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert sorted(row["row"] for row in rows) == list(range(1, 21))
    for row in rows:
        assert set(row) == {"row", "tokens", "length", "cut", "trained"}
        assert all(set(token) == {"id", "text", "trained"} for token in row["tokens"])
        number = row["row"] - 1
        text = "".join(token["text"] for token in row["tokens"])
        assert text == f"<user>ask {number} 🙂</s><assistant>say {number} é</s>"
        trained = [token for token in row["tokens"] if token["trained"]]
        assert "".join(token["text"] for token in trained) == f"say {number} é</s>"
        assert (row["length"], row["trained"], row["cut"]) == (len(row["tokens"]), len(trained), 0)


def test_preview_shows_roles_marks_cuts_and_lengths(preview: Preview) -> None:
    code, out, _ = preview(CHAT, "--row", "3", max_length=30)
    assert code == 0
    assert "row 3: 30 tokens, 9 trained; " in out
    assert "⟦say 2 é</s>⟧" in out
    assert "assistant" in out.split("⟦")[0]
    assert "training.max_length" in out


def test_preview_of_labels_trains_no_token_and_shows_the_label(preview: Preview) -> None:
    code, out, _ = preview(LABELS, "--json", "--split", "train", "--rows", "2")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert len(rows) == 2
    assert all(row["trained"] == 0 and row["label"] == "ab"[(row["row"] - 1) % 2] for row in rows)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--row", "99"), "no row 99 is in train, validation, test"),
        (("--row", "9" * 24), f"no row {'9' * 24} is in train, validation, test"),
        (("--task", "mial"), "is not a task of mail; did you mean mail?"),
        (("--split", "dev"), "is not a split; write train, validation, test"),
    ],
)
def test_preview_of_what_is_not_there_is_one_line(preview: Preview, arguments: tuple[str, ...], message: str) -> None:
    code, out, err = preview(CHAT, *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1


def test_preview_starts_neither_ray_nor_mlflow() -> None:
    code = "import sys, orchestrator.planning.preview; print(*{name.partition('.')[0] for name in sys.modules})"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "ray", "mlflow", "optuna", "peft"} & set(shown.stdout.split())


def test_chat_example_holds_what_its_script_makes() -> None:
    examples = Path(__file__).parents[2] / "examples"
    made = subprocess.run([sys.executable, examples / "chat.py"], capture_output=True, text=True, check=True)
    assert made.stdout == (examples / "chat.jsonl").read_text(encoding="utf-8")
