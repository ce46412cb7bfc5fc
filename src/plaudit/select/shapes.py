"""How chosen completions are written: rows for supervised training, for DPO, for plaudit, and OpenRLHF's older shapes.

Third step of `select`. Invariant: every row says which Group and completion it came from and what that scored, and a
shape that cannot say a conversation refuses it with a sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from plaudit.errors import ConfigError, DataError
from plaudit.formats import native
from plaudit.formats.content import Raw, write_content
from plaudit.group import Completion, Content, Group, Message, Preference
from plaudit.select.candidates import Candidates

CONDITION = "{prompt} <rm_score>: {score} "
"""How a prompt tells the score of the answer that follows; the words that OpenRLHF used."""

JUDGE = "plaudit select"


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """One shape of rows: for single completions (`row`), for pairs (`pair`), or both."""

    name: str
    about: str
    row: Callable[[Candidates, int, Content], Raw] | None = None
    pair: Callable[[Candidates, int, int], Raw] | None = None


def _sft_row(chosen: Candidates, k: int, prompt: Content) -> Raw:
    return _origin(chosen, k) | _as_turns(prompt, chosen.group.completions[k].content) | _score(chosen, k)


def _messages_row(chosen: Candidates, k: int, prompt: Content) -> Raw:
    turns = _as_messages(prompt, "user") + _as_messages(chosen.group.completions[k].content, "assistant")
    return _origin(chosen, k) | {"messages": [dict(turn) for turn in turns]} | _score(chosen, k)


def _native_row(chosen: Candidates, k: int, prompt: Content) -> Raw:
    group = _regroup(chosen, (k,), prompt)
    return native.to_row(group) | {"scores": [chosen.scores[k]]}


def _native_pair(chosen: Candidates, better: int, worse: int) -> Raw:
    group = _regroup(chosen, (better, worse), chosen.group.prompt)
    return native.to_row(group) | {"scores": [chosen.scores[better], chosen.scores[worse]]}


def _preference_pair(chosen: Candidates, better: int, worse: int) -> Raw:
    prompt, completions = chosen.group.prompt, chosen.group.completions
    sides = (prompt, completions[better].content, completions[worse].content)
    if any(not isinstance(side, str) for side in sides):
        sides = (
            _as_messages(prompt, "user"),
            _as_messages(sides[1], "assistant"),
            _as_messages(sides[2], "assistant"),
        )
    row: Raw = {"prompt": write_content(sides[0])} if sides[0] else {}
    row |= {"chosen": write_content(sides[1]), "rejected": write_content(sides[2])}
    first, second = chosen.scores[better], chosen.scores[worse]
    assert first is not None and second is not None
    row |= {"chosen_score": first, "rejected_score": second, "score_margin": first - second}
    return {"id": chosen.name} | row | {"picked": [better, worse], "candidates": len(completions)}


def _rs_row(chosen: Candidates, k: int, prompt: Content) -> Raw:
    output = chosen.group.completions[k].text
    return {"input": as_text(chosen, prompt), "output": output, "reward": chosen.scores[k]}


def _iter_dpo_pair(chosen: Candidates, better: int, worse: int) -> Raw:
    completions, scores = chosen.group.completions, chosen.scores
    return {
        "prompt": as_text(chosen, chosen.group.prompt),
        "chosen": completions[better].text,
        "chosen_reward": scores[better],
        "rejected": completions[worse].text,
        "rejected_reward": scores[worse],
    }


SHAPES: dict[str, Shape] = {
    shape.name: shape
    for shape in (
        Shape(name="sft", about="prompt and completion, as TRL's SFTTrainer reads them", row=_sft_row),
        Shape(name="messages", about="one list of turns", row=_messages_row),
        Shape(name="preference", about="chosen and rejected, as DPO trainers read them", pair=_preference_pair),
        Shape(name="native", about="plaudit's own rows", row=_native_row, pair=_native_pair),
        Shape(name="rs", about="OpenRLHF: input, output, reward", row=_rs_row),
        Shape(name="csft", about="OpenRLHF: the input tells the reward; output, reward", row=_rs_row),
        Shape(name="iter_dpo", about="OpenRLHF: prompt, chosen, rejected and their rewards", pair=_iter_dpo_pair),
    )
}


def find_shape(name: str | None, *, pairs: bool, conditional: bool = False) -> Shape:
    """The shape called `name`, or the usual one; ConfigError where it cannot hold what the rule gives."""
    usual = "preference" if pairs else "sft"
    shape = SHAPES.get(name or usual)
    fitting = [s.name for s in SHAPES.values() if (s.pair if pairs else s.row) is not None]
    if not pairs:
        fitting = [s for s in fitting if s != ("rs" if conditional else "csft")]
    if shape is None or shape.name not in fitting:
        what = "pairs" if pairs else "completions that are told their scores" if conditional else "single completions"
        raise ConfigError(f"--as {name} came; one of {', '.join(fitting)} was needed, the shapes for {what}")
    return shape


def condition_prompt(prompt: Content, score: float, template: str = CONDITION) -> Content:
    """The prompt with the score told in its last turn, by `template` ({prompt} and {score})."""

    def told(text: str) -> str:
        return template.replace("{score}", f"{score:.2f}").replace("{prompt}", text)

    if isinstance(prompt, str):
        return told(prompt)
    last = prompt[-1]
    text = last.get("content")
    if not isinstance(text, str):
        raise DataError("the prompt's last turn holds no text, so the score cannot be told there; text was needed")
    return (*prompt[:-1], {**last, "content": told(text)})


def as_text(chosen: Candidates, prompt: Content) -> str:
    """The prompt as one text: OpenRLHF's shapes know no turns."""
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1 and isinstance(text := prompt[0].get("content"), str):
        return text
    raise DataError(
        f"{chosen.name}: its prompt has {len(prompt)} turns, and these rows hold text; "
        "--as sft, preference or native keeps turns"
    )


def _as_turns(prompt: Content, completion: Content) -> Raw:
    """Prompt and completion, both text or both turns."""
    if isinstance(prompt, str) and isinstance(completion, str):
        return {"prompt": prompt, "completion": completion}
    return {
        "prompt": [dict(turn) for turn in _as_messages(prompt, "user")],
        "completion": [dict(turn) for turn in _as_messages(completion, "assistant")],
    }


def _as_messages(content: Content, role: str) -> tuple[Message, ...]:
    if isinstance(content, str):
        return ({"role": role, "content": content},) if content else ()
    return content


def _origin(chosen: Candidates, k: int) -> Raw:
    return {"id": chosen.name, "picked": k, "candidates": len(chosen.group.completions)}


def _score(chosen: Candidates, k: int) -> Raw:
    row: Raw = {"score": chosen.scores[k]}
    return row if chosen.values == chosen.scores else row | {"chosen_by": chosen.values[k]}


def _regroup(chosen: Candidates, picked: Sequence[int], prompt: Content) -> Group:
    """The Group of the picked completions alone; two of them are a preference of ours."""
    group = chosen.group
    labels = (Preference(better=0, worse=1, by=JUDGE),) if len(picked) == 2 else ()
    return Group(
        prompt=prompt,
        completions=tuple(Completion(content=group.completions[k].content) for k in picked),
        labels=labels,
        id=chosen.name,
        subset=group.subset,
        source=group.source,
        meta={"picked": list(picked), "candidates": len(group.completions)},
    )
