"""A few rows, long and short, on which a net in memory and a folder on disk are compared.

Stands on `render` and `model`, above `proof`. Drawn from the data of a run, or from the starter data where a folder is
all there is. Invariant: a row is what the model scores, untruncated, and holds what a stranger needs to render it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from plaudit.errors import DataError, TemplateError
from plaudit.formats import read_groups
from plaudit.group import Completion, Group, Message
from plaudit.memory import free_memory
from plaudit.model import RewardNet
from plaudit.pack import PackSettings, build_packs
from plaudit.quantized import is_quantized
from plaudit.render import Overlength, Rendered, Renderer, RenderSettings
from plaudit.templates import join_plain

ROWS = 8
LOOK = 512
"""Groups that a sample is drawn from."""

LONGEST = 1024
"""Tokens of a sample's longest row, where there are enough shorter ones: proofs of long rows take long."""

STARTER, STEP = Path(__file__).with_name("starter") / "heldout.jsonl", 3
"""The starter data that folders are compared on, and that one Group in three is enough."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleRow:
    """What is scored: the turns of a conversation, or a plain text; and its token ids."""

    ids: tuple[int, ...]
    messages: tuple[Message, ...] | None = None
    text: str | None = None

    @property
    def has_system(self) -> bool:
        """Whether the conversation begins with a system message."""
        return bool(self.messages) and self.messages[0].get("role") == "system"  # type: ignore[index]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """Rows that a proof scores; shortest first."""

    rows: tuple[SampleRow, ...]

    @property
    def num_tokens(self) -> int:
        """Of all rows together."""
        return sum(len(row.ids) for row in self.rows)


def draw_sample(
    groups: Iterable[Group], net: RewardNet, *, settings: RenderSettings | None = None, count: int = ROWS
) -> Sample:
    """Rows of these Groups: short to long, with a system message and without where there are both.

    The same Groups give the same rows. What is cut or cannot be scored is no row; DataError if nothing is left.
    """
    groups = list(islice(groups, LOOK))
    for longest in (LONGEST, None):
        found = _render_rows(groups, net, settings or RenderSettings(), longest)
        if len(found) >= count or longest is None:
            break
    if not found:
        raise DataError(
            f"none of {len(groups)} groups has a completion that can be scored, and a proof needs some rows"
        )
    found.sort(key=lambda row: (len(row.ids), row.ids))
    chosen = _spread(found, count)
    for wanted in (True, False):
        others = [row for row in found if row.has_system is wanted]
        if others and len(chosen) > 1 and not any(row.has_system is wanted for row in chosen):
            chosen[len(chosen) // 2] = others[len(others) // 2]
    return Sample(rows=tuple(sorted(chosen, key=lambda row: (len(row.ids), row.ids))))


def _render_rows(
    groups: Sequence[Group], net: RewardNet, settings: RenderSettings, longest: int | None
) -> list[SampleRow]:
    limits = [n for n in (settings.max_length, net.context_length, longest) if n is not None]
    fitting = replace(settings, max_length=min(limits, default=None), overlength=Overlength.UNSCORED)
    renderer = Renderer(net.tokenizer, fitting, context_length=net.context_length, position=net.position)
    rows: dict[tuple[int, ...], SampleRow] = {}
    for group, rendered in zip(groups, renderer.render(groups), strict=True):
        is_chat = renderer.chat_template is not None and not (group.is_plain and group.prompt == "")
        for row in _rows_of(group, rendered, is_chat=is_chat):
            rows.setdefault(row.ids, row)
    return list(rows.values())


def _rows_of(group: Group, rendered: Rendered, *, is_chat: bool) -> Iterable[SampleRow]:
    for k, row in enumerate(rendered.ids):
        if row is None:
            continue
        ids = tuple(int(i) for i in row)
        if not is_chat:
            yield SampleRow(ids=ids, text=join_plain(group.prompt, group.completions[k].content))
            continue
        turns = tuple(dict(turn) for turn in group.conversation(k))
        try:
            json.dumps(turns)
        except (TypeError, ValueError):
            continue  # it could not be told to another process
        yield SampleRow(ids=ids, messages=turns)


def _spread(rows: Sequence[SampleRow], count: int) -> list[SampleRow]:
    """Evenly from the shortest to the longest."""
    if len(rows) <= count:
        return list(rows)
    places = [round(n * (len(rows) - 1) / max(count - 1, 1)) for n in range(count)]
    return [rows[place] for place in places]


def score_sample(net: RewardNet, sample: Sample) -> list[float]:
    """The sample's scores by the net in memory: packed, what rows share computed once, as everything is scored here."""
    rows = [np.array(row.ids, dtype=np.int32) for row in sample.rows]
    [pack] = build_packs([rows], PackSettings(budget=max(sample.num_tokens, 1)))
    was_training = net.training
    net.eval()
    try:
        with torch.inference_mode():
            scores = net(pack).tolist()
    finally:
        net.train(was_training)
    by_row = {k: score for (_, k), score in zip(pack.members_L, scores, strict=True)}
    return [float(by_row[k]) for k in range(len(rows))]


