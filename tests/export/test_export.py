"""Trained adapters leave a sweep: as folders that others load, and merged into plain checkpoints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import PeftModel
from safetensors import safe_open
from torch import Tensor
from transformers import AutoTokenizer

import methods
from methods.base.spec import MethodError
from orchestrator import cli
from orchestrator.backbone.pretrained import pretrained
from orchestrator.common.errors import InputError
from orchestrator.export import export
from orchestrator.export.merged import difference, outputs, sample
from orchestrator.journal.events import Journal
from orchestrator.tasks import TASK_TYPES

from .small_sweep_folder import LABELS, SWEEP, Leave, Left

pytestmark = pytest.mark.filterwarnings(
    # peft 0.21 still asks transformers 5 by its old name when it attaches
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",
)
INPUTS = ("input_ids", "attention_mask")


def adapters_logits(trained: Left, folder: Path, task: str) -> tuple[dict[str, Tensor], Tensor]:
    """A few rows, and what the exported adapter makes of them on a backbone that was actual by its name."""
    labels = len(LABELS) if task == "classification" else 0
    backbone = pretrained(str(trained.checkpoint), task, labels=labels)
    attached = methods.load_adapter(backbone.view(99), folder, backbone.context)
    attached.train(False)
    tokens = sample(backbone.model.config, AutoTokenizer.from_pretrained(folder))
    batch = TASK_TYPES[task].dummy_batch(tokens["input_ids"], tokens["attention_mask"], labels)
    return batch, outputs(TASK_TYPES[task], attached.module, batch)


MERGES = [
    ("bert", "classification", "lora", {}),
    ("bert", "classification", "ia3", {}),
    ("bert", "classification", "full", {}),
    ("bert", "classification", "linear_probe", {}),
    ("gpt2", "classification", "lora", {}),
    ("gpt2", "causal-lm", "ia3", {}),
    ("gpt2", "causal-lm", "full", {}),
    ("llama", "classification", "last_layers", {}),
    ("llama", "causal-lm", "lora", {"rslora": True}),
    ("t5", "classification", "lora", {}),
    ("t5", "seq2seq", "lora", {}),
    ("bert", "embedding", "lora", {}),
    ("llama", "embedding", "lora", {}),
]
TASKS = [("bert", "classification"), ("gpt2", "classification"), ("gpt2", "causal-lm"), ("llama", "causal-lm")]
TASKS += [("t5", "classification")]


@pytest.mark.parametrize(("kind", "task", "method", "params"), MERGES, ids=lambda value: str(value or "-"))
def test_merged_checkpoint_has_the_adapter_s_logits(
    leave: Leave, tmp_path: Path, kind: str, task: str, method: str, params: dict[str, Any]
) -> None:
    trained = leave(kind, task, method, **params)
    trained.export(tmp_path / "adapter")
    made = trained.export(tmp_path / "plain", merged=True)
    batch, expected = adapters_logits(trained, tmp_path / "adapter", task)
    plain = getattr(transformers, TASK_TYPES[task].auto_class).from_pretrained(tmp_path / "plain")
    actual = outputs(TASK_TYPES[task], plain, batch)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)
    assert made.merged is not None
    assert difference(actual, expected) == pytest.approx(made.merged.largest_difference, abs=1e-6)
    assert made.merged.dtype == "float32"
    untouched = getattr(transformers, TASK_TYPES[task].auto_class).from_pretrained(trained.checkpoint, num_labels=3)
    if task != "classification":
        assert difference(outputs(TASK_TYPES[task], untouched.eval(), batch), expected) > 0.1, (
            "the adapter does something"
        )
        assert plain.config.tie_word_embeddings == untouched.config.tie_word_embeddings
    else:
        assert plain.config.id2label == dict(enumerate(LABELS))
    assert AutoTokenizer.from_pretrained(tmp_path / "plain")("good").input_ids


@pytest.mark.exhaustive
@pytest.mark.parametrize(("kind", "task"), TASKS, ids=["-".join(pair) for pair in TASKS])
@pytest.mark.parametrize("method", [name for name in methods.names() if methods.get(name).supports_merge])
def test_export_merges_every_mergeable_method(leave: Leave, tmp_path: Path, kind: str, task: str, method: str) -> None:
    try:
        trained = leave(kind, task, method)
    except MethodError as error:
        pytest.skip(str(error))
    trained.export(tmp_path / "adapter")
    made = trained.export(tmp_path / "plain", merged=True)
    batch, expected = adapters_logits(trained, tmp_path / "adapter", task)
    plain = getattr(transformers, TASK_TYPES[task].auto_class).from_pretrained(tmp_path / "plain")
    torch.testing.assert_close(outputs(TASK_TYPES[task], plain, batch), expected, rtol=1e-4, atol=1e-4)
    assert made.merged is not None


def test_merged_checkpoint_stores_tied_embeddings_once(leave: Leave, tmp_path: Path) -> None:
    leave("gpt2", "causal-lm", "lora").export(tmp_path / "plain", merged=True)
    with safe_open(tmp_path / "plain" / "model.safetensors", framework="pt") as opened:
        names = set(opened.keys())
        assert opened.get_slice("transformer.h.0.mlp.c_fc.weight").get_shape() == [32, 128], "as Conv1D keeps it"
    assert "transformer.wte.weight" in names
    assert "lm_head.weight" not in names


@pytest.mark.parametrize(("asked", "dtype"), [(None, "bfloat16"), ("float32", "float32"), ("float16", "float16")])
def test_merged_weights_have_the_backbone_s_precision_by_default(
    leave: Leave, tmp_path: Path, asked: str | None, dtype: str
) -> None:
    trained = leave("qwen3", "causal-lm", "lora")
    made = trained.export(tmp_path / "plain", merged=True, dtype=asked)
    assert made.merged is not None
    assert made.merged.dtype == dtype
    config = json.loads((tmp_path / "plain" / "config.json").read_text())
    assert (config["dtype"], config["use_cache"]) == (dtype, True)
    plain = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "plain")
    assert {str(p.dtype) for p in plain.parameters()} == {f"torch.{dtype}"}
    exact = made.merged.largest_difference < 1e-4
    assert exact == (dtype == "float32"), "rounding shows, and is told"


@pytest.mark.parametrize(
    ("method", "params", "reason"),
    [
        ("prefix", {}, "it adds tokens to the input, which no weight"),
        ("adapter", {}, "it adds layers, which no weight"),
        ("compose:prefix+lora", {}, "one of its parts cannot"),
        ("linear_probe", {"pooling": "mean"}, "with these parameters it changes more than weights"),
    ],
)
def test_export_refuses_unmergeable_methods_and_leaves_nothing(
    leave: Leave, tmp_path: Path, method: str, params: dict[str, Any], reason: str
) -> None:
    trained = leave("bert", "classification", method, **params)
    with pytest.raises(InputError) as caught:
        trained.export(tmp_path / "out" / "plain", merged=True)
    (line,) = caught.value.lines()
    assert line.startswith(f"{SWEEP}/{trained.trial}: --merged: {method} cannot be merged: {reason}")
    assert "leave out --merged" in line
    assert not (tmp_path / "out" / "plain").exists()


def test_export_refuses_a_merge_that_changes_logits(
    leave: Leave, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestrator.export import merged

    trained, original = leave("bert", "classification", "lora"), merged._like

    def forgetful(plain: Any, model: Any, name: str) -> Tensor:
        tensor = original(plain, model, name)
        return torch.zeros_like(tensor) if name == "bert.encoder.layer.1.output.dense.weight" else tensor

    monkeypatch.setattr(merged, "_like", forgetful)
    with pytest.raises(InputError, match="a plain BertForSequenceClassification cannot represent it: its results"):
        trained.export(tmp_path / "out" / "plain", merged=True)
    assert list((tmp_path / "out").iterdir()) == []


def test_exported_peft_adapter_loads_with_peft(leave: Leave, tmp_path: Path) -> None:
    trained = leave("bert", "classification", "lora")
    made = trained.export(tmp_path / "adapter")
    assert (made.peft, made.merged) == (True, None)
    plain = transformers.AutoModelForSequenceClassification.from_pretrained(trained.checkpoint, num_labels=3)
    model = PeftModel.from_pretrained(plain, str(tmp_path / "adapter")).eval()
    batch, expected = adapters_logits(trained, tmp_path / "adapter", "classification")
    assert 0 < difference(outputs(TASK_TYPES["classification"], model, batch), expected) < 3, (
        "what NF4 rounds is all that differs"
    )
    assert "PeftModel.from_pretrained" in (tmp_path / "adapter" / "README.md").read_text()


def own_lines(folder: Path) -> str:
    """The Python that a folder's README begins with."""
    return (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]


