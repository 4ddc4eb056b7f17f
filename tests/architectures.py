"""Tiny configurations of the architectures that every method is tried on."""

from typing import Any

import transformers
from transformers import PreTrainedConfig

USUAL = {"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
USUAL |= {"intermediate_size": 64, "max_position_embeddings": 160}
USUAL |= {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
LLAMA_3_8B = transformers.LlamaConfig(
    architectures=["LlamaForCausalLM"],
    vocab_size=128256,
    hidden_size=4096,
    intermediate_size=14336,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
    max_position_embeddings=8192,
    dtype="bfloat16",
    bos_token_id=128000,
    eos_token_id=[128001, 128009],
)
SEQ2SEQ = {"d_model": 32, "vocab_size": 100, "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
EXPERTS = {**USUAL, "num_key_value_heads": 2, "num_experts_per_tok": 2}

ENCODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("BertConfig", USUAL),
    # positions that start after the padding id
    "roberta": ("RobertaConfig", {**USUAL, "pad_token_id": 1, "eos_token_id": 2, "bos_token_id": 0}),
    "distilbert": (
        "DistilBertConfig",
        {"vocab_size": 100, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "max_position_embeddings": 160},
    ),
    "deberta-v2": ("DebertaV2Config", {**USUAL, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]}),
    # fused attention, no biases
    "modernbert": ("ModernBertConfig", {**USUAL, "cls_token_id": 3, "sep_token_id": 4}),
    # a head of several layers, which reads the whole sequence
    "electra": ("ElectraConfig", {**USUAL, "embedding_size": 16}),
    "mpnet": ("MPNetConfig", USUAL),
    # one layer whose weights all layers share
    "albert": ("AlbertConfig", {**USUAL, "embedding_size": 16}),
}
DECODERS: dict[str, tuple[str, dict[str, Any]]] = {
    # transposed weights in modules that are not nn.Linear, fused attention
    "gpt2": (
        "GPT2Config",
        {"vocab_size": 100, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 160, "pad_token_id": 0}
        | {"bos_token_id": 2, "eos_token_id": 1},
    ),
    "llama": ("LlamaConfig", {**USUAL, "num_key_value_heads": 2}),
    # a bfloat16 stream, tied embeddings, heads wider than the stream
    "qwen3": (
        "Qwen3Config",
        {**USUAL, "num_key_value_heads": 2, "head_dim": 16, "dtype": "bfloat16", "tie_word_embeddings": True},
    ),
    "mistral": ("MistralConfig", {**USUAL, "num_key_value_heads": 2}),
    "gemma": ("GemmaConfig", {**USUAL, "num_key_value_heads": 1, "head_dim": 8}),
    # layers of two kinds
    "gemma3": ("Gemma3TextConfig", {**USUAL, "num_key_value_heads": 2, "head_dim": 8}),
    "phi": ("PhiConfig", USUAL),
    "phi3": ("Phi3Config", USUAL),
    "gpt_neox": ("GPTNeoXConfig", USUAL),
    "opt": (
        "OPTConfig",
        {"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 64}
        | {"max_position_embeddings": 160, "word_embed_proj_dim": 32}
        | {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2},
    ),
    # experts whose weights are one tensor of three dimensions
    "mixtral": ("MixtralConfig", {**EXPERTS, "num_local_experts": 4}),
    "qwen3_moe": ("Qwen3MoeConfig", {**EXPERTS, "num_experts": 4, "moe_intermediate_size": 32, "head_dim": 8}),
}
ENCODER_DECODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "t5": ("T5Config", {**SEQ2SEQ, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}),
    "bart": (
        "BartConfig",
        {**SEQ2SEQ, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
        | {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "max_position_embeddings": 160},
    ),
}
ARCHITECTURES = {**ENCODERS, **DECODERS, **ENCODER_DECODERS}


def config_of(name: str) -> PreTrainedConfig:
    kind, values = ARCHITECTURES[name]
    config: PreTrainedConfig = getattr(transformers, kind)(**values, num_labels=3)
    return config


def kind_of(name: str) -> str:
    if name in ENCODER_DECODERS:
        return "encoder-decoder"
    return "decoder" if name in DECODERS else "encoder"
