"""A configuration becomes a proven checkpoint: data read, plan made, model fitted, saved, and scored by a stranger.

Stands on everything above it; `plaudit train` is its only caller beside Python. Invariant: RUN/model, if it is there,
gave its scores in a fresh process; every value that was used is in RUN/config.yaml with where it came from.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from plaudit.adjust import ENDS
from plaudit.alarms import Alarms, RunLog, draw_curves
from plaudit.arguments import build_arguments, check_device
from plaudit.batches import StepSet, StepSettings, StepStream
from plaudit.commits import find_last, is_disk_full
from plaudit.config import Settled
from plaudit.contamination import SeenData, build_seen
from plaudit.corpus import Corpus
from plaudit.ends import describe_ends, measure_ends
from plaudit.engines import from_first, joined, of_all, put_trained
from plaudit.errors import InputError
from plaudit.export import choose_merged_dtype, publish
from plaudit.features import HeadSettings, fit_head
from plaudit.lora import merging
from plaudit.losses import LOSSES, LossName, Reads, combine_scores
from plaudit.model import RewardNet
from plaudit.parts import Ranks, Say, say_on_stderr
from plaudit.plan import count_flops
from plaudit.preparation import Session, load_net, prepare, set_trained
from plaudit.runs import RunFolder, open_run, read_metrics
from plaudit.runs.folder import CONFIG, ENVIRONMENT, LOCK
from plaudit.score import Scorer, ScoreSettings
from plaudit.specimen import draw_sample
from plaudit.trainer import RewardTrainer, TrainerSettings

Show = Callable[[int, int, dict[str, Any]], None]
SPEEDS = ("pairs_per_second", "unique_tokens_per_second", "tokens_per_second", "sharing", "mfu")


def train(
    settled: Settled,
    *,
    resume: bool = False,
    say: Say = say_on_stderr,
    show: Show | None = None,
    command: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Train as settled; gives the report that is also RUN/report.json. Every rank calls it, the first one writes."""
    ranks = Ranks.from_environment()
    say = say if ranks.rank == 0 else _silent
    with joined(ranks, settled.config.device):
        if ranks.rank > 0:
            return _train_in(None, settled, ranks, say, None)
        with open_run(settled, resume=resume) as run:
            run.write_session(command=command)
            try:
                return _train_in(run, settled, ranks, say, show)
            except InputError:
                _clear(run)
                raise
            except OSError as error:
                if not is_disk_full(error):
                    raise
                raise _full(run, error) from error
            except SafetensorError as error:
                raise (_full(run, error) if is_disk_full(error) else error) from error


def _full(run: RunFolder, error: Exception) -> InputError:
    return InputError(f"{run.path}: the disk is full ({error}); free some space, and go on with --resume")