def test_exported_readme_code_of_seq2seq_generates_a_target(
    leave: Leave, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    leave("t5", "seq2seq", "adapter", bottleneck=8).export(tmp_path / "adapter")
    namespace: dict[str, Any] = {}
    exec(own_lines(tmp_path / "adapter"), namespace)
    tokens = {name: namespace["tokens"][name] for name in INPUTS}
    expected = namespace["adapter"].module.generate(**tokens, max_new_tokens=32)
    assert torch.equal(namespace["ids"], expected)
    text = AutoTokenizer.from_pretrained(tmp_path / "adapter").decode(expected[0], skip_special_tokens=True)
    assert isinstance(text, str)
    assert capsys.readouterr().out.strip() == text.strip()


def test_exported_readme_code_of_embedding_gives_a_vector(leave: Leave, tmp_path: Path) -> None:
    leave("bert", "embedding", "lora").export(tmp_path / "adapter")
    namespace: dict[str, Any] = {}
    exec(own_lines(tmp_path / "adapter"), namespace)
    tokens = {name: namespace["tokens"][name] for name in INPUTS}
    assert torch.equal(namespace["embedding"], TASK_TYPES["embedding"].forward(namespace["adapter"].module, tokens)[0])


@pytest.mark.parametrize(("kind", "pooling"), [("bert", "mean_tokens"), ("llama", "lasttoken")])
def test_merged_embedding_model_says_how_it_pools(leave: Leave, tmp_path: Path, kind: str, pooling: str) -> None:
    leave(kind, "embedding", "lora").export(tmp_path / "plain", merged=True)
    modules = json.loads((tmp_path / "plain" / "modules.json").read_text())
    assert [module["type"].rpartition(".")[2] for module in modules] == ["Transformer", "Pooling", "Normalize"]
    settings = json.loads((tmp_path / "plain" / modules[1]["path"] / "config.json").read_text())
    assert [name for name, value in settings.items() if value is True] == [f"pooling_mode_{pooling}"]
    assert "SentenceTransformer" in (tmp_path / "plain" / "README.md").read_text()


@pytest.mark.slow
def test_exported_readme_code_needs_no_ray_and_mlflow(leave: Leave, tmp_path: Path) -> None:
    leave("bert", "classification", "adapter").export(tmp_path / "adapter")
    blocked = "import sys\nsys.modules |= dict.fromkeys(['ray', 'mlflow', 'optuna'])\n"
    command, environment = (
        [sys.executable, "-c", blocked + own_lines(tmp_path / "adapter")],
        {**os.environ, "OMP_NUM_THREADS": "1"},
    )
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in LABELS


@pytest.mark.parametrize(
    ("kind", "task", "method"),
    [("bert", "classification", "adapter"), ("llama", "causal-lm", "prefix"), ("gpt2", "classification", "full")],
)
def test_exported_readme_code_gives_the_adapter_s_logits(
    leave: Leave, tmp_path: Path, kind: str, task: str, method: str
) -> None:
    trained = leave(kind, task, method)
    trained.export(tmp_path / "adapter")
    actual: dict[str, Any] = {}
    exec(own_lines(tmp_path / "adapter"), actual)
    backbone = pretrained(str(trained.checkpoint), task, labels=3 if task == "classification" else 0)
    attached = methods.load_adapter(backbone.view(99), tmp_path / "adapter", backbone.context)
    attached.train(False)
    assert torch.equal(actual["logits"], attached.module(**{k: actual["tokens"][k] for k in INPUTS}).logits)


def test_export_contains_the_method_s_plugin(leave: Leave, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("methods.plugins.loader._SOURCES", {})
    plugin = tmp_path / "my_method.py"
    plugin.write_bytes((Path(__file__).parents[2] / "examples" / "my_method.py").read_bytes())
    methods.register(plugin)
    trained = leave("bert", "classification", "my_method", (plugin, tmp_path / "not_this_one.py"))
    methods.plugins.loader._SOURCES.clear()
    assert not trained.export(tmp_path / "adapter").peft
    assert (tmp_path / "adapter" / "my_method.py").read_text() == plugin.read_text()
    assert "my_method" not in methods.plugins.loader._SOURCES, "to copy it, nothing of it is run"
    exec(own_lines(tmp_path / "adapter"), {})
    with pytest.raises(InputError, match="my_method cannot be merged"):
        trained.export(tmp_path / "plain", merged=True)
    plugin.unlink()
    assert f"came from {plugin}, which does not exist any more" in refusal(trained, tmp_path / "other", trained.trial)


def test_export_takes_a_trial_s_last_checkpoint(leave: Leave, tmp_path: Path) -> None:
    trained = leave("bert", "classification", "lora")
    checkpoints = trained.storage / SWEEP / "checkpoints" / trained.trial
    before = {f.name: f.read_bytes() for f in (checkpoints / "step-4" / "adapter").iterdir()}
    assert "README.md" in before, "peft's own, which is replaced in what is exported"
    trained.export(tmp_path / "rung")
    journal = Journal(trained.storage / SWEEP / "journal.jsonl")
    journal.append("test", trial=trained.trial, role="champion", step=8, checkpoint_score=0.5)
    (checkpoints / "step-8-test" / "adapter").mkdir(parents=True)
    changed = json.loads((checkpoints / "step-4" / "adapter" / "method.json").read_text())
    for file, content in before.items():
        (checkpoints / "step-8-test" / "adapter" / file).write_bytes(content)
    changed["params"]["warmup"] = 0.5
    (checkpoints / "step-8-test" / "adapter" / "method.json").write_text(json.dumps(changed))
    trained.export(tmp_path / "final")
    warmups = [json.loads((tmp_path / n / "method.json").read_text())["params"]["warmup"] for n in ("rung", "final")]
    assert warmups == [0.06, 0.5]
    assert {f.name: f.read_bytes() for f in (checkpoints / "step-4" / "adapter").iterdir()} == before


def test_export_finds_a_sweep_by_its_path(leave: Leave, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = leave("bert", "classification", "linear_probe")
    monkeypatch.chdir(tmp_path)
    made = export(
        f"sweeps/{SWEEP}/{trained.trial}", merged=False, out=None, dtype=None, storage="elsewhere", tracking_uri=""
    )
    assert made.folder == Path(f"{SWEEP}-mail-linear_probe-3")
    assert {"method.json", "adapter.safetensors", "tokenizer.json", "README.md"} <= {
        file.name for file in made.folder.iterdir()
    }
    assert made.bytes > 1000


def refusal(trained: Left, out: Path, trial: str) -> str:
    with pytest.raises(InputError) as caught:
        trained.export(out, trial=trial)
    (line,) = caught.value.lines()
    return line


def test_export_of_an_unknown_reference_suggests_known_ones(leave: Leave, tmp_path: Path) -> None:
    trained, out = leave("bert", "classification", "linear_probe"), tmp_path / "out"
    assert "has no trial mail/linear_prob/3; there is mail/linear_probe/" in refusal(trained, out, "mail/linear_prob/3")
    assert "the trial has no adapter (ValueError: no luck)" in refusal(trained, out, "mail/linear_probe/4")
    assert "is neither a trial nor a model; write SWEEP/TASK/METHOD/NUMBER" in refusal(trained, out, "mail/lora/best")
    with pytest.raises(InputError, match=f"there is no sweep mail-2026 in .*; there is {SWEEP}"):
        export(
            f"mail-2026/{trained.trial}",
            merged=False,
            out=out,
            dtype=None,
            storage=str(trained.storage),
            tracking_uri="",
        )


def test_export_refuses_a_folder_that_is_not_empty(leave: Leave, tmp_path: Path) -> None:
    trained = leave("bert", "classification", "linear_probe")
    (tmp_path / "out").mkdir()
    trained.export(tmp_path / "out")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match="exists and is not an empty folder"):
        trained.export(tmp_path / "out")
    assert sorted(tmp_path.rglob("*")) == before


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["peft-sweep", "export", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_export_command_prints_folder_and_next_step(
    leave: Leave, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = leave("bert", "classification", "lora")
    monkeypatch.chdir(tmp_path)
    reference = f"{SWEEP}/{trained.trial}"
    capsys.readouterr()  # what was printed before is not the command's
    assert command(monkeypatch, reference, "--merged", "--out", "plain") == 0
    printed, noise = capsys.readouterr()
    assert printed.startswith("plain: ")
    assert noise == ""
    assert "results differ from the adapter's by" in printed
    assert 'AutoModelForSequenceClassification.from_pretrained("plain")' in printed
    assert command(monkeypatch, reference, "--out", "adapter", "--json") == 0
    actual = json.loads(capsys.readouterr().out)
    assert (actual["folder"], actual["peft"], actual["merged"]) == ("adapter", True, None)
    assert actual["labels"] == list(LABELS)
    assert command(monkeypatch, reference, "--out", "plain") == 2
    assert command(monkeypatch, reference, "--dtype", "float16", "--out", "other") == 2
    assert command(monkeypatch, reference, "--merged", "--dtype", "int4", "--out", "other") == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert not (tmp_path / "other").exists()
