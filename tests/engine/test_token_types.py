"""Types of the tokens of pairs: as transformers makes them, by every method, in packs and in micro-batches."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    DebertaV2Config,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
)

import methods
import search_spaces
from methods.base.spec import MethodError, Quantization, TaskText
from orchestrator.backbone.checkpoint import write
from orchestrator.backbone.shared import SharedBackbone, load
from orchestrator.backbone.source import Source
from orchestrator.common.trial_types import Job, TrialKey
from orchestrator.config import Training
from orchestrator.engine.frozen_prefix import FrozenPrefix
from orchestrator.engine.micro_batches import split_micro_batches
from orchestrator.engine.step import train_step
from orchestrator.engine.task_dataset import TaskDataset
from orchestrator.engine.trial_run import TrialRun
from orchestrator.tasks import TaskData, TaskType, task_type
from orchestrator.tasks.regression import RegressionTask
from orchestrator.tasks.token_types import with_token_types
from orchestrator.tracking.bundle import Bundle, Environment
from orchestrator.tracking.predictor import Predictor

from ..methods.conftest import family_members
from ..methods.expected_support import expected_refusal

PAIR = RegressionTask(type="regression", data="rows.csv", text="one", text_pair="two", target="score")
SINGLE = RegressionTask(type="regression", data="rows.csv", text="one", target="score")
SCALE = {"mean": 0.5, "std": 0.25}
SIZES: dict[str, Any] = {"vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZES |= {"intermediate_size": 64, "max_position_embeddings": 96, "initializer_range": 0.3, "pad_token_id": 0}
ROWS, LONGEST = 24, 12
NARROW: dict[str, dict[str, Any]] = {"adapter": {"bottleneck": 8}}  # the default is wider than the model


def word_tokenizer() -> PreTrainedTokenizerFast:
    """A token per word, between the special tokens of BERT."""
    special = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3}
    model = Tokenizer(WordLevel({**special, **{f"w{k}": k for k in range(4, 40)}}, unk_token="[UNK]"))
    model.pre_tokenizer = Whitespace()
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    model.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    names = ["input_ids", "token_type_ids", "attention_mask"]
    special_tokens = {"pad_token": "[PAD]", "unk_token": "[UNK]"}
    return PreTrainedTokenizerFast(tokenizer_object=model, model_input_names=names, **special_tokens)


TOKENIZER = word_tokenizer()


def pairs(seed: int = 0) -> pa.Table:
    draw = np.random.default_rng(seed)
    texts = [
        [" ".join(f"w{k}" for k in draw.integers(4, 40, size)) for size in draw.integers(1, 9, ROWS)] for _ in "ab"
    ]
    return pa.table({"row": range(1, ROWS + 1), "text": texts[0], "text_pair": texts[1], "target": draw.random(ROWS)})


def data_of(config: RegressionTask = PAIR) -> TaskData:
    splits = {name: pairs(seed) for seed, name in enumerate(("train", "validation", "test"))}
    return TaskData("similarity", config, splits, ("score",), 0, 0, None, "digest", constants=SCALE)


def type_of(data: TaskData) -> TaskType:
    return task_type(data.config, labels=data.labels, constants=data.constants)


def typed() -> TaskType:
    return type_of(with_token_types(data_of(), BertConfig(**SIZES), TOKENIZER))


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> SharedBackbone:
    folder = tmp_path_factory.mktemp("pairs")
    torch.manual_seed(7)
    BertModel(BertConfig(**SIZES)).save_pretrained(folder / "checkpoint")
    source = Source("tiny", folder / "checkpoint", "tiny", portable=False)
    quantizations: tuple[Quantization, ...] = ("nf4", "none")
    files = {quantization: folder / f"{quantization}.safetensors" for quantization in quantizations}
    for quantization, file in files.items():
        write(source, "AutoModelForSequenceClassification", quantization, True, file)
    return load(files["nf4"], "regression", name="tiny", dtype=torch.float32, labels=1, original=files["none"])


@pytest.fixture(scope="module")
def dataset() -> TaskDataset:
    data, kind = with_token_types(data_of(), BertConfig(**SIZES), TOKENIZER), typed()
    tables = {split: kind.tokenize(rows, TOKENIZER, LONGEST) for split, rows in data.splits.items()}
    training = Training(max_steps=6, max_length=LONGEST)
    return TaskDataset(
        data.config, tables, 0, training=training, tokenizer=TOKENIZER, names=data.labels, constants=data.constants
    )


def by_transformers(rows: pa.Table, max_length: int = LONGEST, **settings: Any) -> dict[str, Any]:
    """Return the tokens of pairs as transformers makes them."""
    texts = rows["text"].to_pylist(), rows["text_pair"].to_pylist()
    return dict(TOKENIZER(*texts, truncation="longest_first", max_length=max_length, **settings))


@pytest.mark.parametrize("max_length", [LONGEST, 5, 64])
def test_pairs_are_tokenized_with_the_types_of_transformers(max_length: int) -> None:
    rows = typed().tokenize(pairs(), TOKENIZER, max_length)
    expected = by_transformers(pairs(), max_length)
    assert rows["input_ids"].to_pylist() == expected["input_ids"]
    assert rows["token_type_ids"].to_pylist() == expected["token_type_ids"]
    assert {tuple(types) for types in expected["token_type_ids"]} != {(0,)}


@pytest.mark.parametrize(
    ("config", "section", "types"),
    [
        (BertConfig(), PAIR, 2),
        (BertConfig(), SINGLE, None),
        (RobertaConfig(type_vocab_size=1), PAIR, None),  # as its checkpoints
        (DebertaV2Config(), PAIR, None),  # no types, though its tokenizer makes some
        (LlamaConfig(), PAIR, None),
    ],
)
def test_token_types_are_there_for_pairs_that_a_model_tells_apart(
    config: PretrainedConfig, section: RegressionTask, types: float | None
) -> None:
    data = with_token_types(data_of(section), config, TOKENIZER)
    assert data.constants.get("token_types") == types
    rows = type_of(data).tokenize(pairs(), TOKENIZER, LONGEST)
    assert ("token_type_ids" in rows.column_names) == (types is not None)


@pytest.mark.parametrize("pad_left", [False, True])
def test_batches_of_pairs_have_types_where_their_tokens_are(pad_left: bool) -> None:
    kind = typed()
    batch = kind.collate(kind.tokenize(pairs(), TOKENIZER, LONGEST), np.arange(ROWS), 0, pad_left)
    side = "left" if pad_left else "right"
    expected = by_transformers(pairs(), padding=True, padding_side=side, return_tensors="pt")
    assert all(torch.equal(batch[name], expected[name]) for name in ("input_ids", "attention_mask", "token_type_ids"))


def attach(method: str, backbone: SharedBackbone, dataset: TaskDataset) -> Any:
    """Attach a method, and move everything that it trains away from where it starts."""
    spec = methods.get(method)
    default = {name: 8 if name.endswith(".bottleneck") else v for name, v in search_spaces.get(method).default.items()}
    params = spec.params_type.from_dict({**default, **NARROW.get(method, {})})
    text = TaskText(tokenizer=TOKENIZER, labels=(), max_length=LONGEST, examples=dataset.examples)
    torch.manual_seed(5)
    attached = spec.attach(backbone.view(3), params, replace(backbone.context, text=text, sources=("other",)))
    with torch.no_grad():
        for parameter in attached.trainable().values():
            parameter.add_(0.05 * torch.randn_like(parameter))
    attached.train(False)
    return attached


METHODS = [*methods.names(), *(pytest.param(name, marks=pytest.mark.slow) for name in family_members())]


@pytest.mark.filterwarnings("ignore::UserWarning")  # of peft and torch; the methods' own tests name each
@pytest.mark.parametrize("method", METHODS)
def test_every_method_reads_pairs_as_transformers_passes_them(
    backbone: SharedBackbone, dataset: TaskDataset, method: str
) -> None:
    if refusal := expected_refusal(method, "bert", "classification", "nf4"):
        with pytest.raises(MethodError, match=refusal):
            attach(method, backbone, dataset)
        return
    module = attach(method, backbone, dataset).module
    expected = by_transformers(pairs(), padding=True, return_tensors="pt")
    batch = dataset.batch(np.arange(ROWS))
    with torch.no_grad():
        numbers = dataset.type.forward(module, batch)
        torch.testing.assert_close(numbers, module(**expected).logits, rtol=0, atol=1e-6)
        one_type = module(**{**expected, "token_type_ids": torch.zeros_like(expected["token_type_ids"])}).logits
    assert (numbers - one_type).abs().max() > 1e-3


def test_scores_of_pairs_are_those_of_plain_transformers(backbone: SharedBackbone, dataset: TaskDataset) -> None:
    """The evaluation's batches, with lora where it starts, against the model of transformers on the two texts."""
    run = TrialRun.start("lora", backbone, dataset, steps=6)
    plain = BertForSequenceClassification(BertConfig.from_dict({**SIZES, "num_labels": 1})).eval()
    plain.load_state_dict(backbone_weights(run), strict=True)
    with torch.no_grad():
        logits = plain(**by_transformers(pairs(2), padding=True, return_tensors="pt")).logits[:, 0]
    predicted = run.evaluate("test").predictions["predicted"].to_numpy()
    assert predicted == pytest.approx(logits.numpy() * SCALE["std"] + SCALE["mean"], abs=1e-5)


