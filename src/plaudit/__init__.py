"""plaudit: preference data in, a reward model that people can trust and use out.

The river, in reading order. A module imports only from modules above it; `tests/test_house.py` keeps this list true.

    redaction    secrets taken out of whatever is stored or printed
    errors       one family of errors, each a sentence
    files        final and temporary files, written whole or not at all
    terminal     text of data made safe to print
    config       file and command line -> settings, each with where it came from
    runs         the run folder: what it was told, found out and made; one process at a time
    group        Group, Completion, Label: the noun
    formats      disk or hub -> Groups, Groups -> disk; one dialect a file
    keys         when two prompts, or two Groups, are the same; lots that depend on nothing else
    contamination  whether a model has seen in training what it is measured on
    surface      how far a label can be read off the look of an answer
    measure      scores and labels in, figures out: each with an interval, and beside what guessing would get
    templates    a conversation as text, and what a chat template does to it
    encode       texts -> token ids, many at once; what they share is encoded once
    render       messages -> token ids, and the checks that keep tokens honest
    tree         K token lists -> segments with parents
    pack         trees -> packs within a token budget
    memory       dtype, allocator and token budget that fit this machine
    blocks       attention by plain matrix products, forward and backward
    attend       pack -> positions and attention, one back end per device
    transformers4  what transformers 4 reads in other places of a folder, written there too
    embedded     a name -> a folder of safetensors: path, hub, GGUF, or the embedded default
    checkpoint   a folder's files: which head, which dialect, what is missing
    positions    where in a text a folder's scores are read
    adjust       what measuring found out about a model, kept in its folder
    quantized    four or eight bits a weight under an adapter: made so, described, merged
    loading      a folder -> a transformers model with one head, and what there is to say
    saving       a model in memory -> a folder that every consumer loads
    locks        any number of forwards on a model, or one thread that changes it
    feedforward  feed-forward blocks fused, and the last one at the leaves only
    model        backbone + scalar head; forward(pack) -> score_L; load, save
    lora         adapters in a net: attached, saved with the head, merged for a while
    machine      facts about this machine, and what is off
    trials       what is measured on it: matrix products, back ends, budgets
    score        Scorer: a stream of Groups in, Scores out, same order
    ends         whether a score read at the closing token is the one read at the last token
    journal      a Scorer that writes down what it scored, for jobs that make their Groups up
    parts        the folder of a long job: parts that are whole or not there
    intake       what a long job reads: checked early, counted, readable again
    scorefile    a file of rows in, the same rows with scores out; resumes after a kill
    report       report.json -> one page of HTML: a verdict first, then every number with what it means
    select       scored Groups -> the best, the top share, pairs; the best-of-N curve
    probes       edits of an answer whose right effect on a score is known: is it biased, is it fooled
    benchmarks   public reward benchmarks, one a file, with the score that their authors publish
    specimen     a few rows, long and short, on which net and folder are compared
    witness      a stranger who opens a folder: a process of its own, nothing of plaudit in it
    proof        a fresh process has to get the scores that the folder was saved with
    consumers    which consumers score a folder as plaudit does: run, or by their conventions
    modelcard    the page that goes with a model
    export       a net, a run or a folder -> the folder that every consumer loads, proven
    corpus       data files -> Groups to train and to measure on: mixed, split, checked
    losses       what is minimised: one loss a file, pure functions of scores and targets
    batches      Groups -> optimizer steps, packed; every rank its share
    masters      narrow weights, and what an optimizer moves in fp32
    skips        steps that were not a number: which rows, and when they are too many
    meters       exact means of a run, over examples and ranks
    commits      folders that are whole or not there
    engines      processes joined, and weights that FSDP and ZeRO keep in parts
    committing   a transformers Trainer whose checkpoints are commits
    trainer      the Trainer on packs: one step, its gradient, its numbers
    plan         what a run leaves to be found out: mode, rate, memory, pace
    arguments    our settings as TrainingArguments
    alarms       what a run says of itself while it goes
    preparation  settings -> everything that is ready before the first step
    features     the head alone, on features computed once
    train        configuration -> proven checkpoint
    sets         data that a model is measured on: named, scored once, read again with scores
    drift        has the world moved away from a model: new data against a reference
    figures      one table of scores and labels -> every figure of a report
    evaluate     a model and labelled data -> what can be said of the model
    compare      models on the same data: who is right more often, and where
    demo         the story on the embedded model: a head, a ranking, what to do next
    cli          one file a command; holds no idea of its own
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from plaudit.errors import (
    ConfigError,
    DataError,
    InputError,
    InternalError,
    MissingExtraError,
    ModelError,
    PlauditError,
    TemplateError,
)
from plaudit.group import Completion, Group, Label, Preference, Ranking, Ratings, Tie, pair

if TYPE_CHECKING:
    from plaudit.formats import read_groups as read
    from plaudit.formats import write_groups as write
    from plaudit.score import RewardModel, Scorer, Scores, ScoreSettings

    load = RewardModel.load

__version__ = "0.1.0"

__all__ = [
    "Completion",
    "ConfigError",
    "DataError",
    "Group",
    "InputError",
    "InternalError",
    "Label",
    "MissingExtraError",
    "ModelError",
    "PlauditError",
    "Preference",
    "Ranking",
    "Ratings",
    "RewardModel",
    "ScoreSettings",
    "Scorer",
    "Scores",
    "TemplateError",
    "Tie",
    "__version__",
    "load",
    "pair",
    "read",
    "write",
]

# Imported when they are first asked for: the first two bring pyarrow's weight along, the rest torch's.
_LATE = {
    "read": ("plaudit.formats", "read_groups"),
    "write": ("plaudit.formats", "write_groups"),
    "RewardModel": ("plaudit.score", "RewardModel"),
    "ScoreSettings": ("plaudit.score", "ScoreSettings"),
    "Scorer": ("plaudit.score", "Scorer"),
    "Scores": ("plaudit.score", "Scores"),
}


def __getattr__(name: str) -> Any:
    """The public names that cost an import, when someone wants them."""
    if name == "load":
        return __getattr__("RewardModel").load
    if name not in _LATE:
        raise AttributeError(f"module 'plaudit' has no attribute {name!r}; it has {', '.join(__all__)}")
    module, attribute = _LATE[name]
    found = globals()[name] = getattr(import_module(module), attribute)
    return found


def __dir__() -> list[str]:
    """All public names, those not imported yet among them."""
    return sorted({*globals(), *__all__})
