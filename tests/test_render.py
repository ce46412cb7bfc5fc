"""The twin of every rendering is the tokenizer's own: one conversation, one call, no shortcut."""

from __future__ import annotations

import functools
import gzip
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizer, PreTrainedTokenizerFast

from plaudit.errors import ConfigError, DataError, TemplateError
from plaudit.group import Completion, Group, Preference, Ranking, Ratings, Tie, pair
from plaudit.render import Overlength, Renderer, RenderSettings

DATA = Path(os.environ.get("PLAUDIT_DATA", Path(__file__).parents[2] / "shared" / "data"))

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n{{ m['content'] | trim }}<end_of_turn>\n"
    "{% endfor %}"
)
MISTRAL = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set s = messages[0]['content'] + '\n\n' %}"
    "{% set turns = messages[1:] %}{% else %}{% set s = '' %}{% set turns = messages %}{% endif %}"
    "{% for m in turns %}{% if m['role'] == 'user' %}[INST] {{ s if loop.first else '' }}{{ m['content'] }} [/INST]"
    "{% else %} {{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
)
PHI = "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n{% endfor %}{{ eos_token }}"
ZEPHYR = "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}{{ eos_token }}\n{% endfor %}"
OPEN = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
MARKED = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}</{{ m['role'] }}>{% endfor %}"
DATED = (
    "{% if not date_string is defined %}"
    "{% if strftime_now is defined %}{% set date_string = strftime_now('%d %b %Y') %}"
    "{% else %}{% set date_string = '26 Jul 2024' %}{% endif %}{% endif %}Today: {{ date_string }}\n" + CHATML
)

# name: template, special tokens, whether system turns are taken
FAMILIES = {
    "chatml": (CHATML, ["<|im_start|>", "<|im_end|>", "<|endoftext|>"], True),
    "llama": (LLAMA, ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"], True),
    "gemma": (GEMMA, ["<start_of_turn>", "<end_of_turn>"], False),
    "mistral": (MISTRAL, [], True),
    "phi": (PHI, ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"], True),
    "zephyr": (ZEPHYR, [], True),
    "open": (OPEN, [], True),
    "marked": (MARKED, [], True),
}
WORDS = "what is the best answer to a question about prompts and trees? it depends, because people differ."


@functools.cache
def make_tokenizer(
    template: str | None = CHATML,
    specials: tuple[str, ...] = ("<|im_start|>", "<|im_end|>"),
    bos: str | None = "<s>",
    eos: str | None = "</s>",
    pad: str | None = "<pad>",
) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer trained on a sentence; it adds BOS by itself when special tokens are asked for."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    named = [token for token in (bos, eos, pad) if token]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=[*named, *specials], initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator([WORDS] * 4, trainer)
    if bos:
        core.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, core.token_to_id(bos))]
        )
    names = {"bos_token": bos, "eos_token": eos, "pad_token": pad}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, **{k: v for k, v in names.items() if v})
    tokenizer.chat_template = template
    return tokenizer


def family(name: str) -> PreTrainedTokenizerFast:
    template, specials, _ = FAMILIES[name]
    return make_tokenizer(template, tuple(specials))


class CharTokenizer(PreTrainedTokenizer):
    """A tokenizer in Python alone: one token a character."""

    def __init__(self, **kwargs: object) -> None:
        self.vocab = {chr(i): i for i in range(32, 127)} | {"\n": 127, "<unk>": 0, "</s>": 1}
        super().__init__(unk_token="<unk>", eos_token="</s>", **kwargs)

    @property
    def vocab_size(self) -> int:
        return 128

    def get_vocab(self) -> dict[str, int]:
        return dict(self.vocab)

    def _tokenize(self, text: str, **kwargs: object) -> list[str]:
        return list(text)

    def _convert_token_to_id(self, token: str) -> int:
        return self.vocab.get(token, 0)

    def _convert_id_to_token(self, index: int) -> str:
        return next((token for token, i in self.vocab.items() if i == index), "<unk>")


def reference(tokenizer: PreTrainedTokenizer, group: Group, index: int) -> list[int]:
    return tokenizer.apply_chat_template(
        [dict(m) for m in group.conversation(index)], tokenize=True, return_dict=False, add_generation_prompt=False
    )


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def chat(*answers: str, prompt: str = "what is best?", system: str | None = None, **rest: object) -> Group:
    head = ({"role": "system", "content": system},) if system else ()
    return Group(prompt=(*head, user(prompt)), completions=tuple(Completion(content=a) for a in answers), **rest)


def ids_of(renderer: Renderer, group: Group) -> list[list[int] | None]:
    return [None if row is None else row.tolist() for row in renderer.render([group])[0].ids]


