"""From settings to the moment before the first step: data read, model loaded, plan made, Groups rendered.

Stands on `corpus`, `losses`, `model`, `lora` and `plan`; `train` goes on from here. What can be wrong with settings and
data is said before a model is loaded, and what can be wrong with the model before a step is made. Invariant: a Session
that exists can be trained, and everything that was left out on the way was counted and said.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from plaudit.adjust import forget_findings
from plaudit.arguments import engine_of
from plaudit.attend import WITHOUT_DROPOUT
from plaudit.batches import Example, ExampleCounts, build_examples
from plaudit.config import DataPart, Settled, TrainConfig
from plaudit.corpus import Corpus, CorpusSettings, CorpusStream, Part, read_corpus, stream_corpus
from plaudit.engines import from_first
from plaudit.errors import ConfigError, InputError
from plaudit.formats import Columns
from plaudit.formats.sources import names_pipe
from plaudit.group import Group
from plaudit.lora import LoraSettings, attach_lora
from plaudit.losses import LOSSES, LossName, LossSettings, Reads, fit_loss
from plaudit.model import RewardNet, is_encoder
from plaudit.parts import Ranks, Say, say_on_stderr
from plaudit.plan import (
    choose_memory,
    choose_mode,
    choose_pace,
    choose_rate,
    choose_steps,
    count_steps,
    estimate,
    measure_memory,
)
from plaudit.render import Overlength, Renderer, RenderSettings
from plaudit.templates import LAST_TOKEN
from plaudit.trials import measure_peak

HEAD = 2048
"""Groups of a stream by which its loss is fitted and its length in tokens is guessed."""


@dataclass(kw_only=True, slots=True)
class Session:
    """A run in the making: what is known so far. Of a stream, `train` holds the beginning, and `stream` all of it."""

    settled: Settled
    ranks: Ranks
    say: Say
    corpus: Corpus | CorpusStream
    groups: list[Group]
    net: RewardNet
    loss: LossSettings
    renderer: Renderer
    train: list[Example]
    evals: dict[str, list[Example]]
    gflops: float
    stream: Callable[[int], Iterator[Example]] | None = None

    @property
    def config(self) -> TrainConfig:
        """What was settled."""
        return self.settled.config


def prepare(settled: Settled, *, ranks: Ranks | None = None, say: Say = say_on_stderr) -> Session:
    """Everything up to the first step: data, model, loss, plan; what there is to say is said."""
    ranks = ranks or Ranks()
    config = settled.config
    if config.streaming and config.train.backbone == "frozen":
        raise ConfigError(
            "streaming=true came with train.backbone=frozen, which keeps a feature of every row; leave one of them out"
        )
    data = corpus_settings(config, is_first=ranks.rank == 0)
    if ranks.world > 1:
        for part in (*data.parts, *data.evals):
            if names_pipe(part.path):
                raise ConfigError(
                    f"{part.path}: every one of {ranks.world} ranks reads the data, and only one can read a pipe; "
                    "put the rows in a file and name that"
                )
    corpus = (stream_corpus if config.streaming else read_corpus)(data)
    for sentence in (*corpus.notes, *(f"ALARM: {alarm}" for alarm in corpus.alarms)):
        say(sentence)
    groups = corpus.train if isinstance(corpus, Corpus) else list(islice(corpus.open(), HEAD))
    loss, notes = fit_loss(groups, LossSettings.from_config(config.loss))
    for note in notes:
        say(note)
    net = load_net(config, engine=engine_of(config))
    if config.precision == "auto" and engine_of(config) is None:
        settled = settled.settle(
            {"precision": str(net.dtype).removeprefix("torch.")}, f"the faster on this {net.device.type}"
        )
    settled = choose_rate(choose_mode(settled, _size_of(net)), _size_of(net))
    config = settled.config
    notes = set_trained(net, config, loss)
    for note in (*net.notes, *notes):
        say(note)
    # Every rank as the first one: a rank that computes activations twice would wait for weights that no other sends.
    settled = from_first(choose_memory(settled, measure_memory(net), net.device))
    session = _render(settled, ranks, say, (corpus, groups, net, loss))
    settled = choose_steps(settled, None if session.stream else len(session.train))
    steps = count_steps(settled, len(session.train))
    session.settled = choose_pace(settled, steps, _cost_of_evaluation(session, steps * settled.config.train.step_size))
    return session


def _cost_of_evaluation(session: Session, num_groups: int) -> float:
    """Of one evaluation, as a share of training on so many groups: a forward is a third of a step."""
    if session.config.train.backbone == "frozen":
        return 0.0  # features are computed once
    trained = sum(e.size for e in session.train) * num_groups / len(session.train)
    return sum(e.size for rows in session.evals.values() for e in rows) / (3 * trained)


Known = tuple[Corpus | CorpusStream, list[Group], RewardNet, LossSettings]


def _render(settled: Settled, ranks: Ranks, say: Say, known: Known) -> Session:
    """The corpus as examples; what was left out is counted and said."""
    config, (corpus, groups, net, loss) = settled.config, known
    render = RenderSettings(
        max_length=config.render.max_length,
        overlength=Overlength(config.render.overlength),
        plain=config.render.plain,
        keep_system=config.render.keep_system,
    )
    renderer = Renderer(net.tokenizer, render, context_length=net.context_length)
    counts, eval_counts = ExampleCounts(), ExampleCounts()
    # An encoder reads no single token, so it has no two ends.
    build = partial(
        build_examples, renderer=renderer, loss=loss, both_ends=config.train.ends == "both" and not is_encoder(net.hf)
    )
    train = list(build(groups, counts=counts))
    evals = {name: list(build(rows, counts=eval_counts)) for name, rows in corpus.evals.items()}
    for sentence in (*renderer.notes, *renderer.counts.sentences(), *counts.sentences()):
        say(sentence)
    if any(example.trailing for example in train):
        say(
            "the chat template writes white space after the token that closes an answer: the score is trained at both "
            "tokens, half and half (train.ends=last trains the last one alone)"
        )
    if not train:
        raise InputError("no group is left to learn from; look at what was left out, and why, above")
    stream = None
    if isinstance(corpus, CorpusStream):
        say(f"what was left out was counted in the first {len(groups):,} groups of the stream; the rest goes like it")
        stream = partial(_read_stream, corpus, build)
    gflops = measure_peak(net.device, net.dtype, seconds=0.3).gflops
    return Session(
        settled=settled, ranks=ranks, say=say, corpus=corpus, groups=groups, net=net, loss=loss, renderer=renderer,
        train=train, evals={name: rows for name, rows in evals.items() if rows}, gflops=gflops, stream=stream,
    )  # fmt: skip


def _read_stream(corpus: CorpusStream, build: Callable[..., Iterator[Example]], epoch: int) -> Iterator[Example]:
    """One pass over a stream."""
    return build(corpus.open(epoch), counts=ExampleCounts())


def corpus_settings(config: TrainConfig, *, is_first: bool = True) -> CorpusSettings:
    """Our settings as the corpus takes them. Of several processes the first one warns, and writes bad rows down."""
    return CorpusSettings(
        parts=tuple(_part(part, is_first) for part in config.data),
        evals=tuple(_part(part, is_first) for part in config.eval),
        seed=config.seed,
        eval_share=config.split.eval_share,
        force_overlap=config.split.force_overlap,
        learns="ratings" if LOSSES[LossName(config.loss.name)].reads is Reads.RATINGS else "comparisons",
        ties=config.loss.ties,
        checks=config.checks.enabled and is_first,
    )


def _part(part: DataPart, is_first: bool) -> Part:
    columns = None
    if part.prompt_key or part.chosen_key or part.rejected_key:
        columns = Columns(prompt=part.prompt_key, chosen=part.chosen_key, rejected=part.rejected_key)
    return Part(
        path=part.path, weight=part.weight, name=part.name, format=part.format, columns=columns, limit=part.limit,
        bad_rows=part.bad_rows if is_first or part.bad_rows == "error" else f"skip={os.devnull}",
    )  # fmt: skip


def load_net(config: TrainConfig, *, engine: str | None) -> RewardNet:
    """The model, with a new head if it has none; engines that keep masters themselves are given float32."""
    torch.manual_seed(config.seed)
    dtype = "float32" if engine is not None else config.precision
    # Whatever the folder's own position is: training fits the last token, and that is what the saved model says.
    net = RewardNet.load(
        config.model, dtype=dtype, device=config.device, new_head=True, trust_remote_code=config.trust_remote_code,
        model_args=config.model_args,
    )  # fmt: skip
    if net.position != LAST_TOKEN:
        net.notes.append(f"training reads the score at the last token instead (it was {net.position.name})")
        net.position = LAST_TOKEN
    net.checkpoint = replace(net.checkpoint, card=forget_findings(net.checkpoint.card))
    _set_tokens(net, config)
    _set_dropout(net.hf, config.train.dropout)
    if config.train.dropout and net.backend in WITHOUT_DROPOUT:
        fast = net.backend
        net.choose_backend(only="blocks")
        net.notes.append(
            f"attention back end 'blocks' is used: {fast} does not compute dropout, and train.dropout is set"
        )
    return net


def _set_tokens(net: RewardNet, config: TrainConfig) -> None:
    """Template and special tokens that were asked for."""
    render = config.render
    for name in ("eos_token", "pad_token"):
        token = getattr(render, name)
        if token is not None:
            if token not in net.tokenizer.get_vocab():
                raise ConfigError(
                    f"render.{name}={token!r} came, which is no token of this tokenizer; name one of its own"
                )
            setattr(net.tokenizer, name, token)
    if render.chat_template is not None:
        net.tokenizer.chat_template = _read_template(render.chat_template)


def _read_template(told: str) -> str:
    """A Jinja file, a folder or a model of the hub with a tokenizer, or the template itself."""
    if "{" in told:
        return told
    path = Path(told).expanduser()
    if path.is_file():
        return path.read_text(encoding="utf-8")
    from transformers import AutoTokenizer

    try:
        found = AutoTokenizer.from_pretrained(path if path.is_dir() else told).chat_template
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"render.chat_template={told!r} came: no file, no folder or model with a tokenizer, and no "
            "template itself; name a .jinja file"
        ) from error
    if not isinstance(found, str):
        raise ConfigError(f"render.chat_template={told}: its tokenizer has no chat template; name another")
    return found


def _set_dropout(model: nn.Module, share: float) -> None:
    """The same dropout everywhere; zero, which is the default, makes a forward in training the one that is scored."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = share
        if isinstance(getattr(module, "attention_dropout", None), float):
            setattr(module, "attention_dropout", share)  # noqa: B010 (a name that not every module has)


