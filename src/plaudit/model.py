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
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from plaudit import __version__
from plaudit.attend import ATTENTION, BACKENDS, AttentionPlan, backend_ladder, kernel_errors
from plaudit.blocks import ALIGNED
from plaudit.checkpoint import Checkpoint
from plaudit.embedded import resolve_model
from plaudit.errors import ConfigError, InternalError
from plaudit.feedforward import LeafFeedForward
from plaudit.loading import linear_head, load_parts, name_of_head
from plaudit.locks import ForwardLock
from plaudit.memory import choose_device, choose_dtype, keep_freed_memory, to_device
from plaudit.pack import Pack, PackSettings, build_packs
from plaudit.positions import PAD_TOKEN, SCORE_POSITION, choose_position, describe_position
from plaudit.saving import save_parts
from plaudit.templates import LAST_TOKEN
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


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedPack(Pack):
    """A pack with everything that its forward needs, on the model's device; `RewardNet.prepare` makes it.

    Letters: U different leaves, in the order of their tokens, and for each of the L members the number of its leaf.
    """

    backend: str
    plan: AttentionPlan
    ids_T: Tensor
    positions_T: Tensor
    leaf_U: Tensor
    place_L: Tensor


class RewardNet(nn.Module):
    """A backbone and a scalar head. Make one with `RewardNet.load`.

    Any number of threads may run forwards on it. What changes the model (another back end, another head, adapters
    merged, saving) waits until none is inside, and they wait for it. Training steps are not covered: weights that an
    optimizer moves are what they are at the time.
    """

    def __init__(self, hf: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, checkpoint: Checkpoint) -> None:
        super().__init__()
        self.hf = hf
        self.tokenizer = tokenizer
        self.checkpoint = checkpoint
        self.notes: list[str] = []
        self.position = LAST_TOKEN
        self.is_new = False
        self.backend = PLAIN
        self.reason = "not tested yet"
        self._plain_attention = hf.config._attn_implementation
        if self._plain_attention == "sdpa" and getattr(hf.config.get_text_config(), "attn_logit_softcapping", None):
            # transformers 5.17 picks sdpa for Gemma 2, which leaves the softcap out: its scores are other ones.
            self._plain_attention = "eager"
        self._feedforward = LeafFeedForward(hf.base_model)
        self.lock = ForwardLock()
        self.rotary_limit = _guard_rotary_embeddings(hf)

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
        score_position: str | None = None,
    ) -> Self:
        """Load a reward model from a folder, a hub name or `smollm2`; ModelError if it has no head, save `new_head`.

        `score_position` says where the score is read (last, closing, eos or before_pad), if not where the folder says.
        """
        where = choose_device(device)
        keep_freed_memory(where)
        parts = load_parts(
            resolve_model(str(name)), choose_dtype(dtype, where), new_head=new_head, remote=trust_remote_code,
            model_args=model_args,
        )  # fmt: skip
        net = cls(parts.hf, parts.tokenizer, parts.checkpoint)
        net.notes, net.is_new = list(parts.notes), parts.is_new
        net.choose_position(score_position)
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

    def choose_position(self, name: str | None = None) -> None:
        """Read scores at the position of this name, or where the folder says or implies."""
        if is_encoder(self.hf):
            if name is not None:
                raise ConfigError(
                    f"score_position={name}: {type(self.hf).__name__} is an encoder, which reads no single token; "
                    "leave it out"
                )
            return
        if self.checkpoint.head is None and name is None:
            return  # a language model, whose new head is trained at the last token
        # An adapter's configuration has no pad: it was trained with the one of its tokenizer.
        is_adapter = (self.checkpoint.folder / "adapter_config.json").is_file()
        pad_id = self.tokenizer.pad_token_id if is_adapter else self.hf.config.get_text_config().pad_token_id
        self.position, notes = choose_position(self.checkpoint, self.tokenizer, pad_id, name)
        self.notes += notes

    def replace_head(self, head: nn.Linear) -> None:
        """Another head in the place of this one, in fp32."""
        with self.lock.exclusive():
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
        with self.lock.shared():
            if parts := self._split_by_length(pack):
                self._refuse_tokens(at)
                return self._join_parts(pack, [(places, self.forward(part)) for places, part in parts])
            if at is not None:
                return self._score_tokens(pack, at)
            if self.backend == PLAIN:
                # A matrix product may round two equal rows differently: U leaves are scored, and read by L members.
                first_U, place_L = np.unique(pack.tree.leaf_K, return_index=True, return_inverse=True)[1:]
                scores_U = self._forward_rows([pack.tree.sequence(k) for k in first_U])
                plain: Tensor = scores_U[torch.from_numpy(place_L).to(self.device)]
                return plain
            prepared = self.prepare(pack)
            hidden_UD = self._hidden(prepared, prepared.leaf_U, are_unique=True)
            if self.backend == ALIGNED:
                # An equal row is rounded differently beside fewer others: the head sees one shape a pack size.
                hidden_UD = nn.functional.pad(hidden_UD, (0, 0, 0, pack.size - len(hidden_UD)))
            scores_L: Tensor = self.head(hidden_UD.float()).squeeze(-1)[prepared.place_L]
            return scores_L

    def prepare(self, pack: Pack) -> PreparedPack:
        """The pack with its attention plan and its index tensors on the device: what a forward does on the host.

        Any thread may do it ahead of time. On a GPU the copies are put on that thread's current stream, which has to be
        the one that the forward runs on. A pack that was prepared for another back end is prepared again.
        """
        backend, device = self.backend, self.device
        if isinstance(pack, PreparedPack):
            if pack.backend == backend:
                return pack
            pack = Pack(tree=pack.tree, size=pack.size, members_L=pack.members_L, num_total=pack.num_total)
        if backend == PLAIN:
            raise InternalError("packs are prepared for attention back ends, and this model is run a row at a time")
        tree, padding = pack.tree, pack.size - pack.num_unique
        leaf_U, place_L = np.unique(tree.leaf_K, return_inverse=True)
        return PreparedPack(
            tree=tree,
            size=pack.size,
            members_L=pack.members_L,
            num_total=pack.num_total,
            backend=backend,
            plan=BACKENDS[backend](pack, device),
            ids_T=to_device(np.pad(tree.tokens_T.astype(np.int64), (0, padding)), device),
            positions_T=to_device(np.pad(tree.positions_T().astype(np.int64), (0, padding)), device),
            leaf_U=to_device(leaf_U.astype(np.int64), device),
            place_L=to_device(place_L.astype(np.int64), device),
        )

    def _split_by_length(self, pack: Pack) -> list[tuple[list[int], Pack]]:
        """Packs in which all rotary frequencies are those of each sequence alone, and whose leaves; [] if this one is.

        `longrope` and `dynamic` choose one set of frequencies for a whole forward, by its longest sequence: longrope
        one above a length and another below it, dynamic one for every length above it.
        """
        if self.rotary_limit is None or self.backend == PLAIN:
            return []
        limit, is_dynamic = self.rotary_limit
        lengths_L = pack.tree.positions_T()[pack.tree.leaf_K] + 1
        below, above = np.flatnonzero(lengths_L <= limit).tolist(), np.flatnonzero(lengths_L > limit).tolist()
        classes = [below, *([k] for k in above)] if is_dynamic else [below, above]
        classes = [places for places in classes if places]
        if len(classes) < 2:
            return []
        settings = PackSettings(budget=pack.size, fixed=self.backend == ALIGNED)
        return [
            ([places[k] for _, k in part.members_L], part)
            for places in classes
            for part in build_packs([[pack.tree.sequence(k) for k in places]], settings)
        ]

    def _join_parts(self, pack: Pack, parts: Sequence[tuple[list[int], Tensor]]) -> Tensor:
        places = torch.tensor([place for chosen, _ in parts for place in chosen], device=self.device)
        return torch.cat([found for _, found in parts])[places.argsort()]

    def _refuse_tokens(self, at: Tensor | None) -> None:
        if at is not None:
            raise ConfigError(
                f"expected sequences on one side of {self.rotary_limit and self.rotary_limit[0]} tokens in a pack, got "
                "both: this model's rotary frequencies depend on the length. Set render.max_length, or choose a loss "
                "that reads the last token"
            )

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
        with self.lock.shared():
            if parts := self._split_by_length(pack):
                self._refuse_tokens(at)
                return self._join_parts(pack, [(places, self.hidden_leaves(part)) for places, part in parts])
            prepared = self.prepare(pack)
            if at is not None:
                return self._hidden(prepared, at)
            return self._hidden(prepared, prepared.leaf_U, are_unique=True)[prepared.place_L]

    def _hidden(self, pack: PreparedPack, at: Tensor, *, are_unique: bool = False) -> Tensor:
        # A checkpointed block is computed again in the backward, when its leaves are forgotten: it keeps all tokens.
        is_cut = self.backend != ALIGNED and not (torch.is_grad_enabled() and _is_checkpointing(self.hf))
        shortened = self._feedforward.at_leaves(at, are_unique=are_unique) if is_cut else contextlib.nullcontext()
        with shortened:
            out = self.backbone(
                input_ids=pack.ids_T[None], position_ids=pack.positions_T[None], use_cache=False, plaudit_plan=pack.plan
            )
        hidden: Tensor = out.last_hidden_state[0][at]
        return hidden

    def read_features(self, pack: Pack) -> Tensor:
        """What the head would read at each leaf, in fp32, by whatever path its scores come."""
        with self.lock.shared():
            return self._read_features(pack)

    def _read_features(self, pack: Pack) -> Tensor:
        if self.backend != PLAIN:
            return self.hidden_leaves(pack).float()
        seen: list[Tensor] = []
        caller = threading.get_ident()

        def keep(layer: nn.Module, args: tuple[Tensor, ...]) -> None:
            # The hook is on the model, where forwards of other threads meet it too.
            if threading.get_ident() == caller:
                seen.append(args[0])

        hook = self.head.register_forward_pre_hook(keep)
        try:
            self(pack)
        finally:
            hook.remove()
        return torch.cat([x.float().reshape(-1, x.shape[-1]) for x in seen])

    def _forward_rows(self, sequences: Sequence[Ints]) -> Tensor:
        """The unshared path: rows of like length, padded on the right, through the classification model itself."""
        order = sorted(range(len(sequences)), key=lambda k: len(sequences[k]))
        scores: list[Tensor | None] = [None] * len(sequences)
        # Rows that are padded together would share rotary frequencies.
        step = 1 if self.reason == INVARIANT or self.rotary_limit is not None else PLAIN_ROWS
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
        with self.lock.exclusive():
            self._choose_backend(invariant=invariant, only=only)

    def _choose_backend(self, *, invariant: bool, only: str | None) -> None:
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
        with self.lock.exclusive():
            return self._find_fault(backend)

    def _find_fault(self, backend: str) -> str | None:
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
        """The transformers model as its maker wrote it, for reference runs; the back end comes back afterwards.

        Forwards of other threads wait for the end of the block, so it must not wait for them.
        """
        with self.lock.exclusive():
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
            return save_parts(
                hf,
                self.tokenizer,
                Path(folder),
                prefix=prefix,
                card={**self.own_card(), **(card or {})},
                position=self.position,
            )

    def own_card(self) -> dict[str, Any]:
        """What plaudit.json says of the model itself: where it came from, where its score is read, a new head."""
        pools = is_encoder(self.hf)
        return {
            **{key: value for key, value in self.checkpoint.card.items() if key not in ("head", PAD_TOKEN)},
            "plaudit": __version__,
            "source": str(self.checkpoint.folder),
            **describe_position(self.position, self.tokenizer),
            **({SCORE_POSITION: getattr(self.hf.config, "classifier_pooling", "pooled")} if pools else {}),
            **({"head": "new"} if self.is_new else {}),
        }