texts = st.lists(
    st.sampled_from([
        *WORDS.split(), " ", "\n", "  ", "é", "中", "<|im_end|>", "<|im_start|>", "</s>", "[INST]", "<|end|>", "<", "|>"
    ]),
    min_size=1, max_size=60,
).map("".join)  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
@given(data=st.data())
@settings(max_examples=30)
def test_every_rendering_equals_the_tokenizers_own(name: str, data: st.DataObject) -> None:
    tokenizer, with_system = family(name), FAMILIES[name][2]
    renderer = Renderer(tokenizer)
    groups = []
    for _ in range(data.draw(st.integers(1, 3))):
        turns = [user(data.draw(texts))]
        if data.draw(st.booleans()):
            turns += [{"role": "assistant", "content": data.draw(texts)}, user(data.draw(texts) * 3)]
        if with_system and data.draw(st.booleans()):
            turns.insert(0, {"role": "system", "content": data.draw(texts)})
        answers = data.draw(st.lists(texts, min_size=1, max_size=5))
        groups.append(Group(prompt=tuple(turns), completions=tuple(Completion(content=a) for a in answers)))
    for group, rendered in zip(groups, renderer.render(groups), strict=True):
        for i, completion in enumerate(group.completions):
            if not completion.text.strip():
                assert rendered.ids[i] is None and rendered.unscored[i] == "empty completion"
                continue
            expected = reference(tokenizer, group, i)
            if name == "open" and expected[-1] != tokenizer.eos_token_id:
                expected = [*expected, tokenizer.eos_token_id]
            assert rendered.ids[i].tolist() == expected
            assert rendered.ids[i].dtype == np.int32 and rendered.unscored[i] is None


@pytest.mark.parametrize("name", ["train_hh.jsonl.gz", "groups_qafeedback.jsonl.gz", "groups_gsm8k.jsonl.gz"])
@pytest.mark.parametrize("kind", ["chatml", "gemma", "mistral"])
def test_real_rows_equal_the_tokenizers_own(name: str, kind: str) -> None:
    if not (DATA / name).exists():
        pytest.skip(f"no preference data at {DATA}; name its folder in PLAUDIT_DATA")
    groups = []
    with gzip.open(DATA / name, "rt", encoding="utf-8") as file:
        for line, _ in zip(file, range(60), strict=False):
            row = json.loads(line)
            answers = row.get("completions") or [row["chosen"], row["rejected"]]
            groups.append(Group(prompt=tuple(row["prompt"]), completions=tuple(Completion(content=a) for a in answers)))
    tokenizer = family(kind)
    for group, rendered in zip(groups, Renderer(tokenizer).render(groups), strict=True):
        for i, row in enumerate(rendered.ids):
            assert (row is None) == (not group.completions[i].text.strip())
            assert row is None or row.tolist() == reference(tokenizer, group, i)


def test_a_tokenizer_without_a_fast_backend_renders_the_same() -> None:
    tokenizer = CharTokenizer(chat_template=ZEPHYR)
    assert not tokenizer.is_fast
    group = chat("one", "two", prompt="q " * 200)
    assert ids_of(Renderer(tokenizer), group) == [reference(tokenizer, group, i) for i in range(2)]


def test_the_embedded_tokenizer_renders_the_same() -> None:
    try:
        embedded = importlib.import_module("plaudit.embedded")
        folder = embedded.resolve_model("smollm2")
    except (ImportError, ValueError, OSError) as error:
        pytest.skip(f"the embedded model is not here: {error}")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    group = chat("It depends.", " Because\n\nof people ", prompt="Why? " * 100)
    assert ids_of(Renderer(tokenizer), group) == [reference(tokenizer, group, i) for i in range(2)]


def test_a_turn_that_the_template_closes_gets_no_eos() -> None:
    renderer = Renderer(family("chatml"))
    row = renderer.render([chat("yes")])[0].ids[0]
    assert renderer.tokenizer.decode(row[-2:]) == "<|im_end|>\n"
    assert renderer.counts.eos_appended == 0 and not renderer.notes


def test_eos_is_appended_and_said_where_the_template_ends_an_answer_with_nothing() -> None:
    renderer = Renderer(family("open"))
    rows = ids_of(renderer, chat("yes", "no"))
    assert all(row[-1] == renderer.tokenizer.eos_token_id for row in rows)
    assert renderer.counts.eos_appended == 2 and "2 completions with EOS appended" in renderer.counts.sentences()
    assert "EOS '</s>' is appended" in renderer.notes[0]