def backbone_weights(run: TrialRun) -> dict[str, Tensor]:
    """Return the weights below the adapter of a trial, by transformers' names."""
    merge = run.attached.merge
    assert merge is not None
    model = merge()
    config = model.config
    assert isinstance(config, BertConfig)
    return {name: owner_tensor(model, name) for name in BertForSequenceClassification(config).state_dict()}


def owner_tensor(model: Any, name: str) -> Tensor:
    path, _, leaf = name.rpartition(".")
    tensor: Tensor = getattr(model.get_submodule(path), leaf)
    return tensor.detach().float()


@pytest.mark.parametrize("method", ["prompt", "p_tuning"])
def test_virtual_tokens_before_a_pair_have_type_zero(
    backbone: SharedBackbone, dataset: TaskDataset, method: str
) -> None:
    model = attach(method, backbone, dataset).module
    inputs = by_transformers(pairs(), padding=True, return_tensors="pt")
    bare = model.get_base_model()
    with torch.no_grad():
        prompts = model.get_prompt(ROWS)
        zeros = torch.zeros(prompts.shape[:2], dtype=torch.long)
        expected = bare(
            inputs_embeds=torch.cat([prompts, bare.get_input_embeddings()(inputs["input_ids"])], dim=1),
            attention_mask=torch.cat([zeros + 1, inputs["attention_mask"]], dim=1),
            token_type_ids=torch.cat([zeros, inputs["token_type_ids"]], dim=1),
        ).logits
        numbers = dataset.type.forward(model, dataset.batch(np.arange(ROWS)))
    torch.testing.assert_close(numbers, expected, rtol=0, atol=1e-6)


