"""One trial as it is done without this project: transformers, `peft` and bitsandbytes, trained by ``Trainer``.

Written for speed: frozen products in bfloat16, no dropout, and nothing logged, saved or drawn on the way. Activations
are in float32: in bfloat16, under autocast, a trial took up to half as long again, since torch's attention has no fast
backward pass in bfloat16 on a processor.
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

Rows = Mapping[str, tuple[NDArray[np.int64], NDArray[np.int64]]]
"""By split: token ids of shape ``(rows, TOKENS)`` and labels of shape ``(rows,)``."""


@dataclass(frozen=True)
class Trained:
    """What came of a trial: macro-F1 on validation, and the loss of every step."""

    score: float
    losses: tuple[float, ...]


def tokenized(asked: Comparison) -> Rows:
    """The training rows in the order of the steps, and the validation rows."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(asked.model)
    found = {}
    for split in ("train", "validation"):
        table = parquet.read_table(Path(asked.data) / f"{split}.parquet")
        ids = tokenizer(table["text"].to_pylist(), truncation=True, max_length=TOKENS)["input_ids"]
        labels = np.array([asked.labels.index(label) for label in table["label"].to_pylist()])
        found[split] = (np.array(ids), labels)
    order = np.array(asked.order)
    return {**found, "train": (found["train"][0][order], found["train"][1][order])}


def load_backbone(model: str, labels: int, products: torch.dtype = torch.bfloat16) -> nn.Module:
    """The checkpoint with its blocks in NF4, quantized as it is read.

    Args:
        model: its folder.
        labels: classes.
        products: what the quantized layers multiply in.
    """
    from transformers import AutoModelForSequenceClassification, BitsAndBytesConfig

    quantize: Any = BitsAndBytesConfig  # it has no types
    quantization = quantize(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=products,
        llm_int8_skip_modules=["classifier", HEAD],
    )
    loaded: nn.Module = AutoModelForSequenceClassification.from_pretrained(
        model,
        quantization_config=quantization,
        num_labels=labels,
        dtype=torch.float32,
        device_map="cpu",
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return loaded


def with_adapter(backbone: nn.Module, method: str, params: Mapping[str, Any], seed: int) -> nn.Module:
    """`peft`'s adapter on a backbone that is the trial's own."""
    from peft import get_peft_model

    torch.manual_seed(seed)
    model: nn.Module = get_peft_model(backbone, _adapter(method, params))
    return model


def train(model: nn.Module, params: Mapping[str, Any], rows: Rows, steps: int, seed: int) -> Trained:
    """Train for ``steps`` steps in the order of the rows, then score the validation rows."""
    from sklearn.metrics import f1_score
    from transformers import Trainer, TrainingArguments

    losses: list[float] = []

    class InOrder(Trainer):
        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            ordered: Any = train_dataset or self.train_dataset
            return torch.utils.data.SequentialSampler(ordered)

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
        trainer = InOrder(model=model, args=arguments, train_dataset=_Dataset(*rows["train"]))
        trainer.train()
        logits = trainer.predict(_Dataset(*rows["validation"])).predictions
    predicted = np.argmax(np.asarray(logits), axis=1)
    score = f1_score(rows["validation"][1], predicted, average="macro", zero_division=0.0)
    return Trained(float(score), tuple(losses))


def _adapter(method: str, params: Mapping[str, Any]) -> Any:
    from peft import IA3Config, LoraConfig, PrefixTuningConfig, PromptTuningConfig

    common: dict[str, Any] = {"task_type": "SEQ_CLS", "modules_to_save": [HEAD]}
    if method == "lora":
        rank, alpha = params["rank"], params["alpha_ratio"] * params["rank"]
        return LoraConfig(r=rank, lora_alpha=alpha, target_modules=BLOCK_LINEARS, **common)
    if method == "ia3":
        scaled = rf".*\.(key|value)|{FEED_FORWARD_OUT}"
        return IA3Config(target_modules=scaled, feedforward_modules=FEED_FORWARD_OUT, **common)
    kinds = {"prefix": PrefixTuningConfig, "prompt": PromptTuningConfig}
    return kinds[method](num_virtual_tokens=params["tokens"], **common)


class _Dataset(torch.utils.data.Dataset[dict[str, Tensor]]):
    def __init__(self, ids: NDArray[np.int64], labels: NDArray[np.int64]) -> None:
        self._ids, self._labels = torch.tensor(ids), torch.tensor(labels)

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, place: int) -> dict[str, Tensor]:
        ids = self._ids[place]
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": self._labels[place]}