def test_a_closing_in_words_is_kept_and_said() -> None:
    renderer = Renderer(family("marked"))
    assert renderer.tokenizer.decode(renderer.render([chat("yes")])[0].ids[0]).endswith("</assistant>")
    assert renderer.counts.eos_appended == 0 and "no special token" in renderer.notes[0]


def test_a_doubled_bos_is_refused_with_the_group_named() -> None:
    doubled = Renderer(make_tokenizer("{{ bos_token }}{{ bos_token }}" + CHATML))
    with pytest.raises(TemplateError, match=r"group 'q1', completion 0: two '<s>' came"):
        doubled.render([chat("yes", id="q1")])
    plain = Renderer(make_tokenizer(), RenderSettings(plain=True))
    with pytest.raises(TemplateError, match="the tokenizer and the text"):
        plain.render([Group(prompt="<s>why?", completions=(Completion(content=" so"),))])


def test_a_refusal_of_the_template_names_the_group_and_says_its_words() -> None:
    groups = [chat("yes", id="good"), chat("no", id="bad", system="be kind")]
    with pytest.raises(TemplateError, match=r"group 'bad', completion 0: .*System role not supported.*--plain"):
        Renderer(family("gemma")).render(groups)
    turns = (user("a"), user("b"))
    with pytest.raises(TemplateError, match=r"group 0 \(counted from 0\), completion 0: .*Roles must alternate"):
        Renderer(family("gemma")).render([Group(prompt=turns, completions=(Completion(content="c"),))])


def test_a_template_that_leaves_the_answer_out_is_refused() -> None:
    silent = "{% for m in messages if m['role'] == 'user' %}{{ m['content'] }}</s>{% endfor %}"
    with pytest.raises(TemplateError, match="leaves the answer out"):
        Renderer(make_tokenizer(silent))


def test_empty_completions_are_unscored_in_chats_and_in_plain_text() -> None:
    for settings_ in (RenderSettings(), RenderSettings(plain=True)):
        renderer = Renderer(make_tokenizer(), settings_)
        turns = Completion(content=({"role": "assistant", "content": ""},))
        call = Completion(content=({"role": "assistant", "content": "", "tool_calls": [{"name": "f"}]},))
        group = Group(prompt="why?", completions=(*(Completion(content=t) for t in ["", "so", " \n"]), turns, call))
        rendered = renderer.render([group])[0]
        assert rendered.unscored == ("empty completion", None, "empty completion", "empty completion", None)
        assert [row is None for row in rendered.ids] == [True, False, True, True, False]
        assert renderer.counts.unscored == {"empty completion": 3}


@pytest.mark.parametrize("name", FAMILIES)
def test_text_parts_render_as_their_text(name: str) -> None:
    """Templates differ in what they make of a list of parts: some fail, others print Python's repr of it."""

    def parts(text: str) -> list[dict[str, str]]:
        return [{"type": "text", "text": text[:3]}, {"type": "text", "text": text[3:]}]

    as_parts = Group(
        prompt=({"role": "user", "content": parts("what is best?")},),
        completions=tuple(
            Completion(content=({"role": "assistant", "content": parts(text)},)) for text in ("it depends", " \n\n\n ")
        ),
    )
    for settings_ in (RenderSettings(), RenderSettings(plain=True)):
        renderer = Renderer(family(name), settings_)
        [found], [expected] = renderer.render([as_parts]), renderer.render([chat("it depends", " ")])
        if settings_.plain:
            [expected] = renderer.render(
                [Group(prompt=(user("what is best?"),), completions=(Completion(content=(user("it depends"),)),))]
            )
        assert found.ids[0] is not None and found.ids[0].tolist() == expected.ids[0].tolist()
        # A blank answer in parts is a blank answer.
        assert found.unscored == (None, "empty completion")


def test_plain_text_is_one_string_with_bos_and_eos() -> None:
    group = pair("what is", " the best", " it</s>")
    for tokenizer, settings_ in [(make_tokenizer(), RenderSettings(plain=True)), (make_tokenizer(None), None)]:
        renderer = Renderer(tokenizer, settings_)
        eos = tokenizer.eos_token_id
        assert ids_of(renderer, group) == [
            [*tokenizer("what is the best").input_ids, eos],
            tokenizer("what is it</s>").input_ids,
        ]
        assert renderer.counts.plain_groups == 1 and renderer.counts.eos_appended == 1
        assert "plain text" in renderer.notes[0]