def _size_of(net: RewardNet) -> int:
    return sum(p.numel() for p in net.backbone.parameters())


def set_trained(net: RewardNet, config: TrainConfig, loss: LossSettings) -> list[str]:
    """Which weights are trained; a score an attribute where several are learned."""
    notes: list[str] = []
    if loss.num_scores > 1:
        head = nn.Linear(net.head.in_features, loss.num_scores, bias=False, device=net.device)
        nn.init.normal_(head.weight, std=1 / (head.in_features + 1))
        net.replace_head(head)
        notes.append(
            f"{loss.num_scores} attributes are learned ({', '.join(loss.attributes)}), and folded into one score"
        )
    if config.train.backbone == "frozen":
        net.backbone.requires_grad_(False)
    elif config.lora.enabled:
        lora = config.lora
        notes += attach_lora(
            net,
            LoraSettings(
                rank=lora.rank, alpha=lora.alpha, dropout=lora.dropout, targets=lora.targets,
                target_parameters=lora.target_parameters, modules_to_save=lora.modules_to_save, rslora=lora.rslora,
                dora=lora.dora, bits=lora.bits, quant_type=lora.quant_type, double_quant=lora.double_quant,
                quant_storage=lora.quant_storage,
            ),
        )  # fmt: skip
    return notes


def describe_plan(session: Session) -> dict[str, Any]:
    """What a run would do and take, for `--dry-run`."""
    config, steps = session.config, count_steps(session.settled, len(session.train))
    groups = steps * config.train.step_size if session.stream else len(session.train)
    seen = steps * config.train.step_size if config.train.max_steps else config.train.passes * groups
    passes = seen / len(session.train)
    computed = 1.0 if config.train.backbone == "frozen" else passes
    unique = sum(e.size for e in session.train)
    total = sum(len(ids) for e in session.train for ids in e.ids if ids is not None)
    tokens = (round(unique * computed), round(total * computed))
    found = estimate(session.net, session.settled, tokens=tokens, gflops=session.gflops)
    return {
        "groups": groups,
        "comparisons": round(sum(len(e.items.better_C) for e in session.train) * groups / len(session.train)),
        "eval_groups": {name: len(rows) for name, rows in session.evals.items()},
        "steps": steps,
        "trained_parameters": sum(p.numel() for p in session.net.hf.parameters() if p.requires_grad),
        "gflops": session.gflops,
        "precision": str(session.net.dtype).removeprefix("torch."),
        "epochs": passes,
        **found,
    }
