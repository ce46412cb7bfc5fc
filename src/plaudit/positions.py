"""Where in a text a folder's scores are read: where plaudit.json says, or where the tool reads that made the folder.

Stands on `render` and `checkpoint`, below `model`. Folders that plaudit saves are read at the last token. Others are
read where the code reads them that they were trained with: OpenRLHF removes the line break that ChatML ends with;
transformers, and so TRL, reads the last token that is not the pad token, which is not the last one where EOS pads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args

from plaudit.checkpoint import Checkpoint
from plaudit.errors import ConfigError, TemplateError
from plaudit.render import Renderer, RenderSettings
from plaudit.templates import LAST_TOKEN, Position, ScorePosition

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PositionName = Literal["last", "closing", "eos", "before_pad"]
"""`--score-position`."""

SCORE_POSITION, PAD_TOKEN = "score_position", "score_pad_token"
"""Where plaudit.json says where a score is read, and with `before_pad` which token is the pad that is meant."""


def describe_position(position: Position, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """What plaudit.json says of it."""
    pad = None if position.pad_id is None else tokenizer.convert_ids_to_tokens(position.pad_id)
    return {SCORE_POSITION: str(position.name), **({} if pad is None else {PAD_TOKEN: pad})}


def choose_position(
    checkpoint: Checkpoint, tokenizer: PreTrainedTokenizerBase, pad_id: int | None, name: str | None = None
) -> tuple[Position, list[str]]:
    """The position, and what there is to say about it. `name` overrides the folder; `pad_id` is the model's pad."""
    if name is not None:
        if name not in get_args(PositionName):
            raise ConfigError(f"score_position: expected one of {', '.join(get_args(PositionName))}, got {name!r}")
        return _named(ScorePosition(name), checkpoint.card, tokenizer, pad_id), []
    # A card without the key is not plaudit's own: `plaudit eval --calibrate` stores findings in any folder.
    own = str(checkpoint.card.get(SCORE_POSITION))
    if own in get_args(PositionName):
        return _named(ScorePosition(own), checkpoint.card, tokenizer, pad_id), []
    if isinstance(checkpoint.config.get("value_head_prefix"), str):
        return Position(name=ScorePosition.EOS), [
            "the folder has OpenRLHF's layout, so the score is read as OpenRLHF reads it: at EOS, without the line "
            "break that a chat template writes after it, and after a space where EOS has to be appended (score "
            "position eos; --score-position last reads the last token of the chat template)"
        ]
    if pad_id is None or not 0 <= pad_id < len(tokenizer):
        return LAST_TOKEN, []
    return _before_pad(tokenizer, pad_id)


def _named(
    name: ScorePosition, card: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, pad_id: int | None
) -> Position:
    if name is not ScorePosition.BEFORE_PAD:
        return Position(name=name) if name is not ScorePosition.LAST else LAST_TOKEN
    if PAD_TOKEN in card:
        pad_id = tokenizer.convert_tokens_to_ids(str(card[PAD_TOKEN]))
    if pad_id is None:
        raise ConfigError(
            "score_position before_pad: expected a model with a pad token, and config.json names none; "
            "choose last, closing or eos"
        )
    return Position(name=name, pad_id=pad_id)


def _before_pad(tokenizer: PreTrainedTokenizerBase, pad_id: int) -> tuple[Position, list[str]]:
    """Before the pad, if a text can end with it; what transformers does is the same as the last token otherwise."""
    try:
        renderer = Renderer(tokenizer)
    except TemplateError:
        renderer = Renderer(tokenizer, RenderSettings(plain=True))
    if pad_id not in renderer.final_ids:
        return LAST_TOKEN, []
    pad, what = tokenizer.convert_ids_to_tokens(pad_id), "a text" if pad_id in renderer.closing_ids else "plain text"
    return Position(name=ScorePosition.BEFORE_PAD, pad_id=pad_id), [
        f"config.json pads with {pad!r}, which {what} ends with: transformers reads the score at the token before it, "
        "and so it is read here (score position before_pad; --score-position last reads the last token)"
    ]