def test_a_transcript_without_a_prompt_is_plain_and_other_text_becomes_turns() -> None:
    renderer = Renderer(make_tokenizer())
    transcript = pair("", "Human: a\n\nAssistant: b", "Human: a\n\nAssistant: c")
    question = pair("a?", "b", "c")
    rows = [rendered.ids[0].tolist() for rendered in renderer.render([transcript, question])]
    tokenizer = renderer.tokenizer
    assert rows[0] == [*tokenizer("Human: a\n\nAssistant: b").input_ids, tokenizer.eos_token_id]
    assert rows[1] == reference(tokenizer, question, 0)
    assert (renderer.counts.chat_groups, renderer.counts.plain_groups) == (1, 1)
    assert "1 group rendered as plain text" in renderer.counts.sentences()


def test_without_an_eos_token_nothing_is_appended_and_that_is_said() -> None:
    renderer = Renderer(make_tokenizer(None, (), None, None))
    assert ids_of(renderer, pair("a", "b", "c"))[0] == renderer.tokenizer("ab").input_ids
    assert any("no EOS token" in note for note in renderer.notes)


def test_todays_date_is_frozen_said_and_the_tokenizer_left_alone() -> None:
    tokenizer = make_tokenizer(DATED)
    renderer = Renderer(tokenizer)
    rendered = renderer.render([chat("yes", "no")])[0]
    assert tokenizer.decode(rendered.ids[0]).startswith("Today: 26 Jul 2024\n")
    assert tokenizer.chat_template == DATED and "strftime_now(" not in renderer.chat_template
    assert "frozen to 26 July 2024" in renderer.notes[0] and renderer.counts.dates_frozen == 2


def test_an_overlong_completion_is_an_error_that_names_it() -> None:
    group = chat("yes", "no " * 50, id="q7")
    long = len(reference(family("chatml"), group, 1))
    message = rf"group 'q7', completion 1: {long} tokens came with the prompt, at most 40 fit; raise --max-length"
    for renderer in (
        Renderer(family("chatml"), RenderSettings(max_length=40)),
        Renderer(family("chatml"), context_length=40),
    ):
        with pytest.raises(DataError, match=message):
            renderer.render([group])


def test_a_limit_that_cannot_hold_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        Renderer(family("chatml"), RenderSettings(max_length=0))
    with pytest.raises(ConfigError, match="reads at most 40"):
        Renderer(family("chatml"), RenderSettings(max_length=41), context_length=40)


def test_a_completion_that_just_fits_is_left_alone() -> None:
    group = chat("yes")
    expected = reference(family("chatml"), group, 0)
    for policy in Overlength:
        renderer = Renderer(family("chatml"), RenderSettings(max_length=len(expected), overlength=policy))
        assert ids_of(renderer, group) == [expected]
        assert renderer.counts.sentences() == ["1 group rendered with the chat template"]


def test_each_policy_does_what_it_says_and_counts_it() -> None:
    tokenizer, group = family("chatml"), chat("yes", "no " * 50)
    whole = [reference(tokenizer, group, i) for i in range(2)]

    def render(policy: Overlength) -> tuple[Renderer, object]:
        renderer = Renderer(tokenizer, RenderSettings(max_length=40, overlength=policy))
        return renderer, renderer.render([group])[0]

    renderer, rendered = render(Overlength.UNSCORED)
    assert rendered.ids[0].tolist() == whole[0] and rendered.ids[1] is None and rendered.dropped is None
    assert rendered.unscored == (None, f"too long: {len(whole[1])} tokens came, at most 40 fit")
    assert renderer.counts.unscored == {"too long": 1}

    renderer, rendered = render(Overlength.DROP)
    assert rendered.dropped == f"completion 1 is too long: {len(whole[1])} tokens came, at most 40 fit"
    assert rendered.ids[1] is None and rendered.unscored[1] and renderer.counts.dropped == 1

    renderer, rendered = render(Overlength.LEFT)
    assert rendered.ids[1].tolist() == whole[1][-40:] and renderer.counts.truncated_left == 1

    renderer, rendered = render(Overlength.RIGHT)
    assert rendered.ids[1].tolist() == [*whole[1][:38], *whole[1][-2:]] and renderer.counts.truncated_right == 1
    assert tokenizer.decode(rendered.ids[1]).endswith("<|im_end|>\n")


def test_plain_text_cut_on_the_right_keeps_its_eos() -> None:
    tokenizer = make_tokenizer(None)
    rows = ids_of(
        Renderer(tokenizer, RenderSettings(max_length=5, overlength=Overlength.RIGHT)), pair("what is", " a" * 9, "b")
    )
    assert rows[0] == [*tokenizer("what is" + " a" * 9).input_ids[:4], tokenizer.eos_token_id]