def _clear(run: RunFolder) -> None:
    """A run that was refused before its first step is not in the way of the same command, mended."""
    out = run.checkpoints_folder
    if run.is_resumed or _rows(run) or (out.is_dir() and any(out.iterdir())):
        return
    with contextlib.suppress(OSError):
        out.rmdir()
    for name in (CONFIG, ENVIRONMENT, run.metrics.path.name, LOCK):
        (run.path / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        run.path.rmdir()  # if it was made for the run


def _silent(sentence: str) -> None:
    """What other ranks say: nothing."""


def _train_in(run: RunFolder | None, settled: Settled, ranks: Ranks, say: Say, show: Show | None) -> dict[str, Any]:
    if from_first(run is not None and run.is_finished):
        if run is None:
            return {}
        say(f"{run.path}: this run is finished; its report is shown again")
        return run.read_report()
    session = prepare(settled, ranks=ranks, say=say)
    if run is not None:
        for note in run.notes:
            say(note)
        run.write_config(session.settled)
        run.write_data(session.corpus.digests)
    began = time.perf_counter()
    fit = fit_features if session.config.train.backbone == "frozen" else fit_packs
    numbers = fit(session, run, show)
    if run is None:
        return {}
    return finish(session, run, numbers | {"seconds": time.perf_counter() - began})


def fit_packs(session: Session, run: RunFolder | None, show: Show | None) -> dict[str, Any]:
    """The weights are fitted, pack by pack; gives the final numbers."""
    config, net = session.config, session.net
    out = Path(config.out).expanduser() / "checkpoints"
    args = build_arguments(
        config, out, evals=list(session.evals), device=net.device.type,
        is_narrow=config.precision == "bfloat16" or (config.precision == "auto" and net.device.type != "cpu"),
    )  # fmt: skip
    check_device(net.device, args.device)
    if config.train.gradient_checkpointing == "on":
        net.save_memory()
    drawing = StepSettings(
        groups=config.train.step_size, budget=int(config.train.budget or 2048), seed=config.seed,
        rank=session.ranks.rank, world=session.ranks.world,
        by_token=LOSSES[session.loss.name].reads is Reads.TOKENS,
    )  # fmt: skip
    steps = StepStream(session.stream, drawing) if session.stream else StepSet(session.train, drawing)
    alarms = _make_alarms(session)
    settings = TrainerSettings(
        loss=session.loss, max_skipped=config.train.max_skipped, flops_per_token=count_flops(net),
        peak_flops=session.gflops * 1e9, say=session.say, offload=config.train.activation_offload,
    )  # fmt: skip
    callbacks: list[Any] = [alarms] if config.checks.enabled else []
    callbacks += [RunLog(run, show)] if run is not None else []
    if config.train.patience is not None and session.evals:
        from transformers import EarlyStoppingCallback

        callbacks.append(EarlyStoppingCallback(early_stopping_patience=config.train.patience))
    trainer = RewardTrainer(net, args, steps, settings=settings, evals=session.evals, callbacks=callbacks)
    last = _find_checkpoint(out, session)
    if run is not None:
        run.metrics.cut_after(int(last.name.rpartition("-")[2]) if last else -1)
        if config.checks.enabled:
            alarms.recall(_rows(run))
    trainer.train_from(last)
    found = _sum_up(trainer, session, alarms)
    if trainer.is_sharded:
        weights = trainer.whole_weights()
        if run is not None:
            session.net = _rebuild(session, weights)
    return found


def _rebuild(session: Session, weights: Mapping[str, Tensor]) -> RewardNet:
    """The model once more, as no engine has touched it, with what was learned: whole, on the first rank."""
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    unset_hf_deepspeed_config()  # else ZeRO-3 would cut what is loaded, and wait for the other ranks to do the same
    config = session.config
    net = load_net(config, engine=None)
    set_trained(net, config, session.loss)
    put_trained(net.hf, weights, Path(config.out))
    return net


def _make_alarms(session: Session) -> Alarms:
    return Alarms(
        lambda sentence: session.say(f"ALARM: {sentence}"),
        num_evaluated=sum(len(e.items.better_C) for e in next(iter(session.evals.values()), [])),
        is_pairwise=session.loss.name in (LossName.BRADLEY_TERRY, LossName.LOG_EXP),
    )


def _find_checkpoint(out: Path, session: Session) -> Path | None:
    """The newest whole one, found by the first rank; all of them go on from it, or none."""
    last, faults = find_last(out) if out.is_dir() and session.ranks.rank == 0 else (None, [])
    for fault in faults:
        session.say(fault)
    last = from_first(last)
    if last is None:
        return None
    blind = [rank for rank, sees in enumerate(of_all(last.is_dir())) if not sees]
    if blind:
        raise InputError(
            f"{last} is not there for rank {', '.join(map(str, blind))} of {session.ranks.world}; the run's folder has "
            "to be on a file system that all nodes share"
        )
    session.say(f"going on from {last}")
    return last


def _sum_up(trainer: RewardTrainer, session: Session, alarms: Alarms) -> dict[str, Any]:
    """Final numbers: evaluation of what is kept, speed over the whole run, what was skipped."""
    trainer.is_in_train = False
    for watcher in (RunLog, Alarms):
        trainer.remove_callback(watcher)  # what follows is of the best weights, and of no step
    final = trainer.evaluate() if session.evals else {}
    rows = [row for row in trainer.state.log_history if "unique_tokens_per_second" in row and "loss" in row]

    def mean(name: str) -> float | None:
        found = [row[name] for row in rows if name in row]
        return sum(found) / len(found) if found else None

    best = trainer.state.best_model_checkpoint
    return {
        "steps": trainer.state.global_step,
        "epochs": trainer.state.epoch,
        "eval": {key.removeprefix("eval_"): value for key, value in final.items()},
        "best_step": int(str(best).rpartition("-")[2]) if best else trainer.state.global_step,
        "train": {name: rows[-1].get(name) for name in ("loss", "accuracy", "margin")} if rows else {},
        **{name: mean(name) for name in SPEEDS},
        "skipped_steps": trainer.skips.as_json(),
        "budget": trainer.steps.settings.budget,
        "alarms": [*session.corpus.alarms, *alarms.raised],
        "thresholds": trainer.thresholds.card() if trainer.thresholds is not None else None,
    }


def fit_features(session: Session, run: RunFolder | None, show: Show | None) -> dict[str, Any]:
    """The head alone, on features that are computed once."""
    config = session.config
    settings = HeadSettings(
        loss=session.loss, fit=config.train, seed=config.seed, budget=int(config.train.budget or 2048),
        log=lambda step, steps, values: _log(run, show, step, steps, values), say=session.say,
    )  # fmt: skip
    if run is not None:
        run.metrics.cut_after(-1)  # it begins anew: the whole of it takes seconds
    deaf = [
        *(f"hf.{name}" for name in config.hf),
        *(["train.optimizer"] if config.train.optimizer[:5] != "adamw" else []),
    ]
    deaf += [] if config.train.schedule in ("cosine", "linear", "constant") else ["train.schedule"]
    if deaf:
        session.say(f"a head on fixed features is fitted by AdamW and nothing else: {', '.join(deaf)} has no say")
    found = fit_head(session.net, session.train, session.evals, settings)
    return {**found, "alarms": list(session.corpus.alarms)}


def _log(run: RunFolder | None, show: Show | None, step: int, steps: int, values: dict[str, float]) -> None:
    if run is not None:
        run.metrics.append(step, 0.0, values)
    if show is not None:
        show(step, steps, values)


def finish(session: Session, run: RunFolder, numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Fold, normalise, save, prove, and write the report."""
    net, config = session.net, session.config
    net.is_new = False
    if session.loss.num_scores > 1:
        head = nn.Linear(net.head.in_features, 1, bias=False, device=net.device)
        head.weight.data = combine_scores(net.head.weight.data.T, session.loss)[None]
        net.replace_head(head)
    card: dict[str, Any] = {
        "trained": {
            "loss": session.loss.card(), "groups": len(session.train), "data": session.corpus.digests,
            "learning_rate": config.train.learning_rate, "epochs": config.train.passes, "seed": config.seed,
            "lora": bool(config.lora.enabled), "eval": numbers.get("eval", {}),
            "seen": _build_seen(session, int(numbers.get("steps") or 0)).write(run.path),
            **({"ordinal": numbers["thresholds"]} if numbers.get("thresholds") else {}),
        },
    }  # fmt: skip
    card |= _normalise(session, numbers)
    net.eval()
    groups = [g for rows in session.corpus.evals.values() for g in rows] or session.groups
    ends = _measure_ends(session, groups)
    card |= ends
    numbers = {**numbers, **ends}
    published = _publish(session, run, card, dict(numbers), groups)
    report = {key: value for key, value in numbers.items() if key != "thresholds"}
    report |= {"model": str(published), "run": str(run.path)}
    run.write_report(report)
    if draw_curves(_rows(run), run.curves_file, session.say):
        report["curves"] = str(run.curves_file)
    return report


def _measure_ends(session: Session, groups: Sequence[Any]) -> dict[str, Any]:
    """How far scores at the closing token agree with those at the last, on the evaluation data; says so."""
    found = measure_ends(Scorer(session.net, ScoreSettings(render=session.renderer.settings)), groups)
    if found is None:
        return {}
    session.say(describe_ends(found.as_json()))
    return {ENDS: found.as_json()}


def _build_seen(session: Session, steps: int) -> SeenData:
    """Hashes of what was trained on; of a stream, of its first pass as far as the steps went."""
    corpus = session.corpus
    if isinstance(corpus, Corpus):
        return build_seen(session.groups)
    return build_seen(islice(corpus.open(), steps * session.config.train.step_size))


def _rows(run: RunFolder) -> list[dict[str, Any]]:
    return read_metrics(run.path / "metrics.jsonl")


def _normalise(session: Session, numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Mean and spread of the scores on the first evaluation set, for who wants them; nothing applies them unasked."""
    lead = "" if len(session.evals) == 1 else f"{next(iter(session.evals), '')}_"
    mean, std = (numbers.get("eval", {}).get(f"{lead}{name}") for name in ("mean_reward", "reward_std"))
    if not session.config.normalise or mean is None or not std:
        return {}
    session.net.hf.config.mean, session.net.hf.config.std = float(mean), float(std)
    source, rows = next(iter(session.evals.items()))
    count = sum(ids is not None for example in rows for ids in example.ids)
    return {"normalisation": {"mean": float(mean), "std": float(std), "count": count, "source": source}}


def _publish(
    session: Session, run: RunFolder, card: dict[str, Any], report: dict[str, Any], groups: Sequence[Any]
) -> Path:
    """RUN/model, which plain transformers loads; a LoRA run has RUN/adapter beside it."""
    net, config = session.net, session.config
    sample = draw_sample(groups[:512], net, settings=session.renderer.settings)
    told: dict[str, Any] = {"sample": sample, "card": card, "report": report, "prove": config.proof}
    with contextlib.ExitStack() as stack:
        if config.lora.enabled:
            adapter = publish(net, run.path / "adapter", base=net.checkpoint.folder, **told)
            _tell(session, adapter.proof)
            own = net.dtype
            stack.enter_context(merging(net, dtype=torch.float32))
            name, sentence = choose_merged_dtype(net, str(own).removeprefix("torch."))
            session.say(sentence)
            if name != "float32":
                stack.enter_context(_rounded(net, getattr(torch, name)))
        published = publish(net, run.model_folder, head_prefix=config.head_prefix, **told)
        _tell(session, published.proof)
    return published.folder


@contextlib.contextmanager
def _rounded(net: RewardNet, dtype: torch.dtype) -> Iterator[None]:
    """The backbone in the precision that it is saved in."""
    kept = [(p, p.data) for p in net.backbone.parameters()]
    for p, data in kept:
        p.data = data.to(dtype)
    try:
        yield
    finally:
        for p, data in kept:
            p.data = data


def _tell(session: Session, proof: Any) -> None:
    if proof is not None:
        session.say(proof.sentence())