def run_of(
    method: str, number: int, backbone: SharedBackbone, dataset: TaskDataset, prefix: FrozenPrefix | None = None
) -> TrialRun:
    params = {"batch_size": 5, "learning_rate": 1e-2}
    job = Job(trial=TrialKey(f"similarity/{method}", number), params=params, seed=number, start=0, stop=6, total=6)
    return TrialRun(job, backbone, dataset, prefix=prefix)


def test_packed_trials_on_pairs_learn_as_alone(backbone: SharedBackbone, dataset: TaskDataset) -> None:
    """Beside a prefix that skips blocks: its cache holds rows with their types."""
    names = ("lora", "prompt", "prefix", "deep_prompt", "linear_probe", "last_layers")
    prefix = FrozenPrefix(backbone)
    pack = [run_of(name, number, backbone, dataset, prefix) for number, name in enumerate(names)]
    for _ in range(6):
        assert not train_step(pack)
    for number, name in enumerate(names):
        alone = run_of(name, number, backbone, dataset)
        for _ in range(6):
            assert not train_step([alone])
        packed, expected = (run.evaluate("test").predictions["predicted"].to_numpy() for run in (pack[number], alone))
        assert packed == pytest.approx(expected, abs=1e-5), name
    assert prefix.cached_bytes


def test_frozen_prefix_keeps_the_same_tokens_of_other_types_apart(backbone: SharedBackbone) -> None:
    prefix, ids = FrozenPrefix(backbone), torch.tensor([[2, 9, 3, 8, 3]])
    mask, first = torch.ones_like(ids), torch.zeros_like(ids)
    second = torch.tensor([[0, 0, 0, 1, 1]])
    states = [prefix.activations(2, ids, mask, types) for types in (first, second, None)]
    with torch.no_grad():
        bert: Any = backbone.model.bert
        expected = [bert(ids, mask, token_type_ids=types)[0] for types in (first, second, None)]
    for state, right in zip(states, expected, strict=True):
        torch.testing.assert_close(state, right, rtol=0, atol=1e-6)
    assert (states[0] - states[1]).abs().max() > 1e-2


