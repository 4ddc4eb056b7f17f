"""Which tokens of a conversation are trained, for any chat template."""

import numpy as np
import pytest

from orchestrator.simulation.marked_templates import LISTED, MarkedPair, compare, marked_pairs
from orchestrator.tasks.chat_template import ChatTemplate, MaskError
from orchestrator.tasks.token_spans import kept_tokens, tokens_in
from orchestrator.tasks.turn_masks import samples

PAIRS = marked_pairs()
REFUSED = {"glm4moe"}
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}BEFORE{{ m.content }}AFTER"
    "{% else %}{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TALK = [
    {"role": "user", "content": "one"},
    {"role": "assistant", "content": "two"},
    {"role": "user", "content": "three"},
    {"role": "assistant", "content": "four"},
]


def trained_texts(source, messages=TALK, **settings):
    return [
        [sample.text[start:stop] for start, stop in sample.trained]
        for sample in samples(ChatTemplate(source), messages, **settings)
    ]


def test_masks_oracle_is_installed():
    assert len(PAIRS) >= 15


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.name)
def test_masks_equal_those_of_marked_templates(pair: MarkedPair):
    results = [
        compare(pair, tokenizer, conversation)
        for tokenizer in pair.tokenizers()
        for conversation in pair.conversations(5)
    ]
    assert "different" not in {result for result, _ in results}
    is_refused = all(result == "refused" for result, _ in results)
    assert is_refused == (pair.name in REFUSED)
    assert ("listed" in {result for result, _ in results}) == (pair.name in LISTED)


@pytest.mark.parametrize("pair", [pair for pair in PAIRS if LISTED.get(pair.name)], ids=lambda pair: pair.name)
def test_masks_leave_out_what_the_generation_prompt_gives(pair: MarkedPair):
    template, given_after = ChatTemplate.of(pair.tokenizers()[0]), {"user": False, "tool": False}
    for conversation in pair.conversations(40):
        try:
            ours = samples(template, conversation.messages, conversation.tools)
        except MaskError:
            continue
        for sample in ours:
            asked = conversation.messages[: sample.answered]
            given, start = template.render(asked, conversation.tools, answer_next=True).text, sample.trained[-1][0]
            assert sample.text[:start] == given[:start]
            assert given[start:] in ("", "<think>\n"), "nothing but the beginning of reasoning is given and trained"
            given_after[asked[-1]["role"]] |= given[:start].endswith(LISTED[pair.name].marked or "")
    assert given_after["user"], "what the marked copy trains beyond ours is given after a user's message"
    assert given_after["tool"] == (pair.name not in ("deepseek_r1_distill", "llava_next")), "and after a tool's"


def test_masks_of_a_consistent_template_are_one_sample():
    assert trained_texts(CHATML) == [["two<|im_end|>\n", "four<|im_end|>\n"]]
    assert trained_texts(CHATML, train_on="last") == [["four<|im_end|>\n"]]
    (everything,) = trained_texts(CHATML, train_on="all")
    assert everything[0].startswith("<|im_start|>user\none")


def test_masks_of_templates_that_drop_reasoning_are_samples_by_turn():
    source = CHATML.replace("{{ m.content }}", "{{ m.content if loop.last else m.content.split('</think>')[-1] }}")
    messages = [{**m, "content": "<think>why</think>" + m["content"]} if m["role"] != "user" else m for m in TALK]
    first, second = samples(ChatTemplate(source), messages)
    assert [s.text[slice(*s.trained[0])] for s in (first, second)] == [
        "<think>why</think>two<|im_end|>\n",
        "<think>why</think>four<|im_end|>\n",
    ]
    assert second.text.count("why") == 1
    assert len(second.trained) == 1


def test_masks_refuse_templates_whose_turns_never_end():
    source = CHATML.replace("<|im_end|>\n", "")
    with pytest.raises(MaskError, match="would never stop"):
        ChatTemplate(source).require_usable()


def test_masks_refuse_templates_that_rewrite_what_precedes_a_turn():
    source = "{{ messages|length }}" + CHATML
    with pytest.raises(MaskError, match="message 2 cannot be told from those before it"):
        trained_texts(source)


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ("{% generation %}", "<|im_end|>\n{% endgeneration %}", None),
        ("{% generation %}", "{% endgeneration %}<|im_end|>\n", "leave out the end of message 2"),
        ("", "<|im_end|>\n{% generation %}{% endgeneration %}", "leave out message 2"),
    ],
)
def test_masks_of_marked_templates_are_checked_by_rendering(before, after, reason):
    source = MARKED.replace("BEFORE", before).replace("AFTER", after)
    if reason is None:
        assert trained_texts(source) == [["two<|im_end|>\n", "four<|im_end|>\n"]]
    else:
        with pytest.raises(MaskError, match=reason):
            trained_texts(source)


def test_masks_refuse_marks_of_the_users_words():
    marked_all = "{% generation %}" + CHATML.replace("{% endfor %}", "{% endfor %}{% endgeneration %}")
    with pytest.raises(MaskError, match="marks more than message 2"):
        trained_texts(marked_all)


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        (TALK[:1], "nothing would be trained"),
        (TALK[1:], "the assistant speaks first"),
        ([*TALK[:1], {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f"}}]}], "tool call"),
    ],
)
def test_masks_refuse_conversations_that_cannot_be_trained(messages, reason):
    with pytest.raises(MaskError, match=reason):
        trained_texts(CHATML, messages)


def test_masks_refuse_templates_that_leave_out_content():
    with pytest.raises(MaskError, match="leaves out the content of message 4"):
        trained_texts(CHATML.replace("{{ m.content }}", "{{ m.content if loop.index < 4 else 'x' }}"))


def test_masks_render_contents_as_parts_where_a_template_wants_them():
    source = CHATML.replace("{{ m.content }}", "{% for p in m.content %}{{ p['text'] }}{% endfor %}")
    assert trained_texts(source) == trained_texts(CHATML)


def test_token_spans_include_tokens_across_a_border():
    offsets = np.array([[0, 2], [2, 5], [5, 5], [5, 8], [8, 9]])
    assert tokens_in(offsets, [(4, 8)]).tolist() == [False, True, True, True, False]
    assert tokens_in(offsets, [(0, 1), (8, 9)]).tolist() == [True, False, False, False, True]


@pytest.mark.parametrize(
    ("trained", "max_length", "opening", "kept"),
    [
        ("..xx..xx..", 10, 0, "..xx..xx.."),
        ("..xx..xx..", 8, 0, "..xx..xx"),
        ("..xx..xx..", 6, 0, "xx..xx"),
        ("..xx..xx..", 3, 0, ".xx"),
        ("..xx..xx..", 2, 0, ".x"),
        ("b.xx..xx..", 4, 1, "b.xx"),
        ("xxxxx", 3, 0, "xxx"),
        ("....", 2, 0, ".."),
    ],
)
def test_truncation_keeps_the_trained_tokens_first(trained, max_length, opening, kept):
    mask = np.array([sign == "x" for sign in trained])
    first, stop = kept_tokens(mask, max_length, opening)
    assert trained[:opening] + trained[first:stop] == kept
