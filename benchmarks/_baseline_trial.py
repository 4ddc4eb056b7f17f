"""One trial without this project: a checkpoint of transformers in NF4, an adapter of `peft`, trained by ``Trainer``.

It is written for speed: frozen matmuls in bfloat16, no dropout, and no logging, checkpoints or progress bar.
Activations are in float32: in bfloat16, under autocast, a trial took up to 1.5 times as long, since torch's attention
has no fast backward pass in bfloat16 on a CPU.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pyarrow import parquet
from torch import Tensor, nn

from benchmarks._fixed_trials import BATCH, TOKENS, Comparison

HEAD = "bert.pooler"
EVALUATION_BATCH = 64
BLOCK_LINEARS = r".*encoder\.layer.*\.(query|key|value|dense)"
FEED_FORWARD_OUT = r".*\.\d+\.output\.dense"

Splits = Mapping[str, tuple[NDArray[np.int64], NDArray[np.int64]]]
"""Token ids of shape ``(rows, TOKENS)`` and class indices of shape ``(rows,)``, by split."""


@dataclass(frozen=True)
class TrainingResult:
    """Result of a trial.

    Args:
        score: macro-F1 on the validation rows.
        losses: training loss of every step.
    """

    score: float
    losses: tuple[float, ...]


def tokenize_splits(comparison: Comparison) -> Splits:
    """Return the training rows in the order in which the steps read them, and the validation rows."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(comparison.model)
    splits = {}
    for split in ("train", "validation"):
        table = parquet.read_table(Path(comparison.data) / f"{split}.parquet")
        ids = tokenizer(table["text"].to_pylist(), truncation=True, max_length=TOKENS)["input_ids"]
        labels = np.array([comparison.labels.index(label) for label in table["label"].to_pylist()])
        splits[split] = (np.array(ids), labels)
    order = np.array(comparison.order)
    return {**splits, "train": (splits["train"][0][order], splits["train"][1][order])}


def load_backbone(model: str, labels: int, matmul_dtype: torch.dtype = torch.bfloat16) -> nn.Module:
    """Load a checkpoint and quantize its blocks to NF4 while it is read.

    Args:
        model: folder of the checkpoint.
        labels: number of classes.
        matmul_dtype: precision of the matmuls with quantized weights.
    """
    from transformers import AutoModelForSequenceClassification, BitsAndBytesConfig

    untyped_config: Any = BitsAndBytesConfig  # transformers publishes no types for it
    quantization = untyped_config(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=matmul_dtype,
        llm_int8_skip_modules=["classifier", HEAD],
    )
    backbone: nn.Module = AutoModelForSequenceClassification.from_pretrained(
        model,
        quantization_config=quantization,
        num_labels=labels,
        dtype=torch.float32,
        device_map="cpu",
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return backbone


def add_adapter(backbone: nn.Module, method: str, params: Mapping[str, Any], seed: int) -> nn.Module:
    """Wrap a backbone in an adapter of `peft`, which modifies the backbone."""
    from peft import get_peft_model

    torch.manual_seed(seed)
    model: nn.Module = get_peft_model(backbone, _adapter_config(method, params))
    return model


def train(model: nn.Module, params: Mapping[str, Any], splits: Splits, steps: int, seed: int) -> TrainingResult:
    """Train for ``steps`` optimizer steps in the order of the training rows, then score the validation rows."""
    from sklearn.metrics import f1_score
    from transformers import Trainer, TrainingArguments

    losses: list[float] = []

    class SequentialTrainer(Trainer):
        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            dataset: Any = train_dataset or self.train_dataset
            return torch.utils.data.SequentialSampler(dataset)

        def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
            loss: Tensor = super().training_step(*args, **kwargs)
            losses.append(loss.item())
            return loss

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=steps,
            per_device_train_batch_size=BATCH,
            per_device_eval_batch_size=EVALUATION_BATCH,
            learning_rate=params["learning_rate"],
            weight_decay=params["weight_decay"],
            warmup_steps=math.ceil(params["warmup"] * steps),
            lr_scheduler_type="linear",
            max_grad_norm=1.0,
            use_cpu=True,
            seed=seed,
            label_names=["labels"],
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = SequentialTrainer(model=model, args=arguments, train_dataset=_Dataset(*splits["train"]))
        trainer.train()
        logits = trainer.predict(_Dataset(*splits["validation"])).predictions
    predictions = np.argmax(np.asarray(logits), axis=1)
    score = f1_score(splits["validation"][1], predictions, average="macro", zero_division=0.0)
    return TrainingResult(float(score), tuple(losses))


def _adapter_config(method: str, params: Mapping[str, Any]) -> Any:
    from peft import IA3Config, LoraConfig, PrefixTuningConfig, PromptTuningConfig

    common_options: dict[str, Any] = {"task_type": "SEQ_CLS", "modules_to_save": [HEAD]}
    if method == "lora":
        rank, alpha = params["rank"], params["alpha_ratio"] * params["rank"]
        return LoraConfig(r=rank, lora_alpha=alpha, target_modules=BLOCK_LINEARS, **common_options)
    if method == "ia3":
        modules = rf".*\.(key|value)|{FEED_FORWARD_OUT}"
        return IA3Config(target_modules=modules, feedforward_modules=FEED_FORWARD_OUT, **common_options)
    config_types = {"prefix": PrefixTuningConfig, "prompt": PromptTuningConfig}
    return config_types[method](num_virtual_tokens=params["tokens"], **common_options)


class _Dataset(torch.utils.data.Dataset[dict[str, Tensor]]):
    def __init__(self, ids: NDArray[np.int64], labels: NDArray[np.int64]) -> None:
        self._ids, self._labels = torch.tensor(ids), torch.tensor(labels)

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        ids = self._ids[index]
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": self._labels[index]}
