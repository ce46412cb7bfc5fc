"""The reward network: a transformers backbone and one scalar head in fp32, with one forward for everything.

Fourth room of the waist. `RewardNet.forward(pack) -> score_L` is what training, evaluation, scoring and serving call. A
model is loaded with everything accounted for (no tensor missing, none left over, one head of one row), and before it is
used two short random rows are scored packed and alone: a back end whose scores differ is left for the next safer one,
and `notes` says so. The last one, `plain`, runs ordinary rows through ordinary transformers.

Invariant: what `forward` returns equals one completion alone through plain transformers, to rounding.
Letters: L leaves, U different ones of them, T tokens of a pack, D hidden.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from plaudit import __version__
from plaudit.attend import ATTENTION, BACKENDS, backend_ladder, kernel_errors
from plaudit.blocks import ALIGNED
from plaudit.checkpoint import Checkpoint
from plaudit.embedded import resolve_model
from plaudit.errors import ConfigError
from plaudit.feedforward import LeafFeedForward
from plaudit.loading import linear_head, load_parts, name_of_head
from plaudit.memory import choose_device, choose_dtype, keep_freed_memory
from plaudit.pack import Pack, PackSettings, build_packs
from plaudit.saving import save_parts
from plaudit.tree import Ints

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PLAIN = "plain"
"""The path for models whose tokens do not depend on their prefix alone: rows, one completion each."""

INVARIANT = "invariant"
"""The reason for rows of one completion each: asked for, and no other back end can."""

PLAIN_ROWS = 8
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.08, torch.float16: 0.02}
"""How far packed may be from alone in the self-test, relative to the size of the hidden states."""


class RewardNet(nn.Module):
    """A backbone and a scalar head. Make one with `RewardNet.load`."""

    def __init__(self, hf: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, checkpoint: Checkpoint) -> None:
        super().__init__()
        self.hf = hf
        self.tokenizer = tokenizer
        self.checkpoint = checkpoint
        self.notes: list[str] = []
        self.is_new = False
        self.backend = PLAIN
        self.reason = "not tested yet"
        self._plain_attention = hf.config._attn_implementation
        if self._plain_attention == "sdpa" and getattr(hf.config.get_text_config(), "attn_logit_softcapping", None):
            # transformers 5.17 picks sdpa for Gemma 2, which leaves the softcap out: its scores are other ones.
            self._plain_attention = "eager"
        self._feedforward = LeafFeedForward(hf.base_model)

    @classmethod
    def load(
        cls,
        name: str | Path,
        *,
        dtype: str = "auto",
        device: str | None = None,
        new_head: bool = False,
        invariant: bool = False,
        backend: str | None = None,
        trust_remote_code: bool = False,
        model_args: Mapping[str, Any] | None = None,
    ) -> Self:
        """Load a reward model from a folder, a hub name or `smollm2`; ModelError if it has no head, save `new_head`."""
        where = choose_device(device)
        keep_freed_memory(where)
        parts = load_parts(
            resolve_model(str(name)), choose_dtype(dtype, where), new_head=new_head, remote=trust_remote_code,
            model_args=model_args,
        )  # fmt: skip
        net = cls(parts.hf, parts.tokenizer, parts.checkpoint)
        net.notes, net.is_new = list(parts.notes), parts.is_new
        net.to(where).eval()
        net.choose_backend(invariant=invariant, only=backend)
        return net

    @property
    def backbone(self) -> nn.Module:
        """The model below the head."""
        found: nn.Module = self.hf.base_model
        return found

    @property
    def head(self) -> nn.Linear:
        """The scalar head, kept in fp32."""
        return linear_head(self.hf)

    def replace_head(self, head: nn.Linear) -> None:
        """Another head in the place of this one, in fp32."""
        parent, _, last = name_of_head(self.hf).rpartition(".")
        setattr(self.hf.get_submodule(parent), last, head.float())

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.head.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the backbone."""
        return next(self.backbone.parameters()).dtype

    @property
    def is_invariant(self) -> bool:
        """Whether a completion's score has one bit pattern, whatever is scored beside it."""
        return self.backend == ALIGNED or self.reason == INVARIANT

    @property
    def context_length(self) -> int | None:
        """How many tokens the model was made for, as its configuration says."""
        found = getattr(self.hf.config.get_text_config(), "max_position_embeddings", None)
        return int(found) if found else None

    def forward(self, pack: Pack, at: Tensor | None = None) -> Tensor:
        """One score a leaf, in the order of the pack's members; those that share a leaf share its score to the bit.

        Or one at each of the tokens `at`, for losses that read more than leaves.
        """
        if at is not None:
            return self._score_tokens(pack, at)
        # A matrix product may round two equal rows differently: U leaves are scored, and read by L members.
        first_U, place_L = np.unique(pack.tree.leaf_K, return_index=True, return_inverse=True)[1:]
        if self.backend == PLAIN:
            scores_U = self._forward_rows([pack.tree.sequence(k) for k in first_U])
        else:
            hidden_UD = self.hidden_leaves(pack)[torch.from_numpy(first_U).to(self.device)]
            if self.backend == ALIGNED:
                # And an equal row differently beside fewer others: the head sees one shape a pack size.
                hidden_UD = nn.functional.pad(hidden_UD, (0, 0, 0, pack.size - len(hidden_UD)))
            scores_U = self.head(hidden_UD.float()).squeeze(-1)
        scores_L: Tensor = scores_U[torch.from_numpy(place_L).to(self.device)]
        return scores_L

    def _score_tokens(self, pack: Pack, at: Tensor) -> Tensor:
        if self.backend == PLAIN:
            raise ConfigError(
                f"scores at tokens were asked for, and {type(self.hf).__name__} is run a row at a time "
                f"({self.reason}); choose a loss that reads the last token"
            )
        scores: Tensor = self.head(self.hidden_leaves(pack, at).float()).squeeze(-1)
        return scores

    def accept_packs(self) -> None:
        """Let the transformers model itself be called with a pack, so that engines which wrap it see every forward."""
        original = self.hf.forward

        def forward(*args: Any, pack: Pack | None = None, at: Tensor | None = None, **kwargs: Any) -> Any:
            return original(*args, **kwargs) if pack is None else self.forward(pack, at)

        self.hf.forward = forward

    def save_memory(self) -> None:
        """Compute activations a second time in the backward, and keep those between blocks alone."""
        # Its name up to transformers 5.20 or so; the newer one warns under the old.
        enable = getattr(self.hf, "activation_checkpointing_enable", None) or self.hf.gradient_checkpointing_enable
        enable({"use_reentrant": False})

    def hidden_leaves(self, pack: Pack, at: Tensor | None = None) -> Tensor:
        """The last hidden state at every leaf, or at these tokens, computed on the tree."""
        device = self.device
        row = np.zeros((2, pack.size), np.int64)
        row[0, : pack.num_unique] = pack.tree.tokens_T
        row[1, : pack.num_unique] = pack.tree.positions_T()
        ids_T, positions_T = torch.from_numpy(row).to(device)
        leaf_L = torch.from_numpy(pack.tree.leaf_K).long().to(device) if at is None else at
        plan = BACKENDS[self.backend](pack, device)
        # A checkpointed block is computed again in the backward, when its leaves are forgotten: it keeps all tokens.
        is_cut = self.backend != ALIGNED and not (torch.is_grad_enabled() and _is_checkpointing(self.hf))
        shortened = self._feedforward.at_leaves(leaf_L) if is_cut else contextlib.nullcontext()
        with shortened:
            out = self.backbone(
                input_ids=ids_T[None], position_ids=positions_T[None], use_cache=False, plaudit_plan=plan
            )
        hidden_LD: Tensor = out.last_hidden_state[0][leaf_L]
        return hidden_LD

    def read_features(self, pack: Pack) -> Tensor:
        """What the head would read at each leaf, in fp32, by whatever path its scores come."""
        if self.backend != PLAIN:
            return self.hidden_leaves(pack).float()
        seen: list[Tensor] = []
        hook = self.head.register_forward_pre_hook(lambda layer, args: seen.append(args[0]))
        try:
            self(pack)
        finally:
            hook.remove()
        return torch.cat([x.float().reshape(-1, x.shape[-1]) for x in seen])

    def _forward_rows(self, sequences: Sequence[Ints]) -> Tensor:
        """The unshared path: rows of like length, padded on the right, through the classification model itself."""
        order = sorted(range(len(sequences)), key=lambda k: len(sequences[k]))
        scores: list[Tensor | None] = [None] * len(sequences)
        step = 1 if self.reason == INVARIANT else PLAIN_ROWS
        for at in range(0, len(order), step):
            chosen = order[at : at + step]
            for k, score in zip(chosen, self._score_rows([sequences[k] for k in chosen]), strict=True):
                scores[k] = score
        return torch.stack([score for score in scores if score is not None])

    def _score_rows(self, rows: Sequence[Ints]) -> Tensor:
        lengths = torch.tensor([len(r) for r in rows], device=self.device)
        width = int(lengths.max())
        ids = np.zeros((len(rows), width), np.int64)
        for row, sequence in zip(ids, rows, strict=True):
            row[: len(sequence)] = sequence
        ids_BT = torch.from_numpy(ids).to(self.device)
        mask_BT = (torch.arange(width, device=self.device)[None] < lengths[:, None]).long()
        if is_encoder(self.hf):
            out: Tensor = self.hf(input_ids=ids_BT, attention_mask=mask_BT).logits[:, 0].float()
            return out
        hidden_BTD = self.backbone(input_ids=ids_BT, attention_mask=mask_BT, use_cache=False).last_hidden_state
        last_BD = hidden_BTD[torch.arange(len(rows), device=self.device), lengths - 1]
        scores: Tensor = self.head(last_BD.float()).squeeze(-1)
        return scores

    def choose_backend(self, *, invariant: bool = False, only: str | None = None) -> None:
        """Test the device's back ends, fastest first, and keep the first that can be trusted; `reason` says why."""
        if only not in (None, PLAIN, *BACKENDS):
            raise ConfigError(f"attention back end {only!r} came, one of {', '.join((*BACKENDS, PLAIN))} was needed")
        ladder = (only,) if only else backend_ladder(self.device, invariant=invariant)
        refused: list[str] = []
        if is_encoder(self.hf):
            refused, ladder = ["a bidirectional encoder, whose prompt sees the completion"], ()
        for name in ladder:
            if name == PLAIN:
                break
            fault = self.find_fault(name)
            if fault is None:
                self._use(name)
                self.reason = "the self-test agrees" if not refused else "; ".join(refused)
                break
            refused.append(f"{name}: {fault}")
        else:
            self._use(PLAIN)
            self.reason = INVARIANT if invariant else "; ".join(refused) or "asked for"
        if only == PLAIN:
            self._use(PLAIN)
            self.reason = "asked for"
        if refused:
            self.notes.append(f"attention back end {self.backend!r} is used: {'; '.join(refused)}")

    def find_fault(self, backend: str) -> str | None:
        """Compare two short random rows packed and alone: the difference as a sentence, None if it is rounding."""
        rows = self._probe_rows()
        [pack] = build_packs([rows], PackSettings(budget=sum(map(len, rows))))
        kept = self.backend
        try:
            with torch.inference_mode():
                self._use(PLAIN)
                with self._feedforward.as_written():
                    alone = [self._last_hidden(row) for row in rows]
                self._use(backend)
                packed = self.hidden_leaves(pack)
        except kernel_errors() as error:
            return (
                f"it failed on this model ({str(error).splitlines()[0][:120] if str(error) else type(error).__name__})"
            )
        finally:
            self._use(kept)
        by_member = dict(zip(pack.members_L, packed, strict=True))
        scale = max(float(x.float().norm()) for x in alone)
        difference = max(float((by_member[0, k].float() - x.float()).norm()) for k, x in enumerate(alone)) / (
            scale or 1.0
        )
        if not difference <= TOLERANCE.get(self.dtype, 0.02):
            return (
                f"packed and alone differ by {difference:.1e}, so this model's tokens depend on more than their prefix"
            )
        return None

    def _probe_rows(self) -> list[Ints]:
        config = self.hf.config.get_text_config()
        window = getattr(config, "sliding_window", None) or 0
        longest = min((window if window <= 1024 else 0) + 48, self.context_length or 1 << 20)
        random = np.random.default_rng(0)
        trunk = random.integers(0, config.vocab_size, max(longest - 24, 1)).astype(np.int32)
        tails = (random.integers(0, config.vocab_size, n).astype(np.int32) for n in (24, 9))
        return [np.concatenate([trunk, tail])[:longest] for tail in tails]

    def _last_hidden(self, row: Ints) -> Tensor:
        ids = torch.from_numpy(row.astype(np.int64)).to(self.device)[None]
        hidden: Tensor = self.backbone(input_ids=ids, use_cache=False).last_hidden_state[0, -1]
        return hidden

    def _use(self, backend: str) -> None:
        self.backend = backend
        below: Any = self.backbone.config
        attention = self._plain_attention if backend == PLAIN else ATTENTION
        for config in {id(c): c for c in (self.hf.config, below, self.hf.config.get_text_config())}.values():
            config._attn_implementation = attention

    @contextlib.contextmanager
    def plain_attention(self) -> Iterator[PreTrainedModel]:
        """The transformers model as its maker wrote it, for reference runs; the back end comes back afterwards."""
        kept = self.backend
        self._use(PLAIN)
        try:
            with self._feedforward.as_written():
                yield self.hf
        finally:
            self._use(kept)

    def save(
        self, folder: str | Path, *, head_prefix: str | None = None, card: Mapping[str, Any] | None = None
    ) -> Path:
        """Write a folder that plain transformers loads as it is: backbone, head, tokenizer; whole, or not at all.

        The head is `score.weight`, or what OpenRLHF's `value_head_prefix` said where the model came from; `head_prefix`
        names it anew (plain transformers finds `score` alone). `card` is added to plaudit.json.
        """
        own, pools = name_of_head(self.hf), is_encoder(self.hf)
        if pools and head_prefix not in (None, own):
            raise ConfigError(
                f"head_prefix {head_prefix!r} came, but {type(self.hf).__name__} has it in {own!r}; leave it out"
            )
        prefix = None if pools else head_prefix or self.checkpoint.config.get("value_head_prefix") or own
        with self.plain_attention() as hf:
            return save_parts(hf, self.tokenizer, Path(folder), prefix=prefix, card={**self.own_card(), **(card or {})})

    def own_card(self) -> dict[str, Any]:
        """What plaudit.json says of the model itself: where it came from, where its score is read, a new head."""
        pools = is_encoder(self.hf)
        return {
            **{key: value for key, value in self.checkpoint.card.items() if key != "head"},
            "plaudit": __version__,
            "source": str(self.checkpoint.folder),
            "score_position": getattr(self.hf.config, "classifier_pooling", "pooled") if pools else "last",
            **({"head": "new"} if self.is_new else {}),
        }


def _is_checkpointing(hf: PreTrainedModel) -> bool:
    """Whether any block computes its activations a second time in the backward."""
    return any(getattr(module, "gradient_checkpointing", False) for module in hf.modules())


def is_encoder(hf: PreTrainedModel) -> bool:
    """Whether tokens see what comes after them, so that no prefix can be shared; such heads are not named `score`."""
    return not isinstance(getattr(hf, "score", None), nn.Linear)
