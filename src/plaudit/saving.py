"""A model in memory becomes a folder that every consumer loads as it is.

Stands above `model`, beside `loading`. The folder is what plain transformers, TRL, vLLM and OpenRLHF agree on: one head
of one label, a regression (so that servers return the raw score), a pad token that no conversation ends with, the same
in tokenizer and configuration (transformers reads the score before the first pad), and the chat template that was used,
its dates frozen. `plaudit.json` says what no other file has room for. Invariant: a folder is whole, or it is not there.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from plaudit.checkpoint import CARD
from plaudit.errors import ModelError, TemplateError
from plaudit.loading import linear_head, quiet_transformers
from plaudit.render import Renderer, RenderSettings
from plaudit.templates import choose_pad_id

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def save_parts(
    hf: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    target: Path,
    *,
    prefix: str | None,
    card: Mapping[str, Any],
) -> Path:
    """Write the folder beside its place, then move it there; `prefix` names the head, None leaves it its own name."""
    _check_target(target)
    draft, old = (target.with_name(f".{target.name}.{word}") for word in ("writing", "replaced"))
    shutil.rmtree(draft, ignore_errors=True)
    try:
        writable = _prepare_tokenizer(tokenizer, hf)
        _describe(hf, int(writable.pad_token_id), prefix)
        with quiet_transformers():
            hf.save_pretrained(draft, state_dict=_rename_head(hf, prefix))
            writable.save_pretrained(draft)
        (draft / CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
        shutil.rmtree(old, ignore_errors=True)
        if target.exists():
            target.rename(old)
        draft.rename(target)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        if old.exists() and not target.exists():
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)
    return target


def _check_target(target: Path) -> None:
    if target.is_dir():
        if not (target / "config.json").is_file() and any(target.iterdir()):
            raise ModelError(f"{target}: a folder that is not a model is there; name a new one, or remove it")
    elif target.exists():
        raise ModelError(f"{target}: a file is there, a folder for the model was needed; name a new one, or remove it")


def _describe(hf: PreTrainedModel, pad_id: int, prefix: str | None) -> None:
    config = hf.config
    config.num_labels, config.problem_type = 1, "regression"
    config.pad_token_id = config.get_text_config().pad_token_id = pad_id
    if prefix:
        config.value_head_prefix = prefix
    elif hasattr(config, "value_head_prefix"):
        del config.value_head_prefix


def _rename_head(hf: PreTrainedModel, prefix: str | None) -> dict[str, Any]:
    """The weights by name, the head's name following the prefix."""
    state: dict[str, Any] = hf.state_dict()
    [name] = [name for name, module in hf.named_modules() if module is linear_head(hf)]
    if prefix and prefix != name:
        state = {
            f"{prefix}.{key.removeprefix(f'{name}.')}" if key.startswith(f"{name}.") else key: state[key]
            for key in state
        }
    return state


def _prepare_tokenizer(tokenizer: PreTrainedTokenizerBase, hf: PreTrainedModel) -> PreTrainedTokenizerBase:
    """A copy that pads with a token which no conversation ends with, and carries the template that is used."""
    try:
        renderer = Renderer(tokenizer)
    except TemplateError:
        # A template that cannot be used was not: such a model renders plain text, and its pad is chosen for that.
        renderer = Renderer(tokenizer, RenderSettings(plain=True))
    embeddings = hf.get_input_embeddings()
    num_rows = embeddings.num_embeddings if isinstance(embeddings, nn.Embedding) else len(tokenizer)
    # A pad beyond the embeddings (added to the tokenizer, not to the model) would fail in every padded batch.
    pad_id = choose_pad_id(tokenizer, renderer.final_ids | set(range(num_rows, len(tokenizer))))
    written = copy.deepcopy(tokenizer)
    if pad_id != written.pad_token_id:
        written.pad_token = written.convert_ids_to_tokens(pad_id)
    if renderer.chat_template is not None:
        written.chat_template = renderer.chat_template
    return written