def test_micro_batches_of_pairs_add_up_to_the_batch(backbone: SharedBackbone, dataset: TaskDataset) -> None:
    attached, kind = attach("lora", backbone, dataset), dataset.type
    batch = dataset.batch(np.arange(ROWS))

    def gradients(losses: Sequence[Tensor]) -> list[Tensor]:
        return list(torch.autograd.grad(torch.stack(list(losses)).sum(), list(attached.trainable().values())))

    whole = gradients([kind.loss(attached.module, batch)])
    micro_batches = split_micro_batches(batch, 5, kind.loss_terms)
    parts = gradients([kind.loss(attached.module, part) * weight for part, weight in micro_batches])
    for part, expected in zip(parts, whole, strict=True):
        torch.testing.assert_close(part, expected, rtol=1e-4, atol=1e-6)


def test_a_dry_run_of_pairs_has_types() -> None:
    ids = torch.ones(2, 6, dtype=torch.long)
    for tensor in (ids, ids.to("meta")):
        batch = typed().dummy_batch(tensor, torch.ones_like(tensor), 1)
        assert batch["token_type_ids"].shape == (2, 6)
        assert batch["token_type_ids"].device == tensor.device
    assert typed().dummy_batch(ids, ids, 1)["token_type_ids"].tolist() == [[0, 0, 0, 1, 1, 1]] * 2


@pytest.mark.parametrize("recorded", [True, False], ids=["today", "earlier release"])
def test_bundles_of_pairs_answer_with_the_types_of_their_training(recorded: bool) -> None:
    torch.manual_seed(3)
    model = BertForSequenceClassification(BertConfig.from_dict({**SIZES, "num_labels": 1})).eval()
    bundle = Bundle.model_construct(  # type: ignore[call-arg]
        type="regression", labels=("score",), columns={"text": "one", "text_pair": "two"},
        metric="rmse", metrics={}, max_new_tokens=32, max_length=LONGEST, evaluation_batch=5,
        constants={**SCALE, **({"token_types": 2.0} if recorded else {})},
        environment=Environment(threads=torch.get_num_threads(), torch=torch.__version__, cpu="any"),
    )  # fmt: skip
    inputs = by_transformers(pairs(), padding=True, return_tensors="pt")
    if not recorded:
        inputs["token_type_ids"] = torch.zeros_like(inputs["token_type_ids"])
    with torch.no_grad():
        expected = model(**inputs).logits[:, 0].numpy() * SCALE["std"] + SCALE["mean"]
    rows = [{"one": row["text"], "two": row["text_pair"]} for row in pairs().to_pylist()]
    answers = Predictor(bundle, model, TOKENIZER, decoder=False).predict(rows)
    assert answers["prediction"].to_numpy() == pytest.approx(expected, abs=1e-5)


def test_example_code_of_pairs_passes_the_types() -> None:
    code = "\n".join(typed().example_code(("score",)))
    assert 'token_type_ids=tokens["token_type_ids"]' in code
    assert "token_type_ids" not in "\n".join(type_of(data_of()).example_code(("score",)))
