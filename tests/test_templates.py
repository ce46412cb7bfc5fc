from __future__ import annotations

from datetime import datetime

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from plaudit.errors import TemplateError
from plaudit.templates import (
    choose_pad_id,
    freeze_dates,
    is_empty,
    join_plain,
    read_template,
    render_texts,
    trailing_whitespace_tokens,
)

TURNS = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}</s>{% endfor %}"
HELLO = [[{"role": "user", "content": "hello"}]]


def make_tokenizer(template: object = TURNS, specials: tuple[str, ...] = (), **named: str) -> PreTrainedTokenizerFast:
    """Bytes as tokens, and the special tokens that were named."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([*named.values(), *specials])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, **named)
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ strftime_now('%d %b %Y') }}", "26 Jul 2024"),
        ('{{ strftime_now( "%Y-%m-%d" ) }}', "2024-07-26"),
        ("{{ strftime_now(format='%A') }}", "Friday"),
        ("{% if strftime_now is defined %}{{ strftime_now('%B') }}{% else %}never{% endif %}", "July"),
        ("{% set f = '%d' %}{{ strftime_now(f) }}", "26 Jul 2024"),
        ("{% set now = strftime_now %}{{ now('%d') }}", "26 Jul 2024"),
        ("\n{% set f = '%d' %}{{ strftime_now(f) }}", "\n26 Jul 2024"),
        ("{% macro day() %}{{ strftime_now('%d' ~ '') }}{% endmacro %}{{ day() }}", "26 Jul 2024"),
    ],
)
def test_every_way_to_read_the_clock_is_frozen(template: str, expected: str) -> None:
    frozen, was_dated = freeze_dates(template)
    assert was_dated and freeze_dates(frozen) == (frozen, False)
    assert render_texts(make_tokenizer(), frozen, HELLO) == [expected]
    # The test means something only if the clock shows another day.
    assert datetime.now() > datetime(2024, 7, 27)
    assert render_texts(make_tokenizer(), template, HELLO) != [expected] or expected in ("Friday", "July")


def test_a_template_without_a_clock_is_left_alone() -> None:
    for template in (TURNS, "{% set date_string = '26 Jul 2024' %}{{ date_string }}", "{{ strftime_now is defined }}"):
        assert freeze_dates(template) == (template, False)


def test_a_template_is_tried_and_its_tail_found() -> None:
    template = read_template(make_tokenizer())
    assert template is not None and template.tail == "</s>" and template.is_closing and not template.is_frozen
    assert "question" in template.example
    blank = read_template(make_tokenizer("{% for m in messages %}{{ m['content'] }} \n{% endfor %}"))
    assert blank is not None and blank.tail == " \n" and not blank.is_closing
    assert read_template(make_tokenizer(None)) is None


def test_a_template_that_wants_a_system_turn_is_tried_with_one() -> None:
    strict = "{% if messages[0]['role'] != 'system' %}{{ raise_exception('system first') }}{% endif %}" + TURNS
    template = read_template(make_tokenizer(strict))
    assert template is not None and template.tail == "</s>"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('never') }}", "cannot render a question and its answer .*never"),
        ("{{ messages[0]['picture'] + 'x' }}", "cannot render a question and its answer"),
        ("{% for m in messages %}", "cannot render a question and its answer"),
        ("{{ messages[0]['content'] }}", "leaves the answer out"),
        ({"tool_use": TURNS, "rag": TURNS}, "none is its default"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused_in_a_sentence(template: object, message: str) -> None:
    with pytest.raises(TemplateError, match=message):
        read_template(make_tokenizer(template))


def test_of_several_templates_the_default_is_taken() -> None:
    template = read_template(make_tokenizer({"default": TURNS, "rag": "{{ 1 }}"}))
    assert template is not None and template.text == TURNS


@pytest.mark.parametrize(
    ("specials", "named", "pad"),
    [
        ((), {"eos_token": "</s>", "pad_token": "<pad>"}, "<pad>"),
        (("[PAD]", "<|endoftext|>"), {"eos_token": "</s>"}, "[PAD]"),
        (("<|endoftext|>", "<|image|>"), {"eos_token": "</s>", "pad_token": "</s>"}, "<|endoftext|>"),
        (("<|image|>",), {"eos_token": "</s>", "unk_token": "<unk>"}, "<unk>"),
        (("<|image|>",), {"bos_token": "<s>", "eos_token": "</s>"}, "<|image|>"),
        ((), {"bos_token": "<s>", "eos_token": "</s>"}, "<s>"),
    ],
)
def test_the_pad_is_chosen_in_order_of_harm(specials: tuple[str, ...], named: dict[str, str], pad: str) -> None:
    tokenizer = make_tokenizer(TURNS, specials, **named)
    assert choose_pad_id(tokenizer, {tokenizer.eos_token_id}) == tokenizer.convert_tokens_to_ids(pad)


def test_without_a_spare_special_token_the_last_ordinary_one_pads() -> None:
    tokenizer = make_tokenizer(TURNS, (), eos_token="</s>")
    assert choose_pad_id(tokenizer, {tokenizer.eos_token_id}) == 255
    assert choose_pad_id(tokenizer, {tokenizer.eos_token_id, 255}) == 254
    with pytest.raises(TemplateError, match="none is left to pad with"):
        choose_pad_id(tokenizer, set(range(257)))


def test_blank_answers_are_empty() -> None:
    assert is_empty(" \n") and is_empty(()) and is_empty(({"role": "assistant", "content": None},))
    assert not is_empty("x") and not is_empty(({"role": "assistant", "content": [{"type": "text", "text": "x"}]},))


def test_text_is_joined_as_it_stands_and_turns_by_line_breaks() -> None:
    turns = ({"role": "system", "content": "be kind"}, {"role": "user", "content": "why?"})
    answer = ({"role": "assistant", "content": "so"},)
    assert join_plain("why?", " so") == "why? so" and join_plain("", "so") == "so"
    assert join_plain(turns, "so") == join_plain(turns, answer) == "be kind\nwhy?\nso"
    assert join_plain("why?", answer) == "why?\nso"


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("hello</s>", 0),
        ("hello</s>\n", 1),
        ("hello</s> \n\n", 3),
        ("hello<eot>\n", 1),
        ("hello\n</s>", 0),
        ("hello \n", 0),
        ("\n", 0),
        ("", 0),
    ],
)
def test_white_space_counts_only_after_a_closing_token(text: str, count: int) -> None:
    """White space that ends an answer without a closing token is the answer's own."""
    tokenizer = make_tokenizer(specials=("<eot>",), eos_token="</s>")
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert trailing_whitespace_tokens(tokenizer, ids) == count


def test_an_added_token_closes_and_an_added_line_break_does_not() -> None:
    """Gemma adds runs of line breaks as tokens; Llama tokenizers get ChatML's tokens added without being special."""
    tokenizer = make_tokenizer(eos_token="</s>")
    tokenizer.add_tokens(["<|im_end|>", "\n\n"])
    ids = tokenizer("hello<|im_end|>\n\n", add_special_tokens=False)["input_ids"]
    assert len(ids) == len("hello") + 2
    assert trailing_whitespace_tokens(tokenizer, ids) == 1