def _guard_rotary_embeddings(hf: PreTrainedModel) -> tuple[int, bool] | None:
    """One thread at a time where rotary frequencies are changed by what a forward reads.

    transformers writes the frequencies of these kinds into the module, and reads them there again in the same call.
    Gives the length at which they change, and whether they change with every length above it; None for other models.
    """
    found: tuple[int, bool] | None = None
    for module in hf.modules():
        kinds = getattr(module, "rope_type", None)
        kinds = kinds.values() if isinstance(kinds, Mapping) else [kinds]
        if any(isinstance(kind, str) and ("dynamic" in kind or kind == "longrope") for kind in kinds):
            is_dynamic = any("dynamic" in str(kind) for kind in kinds)
            module.forward = _one_at_a_time(module.forward, module if is_dynamic else None)
            given = [p.get("original_max_position_embeddings") for p in _rope_parameters(module.config)]
            stated = [] if is_dynamic else [int(length) for length in given if length]
            found = (min(stated, default=int(module.original_max_seq_len)), is_dynamic)
    return found


def _rope_parameters(config: Any) -> list[Mapping[str, Any]]:
    """The rotary parameters of a configuration; some have one set a layer type."""
    parameters = getattr(config, "rope_parameters", None) or {}
    return [parameters, *(p for p in parameters.values() if isinstance(p, Mapping))]


