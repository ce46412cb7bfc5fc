"""A model in memory becomes a folder that every consumer loads as it is.

Stands above `model`, beside `loading`. The folder is what plain transformers, TRL, vLLM and OpenRLHF agree on: one head
of one label, a regression (so that servers return the raw score), a pad token that no conversation ends with, the same
in tokenizer and configuration (transformers reads the score before the first pad), and the chat template that was used,
its dates frozen and its answers closed. `plaudit.json` says what no other file has room for. Invariant: a folder is
whole, or it is not there.
"""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from plaudit.checkpoint import CARD
from plaudit.errors import ConfigError, ModelError, TemplateError
from plaudit.files import replacing_folder
from plaudit.loading import linear_head, quiet_transformers
from plaudit.redaction import hide_report
from plaudit.render import Renderer, RenderSettings
from plaudit.templates import (
    LAST_TOKEN,
    Position,
    ScorePosition,
    choose_pad_id,
    close_template,
    move_end,
    read_template,
)
from plaudit.transformers4 import write_for_transformers_4

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


CROSS_ENCODER = {"activation_fn": "torch.nn.modules.linear.Identity"}
"""What makes sentence-transformers' CrossEncoder return the raw score."""

NORMALISATION = "normalisation"
"""Where plaudit.json keeps mean and spread of raw scores; None there takes them out of the folder."""


def save_parts(
    hf: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    target: Path,
    *,
    prefix: str | None,
    card: Mapping[str, Any],
    position: Position = LAST_TOKEN,
) -> Path:
    """Write the folder, whole or not at all; `prefix` names the head, None leaves it its own name."""
    if any(".base_layer." in name for name, _ in hf.named_parameters()):
        raise ConfigError(
            f"{target}: a model with adapters came, one without was needed; "
            "save it while they are merged (lora.merging), or save the adapter (lora.save_adapter)"
        )
    with drafting(target) as draft:
        writable = prepare_tokenizer(tokenizer, hf, position)
        _describe(hf, int(writable.pad_token_id), prefix, card)
        with quiet_transformers():
            hf.save_pretrained(draft, state_dict=rename_head(hf, prefix))
            writable.save_pretrained(draft)
        write_for_transformers_4(draft)
        write_card(draft, card)
    return target


@contextlib.contextmanager
def drafting(target: Path) -> Iterator[Path]:
    """A folder beside the target's place to write into; it takes that place at the end, unless something fails."""
    _check_target(target)
    with replacing_folder(target) as draft:
        yield draft


def write_card(folder: Path, card: Mapping[str, Any]) -> None:
    """plaudit.json."""
    (folder / CARD).write_text(json.dumps(hide_report(card), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _check_target(target: Path) -> None:
    if target.is_dir():
        known = any((target / name).is_file() for name in ("config.json", "adapter_config.json"))
        if not known and any(target.iterdir()):
            raise ModelError(f"{target}: a folder that is not a model is there; name a new one, or remove it")
    elif target.exists():
        raise ModelError(f"{target}: a file is there, a folder for the model was needed; name a new one, or remove it")


def _describe(hf: PreTrainedModel, pad_id: int, prefix: str | None, card: Mapping[str, Any]) -> None:
    config = hf.config
    config.num_labels, config.problem_type = 1, "regression"
    config.pad_token_id = config.get_text_config().pad_token_id = pad_id
    if NORMALISATION in card:
        # OpenRLHF reads both or neither.
        for name in ("mean", "std"):
            if card[NORMALISATION] is not None:
                setattr(config, name, card[NORMALISATION][name])
            elif hasattr(config, name):
                delattr(config, name)
    # CrossEncoder puts a sigmoid on a single label, unless the configuration says otherwise.
    own = getattr(config, "sentence_transformers", None)
    config.sentence_transformers = {**(own if isinstance(own, dict) else {}), **CROSS_ENCODER}
    if prefix:
        config.value_head_prefix = prefix
    elif hasattr(config, "value_head_prefix"):
        del config.value_head_prefix


def rename_head(hf: PreTrainedModel, prefix: str | None) -> dict[str, Any]:
    """The weights by the names that they are saved under: the head's follows the prefix."""
    state: dict[str, Any] = hf.state_dict()
    [name] = [name for name, module in hf.named_modules() if module is linear_head(hf)]
    if prefix and prefix != name:
        state = {
            f"{prefix}.{key.removeprefix(f'{name}.')}" if key.startswith(f"{name}.") else key: state[key]
            for key in state
        }
    return state


def prepare_tokenizer(
    tokenizer: PreTrainedTokenizerBase, hf: PreTrainedModel, position: Position = LAST_TOKEN
) -> PreTrainedTokenizerBase:
    """A copy that pads with a token which no conversation ends with, and carries the template that is used.

    Its template ends with the token at which the score is read, so that every consumer reads it at its last token.
    """
    try:
        renderer = Renderer(tokenizer, position=position)
    except TemplateError:
        # A template that cannot be used was not: such a model renders plain text, and its pad is chosen for that.
        renderer = Renderer(tokenizer, RenderSettings(plain=True), position=position)
    embeddings = hf.get_input_embeddings()
    num_rows = embeddings.num_embeddings if isinstance(embeddings, nn.Embedding) else len(tokenizer)
    # A pad beyond the embeddings (added to the tokenizer, not to the model) would fail in every padded batch.
    pad_id = choose_pad_id(tokenizer, renderer.final_ids | set(range(num_rows, len(tokenizer))))
    written = copy.deepcopy(tokenizer)
    if pad_id != written.pad_token_id:
        written.pad_token = written.convert_ids_to_tokens(pad_id)
    if renderer.chat_template is not None:
        text, found = renderer.chat_template, read_template(tokenizer)
        appends = tokenizer.eos_token is not None and not position.drops(tokenizer.eos_token_id)
        if found is not None and not found.is_closing and appends and position.name is not ScorePosition.EOS:
            text = close_template(text)
        if position.name is not ScorePosition.CLOSING or renderer.trailing:
            text = move_end(text, position, tokenizer)
        written.chat_template = text
    return written
