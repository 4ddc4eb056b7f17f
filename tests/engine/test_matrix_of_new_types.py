"""The capability matrix of encoder-decoders and embedding models: what it promises trains, loads and merges."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import methods
from methods.base.spec import MethodError
from orchestrator.engine.step import train_step
from orchestrator.planning.capability import Probe, list_methods, try_method
from orchestrator.tasks import TASK_TYPES

from ..architectures import config_of
from ..small_backbone import dataset, share, trial, words

pytestmark = pytest.mark.filterwarnings(
    # peft 0.21 uses a name that transformers 5 has deprecated, when it attaches
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",
)
MODELS = [("t5", "seq2seq"), ("bart", "seq2seq"), ("bert", "embedding"), ("llama", "embedding")]
SAMPLE = ("lora", "full", "norm_tuning", "additive_prompt")
PAIRS = [(words(*range(4, 6 + n % 5), 30 + n), words(*range(50, 51 + n % 4), 80 + n)) for n in range(8)]
VIRTUAL_TOKENS = {"prompt", "prefix", "p_tuning", "multitask_prompt", "peft:cartridge"}
REFUSED = {
    ("t5", "seq2seq"): {"linear_probe", "hard_prompt", "bitfit", *VIRTUAL_TOKENS},
    ("bart", "seq2seq"): {"linear_probe", "hard_prompt", *VIRTUAL_TOKENS},
    ("bert", "embedding"): {"linear_probe", "hard_prompt", "multitask_prompt"},
    ("llama", "embedding"): {"linear_probe", "hard_prompt", "multitask_prompt", "bitfit"},
}
Check = Callable[[str, str, str], None]


@cache
def probe_of(name: str, task: str) -> Probe:
    return Probe(config_of(name), TASK_TYPES[task], name=name, labels=0, quantization="nf4")


@pytest.fixture(scope="module")
def check(tmp_path_factory: pytest.TempPathFactory) -> Check:
    @cache
    def backbone_of(name: str, task: str) -> Any:
        return share(config_of(name), task, tmp_path_factory.mktemp(f"{name}-{task}"))

    def train_and_load(name: str, task: str, method: str) -> None:
        capability, params = try_method(probe_of(name, task), method)
        if method in REFUSED[name, task]:
            assert capability.reason
            return
        assert capability.available, capability.reason
        backbone, kind = backbone_of(name, task), TASK_TYPES[task]
        before, rows = backbone.checksum(), dataset(backbone, {"train": PAIRS, "validation": PAIRS})
        run = trial(method, backbone, rows, **{**params, "batch_size": 4, "learning_rate": 1e-3})
        batch = rows.batch(np.arange(len(PAIRS)))
        untrained = _outputs(kind, run.attached.module, batch)
        assert [train_step([run]) for _ in range(3)] == [[]] * 3
        run.attached.train(False)
        folder: Path = tmp_path_factory.mktemp("saved") / "trial"
        run.save(folder)
        loaded = methods.load_adapter(backbone.view(9), folder / "adapter", backbone.context)
        loaded.train(False)
        expected = _outputs(kind, loaded.module, batch)
        assert torch.equal(expected, _outputs(kind, run.attached.module, batch))
        assert not torch.equal(expected, untrained)
        assert (loaded.merge is not None) == capability.mergeable
        if loaded.merge is not None:
            torch.testing.assert_close(_outputs(kind, loaded.merge(), batch), expected, rtol=1e-3, atol=1e-3)
        assert backbone.checksum() == before

    return train_and_load


def _outputs(kind: Any, module: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        outputs: torch.Tensor = kind.forward(module, batch)
    return outputs


@pytest.mark.parametrize("method", SAMPLE)
@pytest.mark.parametrize(("name", "task"), MODELS, ids=["-".join(pair) for pair in MODELS])
def test_matrix_of_new_types_is_true_for_four_methods(name: str, task: str, method: str, check: Check) -> None:
    check(name, task, method)


@pytest.mark.exhaustive
@pytest.mark.parametrize("method", [name for name in list_methods()[0] if name not in SAMPLE])
@pytest.mark.parametrize(("name", "task"), MODELS, ids=["-".join(pair) for pair in MODELS])
def test_matrix_of_new_types_is_true_for_all_methods(name: str, task: str, method: str, check: Check) -> None:
    check(name, task, method)


@pytest.mark.parametrize(
    ("name", "task", "reason"),
    [
        ("bert", "seq2seq", "bert models have no AutoModelForSeq2SeqLM in transformers"),
        ("t5", "embedding", "t5 models are encoder-decoders; embeddings need an encoder or a decoder"),
    ],
)
def test_probe_refuses_models_of_another_kind(name: str, task: str, reason: str) -> None:
    with pytest.raises(MethodError, match=f"^{reason}$"):
        probe_of(name, task)