def _one_at_a_time(function: Callable[..., Any], dynamic: Any = None) -> Callable[..., Any]:
    lock = threading.Lock()

    @wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        with lock:
            if dynamic is not None:
                # It keeps the frequencies of the longest sequence so far: a score would depend on those before it.
                # Models with several kinds of layers have one set for each, by its name as a prefix.
                for name in [n for n in (*vars(dynamic), *dynamic._buffers) if n.endswith("original_inv_freq")]:
                    prefix = name.removesuffix("original_inv_freq")
                    current = getattr(dynamic, f"{prefix}inv_freq")
                    setattr(dynamic, f"{prefix}max_seq_len_cached", dynamic.original_max_seq_len)
                    setattr(dynamic, f"{prefix}inv_freq", getattr(dynamic, name).to(current.device, copy=True))
            return function(*args, **kwargs)

    return guarded


def _is_checkpointing(hf: PreTrainedModel) -> bool:
    """Whether any block computes its activations a second time in the backward."""
    return any(getattr(module, "gradient_checkpointing", False) for module in hf.modules())


def is_encoder(hf: PreTrainedModel) -> bool:
    """Whether tokens see what comes after them, so that no prefix can be shared; such heads are not named `score`."""
    return not isinstance(getattr(hf, "score", None), nn.Linear)
