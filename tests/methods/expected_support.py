"""Where each method works: everywhere, except for the refusals in this table.

The tests generate no case for an expected refusal but check that the method refuses it, with this message. So a refusal
that is not in the table fails, and so does an entry that has become wrong.
"""

from fnmatch import fnmatchcase

NO_BIASES = "has no biases, which are all that bitfit trains"
NO_VIRTUAL_TOKENS = "is an encoder-decoder, which takes no virtual tokens here"
NO_CACHE = "takes no key-value pairs from outside, which a prefix needs"

T5_TAGGER = "t5-token-classification-*"  # an encoder alone

# by method and backbone, ARCHITECTURE-TASK-QUANTIZATION: a part of the message
REFUSALS: dict[str, dict[str, str]] = {
    # its encoder embeds tokens by a module of its own beside the one that the model names
    "additive_prompt": {T5_TAGGER: "get no gradient, ['transformer.shared.additive_prompt.vectors'] among them"},
    "adapter": {"mixtral-*": "has no feed-forward of linear layers"},
    "bitfit": {"llama-*": NO_BIASES, "t5-*": NO_BIASES, "mixtral-*": NO_BIASES, "modernbert-*": NO_BIASES},
    "hard_prompt": {
        "*-token-classification-*": "cannot train token-classification tasks",
        "bert-*": "is an encoder, which predicts no next token",
        "modernbert-*": "is an encoder, which predicts no next token",
        "llama-classification-*": "its output embeddings are not tied to its input embeddings",
    },
    "linear_probe": {
        "*-causal-lm-*": "needs a head that the checkpoint does not hold",
        "*-choice-*": "cannot train choice tasks",
    },
    "multitask_prompt": {T5_TAGGER: "", "t5-*": NO_VIRTUAL_TOKENS},
    "p_tuning": {T5_TAGGER: "", "t5-*": NO_VIRTUAL_TOKENS},
    "prefix": {T5_TAGGER: NO_CACHE, "t5-*": NO_VIRTUAL_TOKENS, "modernbert-*": NO_CACHE},
    "prompt": {T5_TAGGER: "", "t5-*": NO_VIRTUAL_TOKENS},
    "qlora": {"*-none": "needs a backbone in 4 bit"},
    "peft:cartridge": {T5_TAGGER: NO_CACHE, "t5-*": NO_VIRTUAL_TOKENS},
    "compose:prefix+adapter": {"t5-*": NO_VIRTUAL_TOKENS},
    "compose:adapter+prefix+lora": {"t5-*": NO_VIRTUAL_TOKENS},
    "compose:bitfit+ia3": {"llama-*": NO_BIASES},
}
# the architectures of the tiny backbones in conftest.py
ARCHITECTURE_OF_KIND = {"encoder": "bert", "decoder": "llama", "encoder-decoder": "t5"}


def expected_refusal(method: str, architecture: str, task: str, quantization: str) -> str:
    """Return a part of the message with which a method refuses a backbone; an empty string if it works there."""
    backbone = f"{architecture}-{task}-{quantization}"
    rows = REFUSALS.get(method, {}).items()
    return next((message for pattern, message in rows if fnmatchcase(backbone, pattern)), "")