@pytest.mark.parametrize("name", ["chatml", "llama", "mistral"])
def test_left_truncation_keeps_the_system_message_if_asked(name: str) -> None:
    tokenizer = family(name)
    group = chat("yes", prompt="why " * 60, system="be kind to people")
    whole = reference(tokenizer, group, 0)
    chosen = RenderSettings(max_length=50, overlength=Overlength.LEFT, keep_system=True)
    row = ids_of(Renderer(tokenizer, chosen), group)[0]
    assert len(row) == 50
    head = next(i for i, (a, b) in enumerate(zip(row, whole, strict=False)) if a != b)
    assert "be kind to people" in tokenizer.decode(row[:head]) and row[head:] == whole[head - 50 :]


def test_keeping_the_system_message_keeps_bos_where_there_is_none() -> None:
    tokenizer, group = family("llama"), chat("yes", prompt="why " * 60)
    whole = reference(tokenizer, group, 0)
    for limit in (1, 2, 20):
        chosen = RenderSettings(max_length=limit, overlength=Overlength.LEFT, keep_system=True)
        row = ids_of(Renderer(tokenizer, chosen), group)[0]
        assert row == (whole[:1] + whole[1 - limit :] if limit > 1 else whole[-1:])


def test_a_system_message_that_does_not_fit_is_an_error() -> None:
    chosen = RenderSettings(max_length=10, overlength=Overlength.LEFT, keep_system=True)
    with pytest.raises(DataError, match=r"the system message alone takes \d+ of at most 10"):
        Renderer(family("chatml"), chosen).render([chat("yes", system="be kind " * 20)])


def test_pairs_that_become_identical_by_truncation_are_counted_and_dropped() -> None:
    chosen = RenderSettings(max_length=30, overlength=Overlength.RIGHT)
    same = chat("no " * 40 + "yes", "no " * 40 + "so", labels=(Preference(better=0, worse=1),))
    differ = chat("yes " * 40, "no " * 40, labels=(Preference(better=0, worse=1),))
    alike = chat("no " * 40, "no " * 40, labels=(Preference(better=0, worse=1),))
    tied = chat("no " * 40 + "yes", "no " * 40 + "so", labels=(Tie(tie=(0, 1)),))
    bare = chat("no " * 40 + "yes", "no " * 40 + "so")
    renderer = Renderer(family("chatml"), chosen)
    dropped = [rendered.dropped is not None for rendered in renderer.render([same, differ, alike, tied, bare])]
    assert dropped == [True, False, False, False, False]
    assert renderer.counts.identical_after_truncation == 1
    assert "1 labelled pair left out: made identical by truncation" in renderer.counts.sentences()
    # Neither what truncation made identical nor what is the same text is a difference that tokens do not show.
    assert renderer.counts.identical_as_rendered == 0


def test_in_larger_groups_only_the_comparisons_that_say_nothing_are_named() -> None:
    group = chat("no " * 40 + "yes", "maybe", "no " * 40 + "so", labels=(Ranking(order=(2, 1, 0)),))
    renderer = Renderer(family("chatml"), RenderSettings(max_length=30, overlength=Overlength.RIGHT))
    rendered = renderer.render([group])[0]
    assert rendered.identical == ((2, 0),) and rendered.dropped is None
    assert all(row is not None for row in rendered.ids)


def test_pairs_that_differ_in_text_but_not_in_tokens_are_counted() -> None:
    renderer = Renderer(family("llama"))
    rendered = renderer.render([chat("yes", " yes ", labels=(Ratings(ratings=(1.0, 2.0)),))])[0]
    assert rendered.dropped is None and rendered.identical == ()
    assert renderer.counts.identical_as_rendered == 1


def test_the_pad_differs_from_every_token_that_can_end_a_conversation() -> None:
    own = Renderer(family("chatml"))
    assert own.pad_id == own.tokenizer.pad_token_id and not any("pads" in note for note in own.notes)
    shared = Renderer(make_tokenizer(CHATML, ("<|im_start|>", "<|endoftext|>"), None, "<|im_end|>", "<|im_end|>"))
    assert shared.tokenizer.decode([shared.pad_id]) == "<|endoftext|>"
    assert any("'<|im_end|>', which can end a conversation: '<|endoftext|>'" in note for note in shared.notes)
    for renderer in (own, shared):
        ends = {renderer.render([g])[0].ids[0][-1] for g in (chat("yes"), pair("", "yes", "no"))}
        assert ends == renderer.final_ids and renderer.pad_id not in ends


def test_rendering_loads_neither_torch_nor_transformers() -> None:
    script = "import sys, plaudit.render; sys.exit(bool({'torch', 'transformers'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