def score_exactly(net: RewardNet, sample: Sample) -> tuple[list[float], str]:
    """The sample's scores computed in float32 from the net's weights as they are, and the precision, for a witness.

    What differs then differs for a reason: in bfloat16, rounding alone moves scores by a percent. Where weights have
    bits of their own, or a witness has no memory for float32, it is the net's precision.
    """
    size = 4 * sum(x.numel() for x in net.hf.parameters())
    if any(is_quantized(layer) for layer in net.hf.modules()) or free_memory(torch.device("cpu")) < 1.3 * size:
        return score_sample(net, sample), "auto"
    with _widened(net):
        return score_sample(net, sample), "float32"


@contextlib.contextmanager
def _widened(net: RewardNet) -> Iterator[None]:
    """The time in which every layer's weights are float32 while it computes, and its own before and afterwards."""
    kept: dict[nn.Parameter, Tensor] = {}
    hooks = []

    def widen(layer: nn.Module, args: Any) -> None:
        for x in own(layer):
            if x.is_floating_point() and x.dtype != torch.float32:
                kept[x], x.data = x.data, x.data.float()

    def restore(layer: nn.Module, *args: Any) -> None:
        for x in own(layer):
            if x in kept:
                x.data = kept.pop(x)

    def own(layer: nn.Module) -> Iterator[nn.Parameter]:
        # A layer with an adapter looks at the weights inside it before it calls what holds them.
        return layer.parameters(recurse=hasattr(layer, "base_layer"))

    for layer in net.hf.modules():
        if next(own(layer), None) is not None:
            hooks += [
                layer.register_forward_pre_hook(widen),
                layer.register_forward_hook(restore, always_call=True),
            ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for x, data in kept.items():
            x.data = data


def draw_starter_sample(net: RewardNet, *, count: int = ROWS) -> Sample:
    """A sample of the starter data, for a folder that comes without data: one turn and many, with a system message."""
    groups = list(read_groups(STARTER))[::STEP]
    instructed = [replace(group, prompt=(SYSTEM, *_turns(group))) for group in groups[1::4]]
    long = [_chain(groups[n : n + 6]) for n in range(0, len(groups) - 6, 12)]
    try:
        return draw_sample([*groups, *instructed, *long], net, count=count)
    except TemplateError:
        # Some templates refuse a system message.
        return draw_sample([*groups, *long], net, count=count)


SYSTEM: Message = {"role": "system", "content": "You are a careful assistant who answers in one or two sentences."}


def _turns(group: Group) -> tuple[Message, ...]:
    prompt = group.prompt
    return ({"role": "user", "content": prompt},) if isinstance(prompt, str) else prompt


def _chain(groups: Sequence[Group]) -> Group:
    """One conversation of many turns: the earlier ones with their first answer."""
    earlier = [turn for group in groups[:-1] for turn in group.conversation(0)]
    last = groups[-1]
    return Group(
        prompt=(*earlier, *_turns(last)), completions=tuple(Completion(content=c.content) for c in last.completions)
    )
