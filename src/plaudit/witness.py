"""A stranger who opens a reward model's folder: a program in a process of its own, with nothing of plaudit in it.

`proof` starts it (`python -P witness.py`, so that not even its neighbours can be imported) and asks it on stdin; it
answers on stdout, one JSON object each way. It knows transformers, torch, and peft for adapters, and does what a user
of those would do: load the folder, apply the chat template, read the logits. What a folder makes those libraries raise
is an answer too. Invariant: an answer owes nothing to plaudit, to the memory of the process that saved the folder, or
to the network.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

OPENRLHF = "OpenRLHF"

FAULTS = (ValueError, OSError, RuntimeError, LookupError, TypeError, AttributeError, ImportError)
"""What transformers, peft and torch raise over a folder that is not as it should be."""


def main() -> int:
    """Import what takes time, read the question, answer it."""
    # Whatever a library prints must not stand between the answer and who asked.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    began = time.perf_counter()
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, __version__  # noqa: F401

    seconds = {"import": time.perf_counter() - began}
    line = sys.stdin.readline()
    if not line:
        return 0
    question = json.loads(line)
    began = time.perf_counter()
    with torch.inference_mode():
        answer = testify(question)
    seconds["answer"] = time.perf_counter() - began
    about = {"torch": torch.__version__, "transformers": __version__, "seconds": seconds}
    answer |= about | {"plaudit": sorted(name for name in sys.modules if name.split(".")[0] == "plaudit")}
    answers.write(json.dumps(answer) + "\n")
    answers.close()
    return 0


def testify(question: dict[str, Any]) -> dict[str, Any]:
    """What the folder's tokenizer makes of the rows, and what each way of loading it makes of their scores."""
    from transformers import AutoTokenizer

    answer: dict[str, Any] = {"ways": {}}
    try:
        tokenizer = AutoTokenizer.from_pretrained(question["folder"])
        rows = question["rows"]
        answer["ids"] = [read_tokens(tokenizer, row) for row in rows]
        answer["pad"] = tokenizer.pad_token_id
    except FAULTS as error:
        return answer | {"error": _say(error)}
    for way in question["ways"]:
        try:
            answer["ways"][way] = WAYS[way](question, tokenizer, answer["ids"])
        except FAULTS as error:
            answer["ways"][way] = {"error": _say(error)}
    return answer


def read_tokens(tokenizer: Any, row: dict[str, Any]) -> list[int]:
    """A conversation through the chat template; or a text as it is, with EOS after it."""
    if row.get("messages") is not None:
        found = tokenizer.apply_chat_template(row["messages"], add_generation_prompt=False, return_dict=False)
        return [int(i) for i in found]
    ids = [int(i) for i in tokenizer(row["text"])["input_ids"]]
    eos = tokenizer.eos_token_id
    return ids if eos is None or ids[-1:] == [eos] else [*ids, eos]


def by_transformers(question: dict[str, Any], tokenizer: Any, ids: list[list[int]]) -> dict[str, Any]:
    """The folder as anyone opens it: every row alone, some of them padded, and what TRL and a pipeline do with it."""
    model, answer = load_classifier(question["folder"], question)
    config = model.config.get_text_config()
    answer |= {"pad": config.pad_token_id, "dtype": str(model.dtype).removeprefix("torch.")}
    answer |= {"labels": model.config.num_labels, "problem": model.config.problem_type}
    answer["scores"] = [_score(model, row) for row in ids]
    answer["narrow"] = score_narrow(model, answer["own_dtype"], ids)
    asked = {name: wanted for name, wanted in question.get("asked", {}).items() if name != OPENRLHF}
    answer["asked"] = _try(score_asked, model, asked, _score)
    for name, ask in (("padded", ask_padded), ("trl", ask_as_trl), ("pipeline", ask_pipeline)):
        if name in question["also"]:
            answer[name] = _try(ask, model, tokenizer, question["rows"], ids)
    return answer


def load_classifier(folder: str, question: dict[str, Any], **more: Any) -> tuple[Any, dict[str, Any]]:
    """The classification model and what its loading found; for a family without such a class, the generic one."""
    from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, PreTrainedModel
    from transformers.modeling_layers import GenericForSequenceClassification

    config = AutoConfig.from_pretrained(folder, **more)
    made = AutoModelForSequenceClassification
    is_shipped = type(config) in AutoModelForSequenceClassification._model_mapping
    if not is_shipped and type(config) in AutoModel._model_mapping:
        base = AutoModel._model_mapping[type(config)]
        parent = next(c for c in base.__mro__ if c is not base and issubclass(c, PreTrainedModel))
        made = type("Generic", (GenericForSequenceClassification, parent), {"__module__": __name__})
    model, found = made.from_pretrained(folder, config=config, **_load_options(question))
    own = str(config.dtype or model.dtype).removeprefix("torch.")
    return model.to(question["device"]).eval(), {"loading": _listed(found), "shipped": is_shipped, "own_dtype": own}


def _load_options(question: dict[str, Any]) -> dict[str, Any]:
    # Shapes that do not fit are among the findings then, by name.
    findings = {"output_loading_info": True, "ignore_mismatched_sizes": True}
    return {"dtype": question["dtype"], "use_safetensors": True, **findings}


def score_narrow(model: Any, own: str, ids: list[list[int]]) -> list[float] | None:
    """Scores at the folder's own precision, which is what most users compute in, where the first ones had another."""
    import torch

    if model.dtype == getattr(torch, own):
        return None
    with computing_in(model, own):
        return [_score(model, row) for row in ids]


@contextlib.contextmanager
def computing_in(model: Any, dtype: str) -> Iterator[None]:
    """The time in which the model's weights are rounded to this precision; `loaded` leaves them as they are."""
    import torch

    if dtype == "loaded":
        yield
        return
    kept = [(x, x.data) for x in model.parameters()]
    try:
        # Not the whole model: its buffers (angles of positions) are float32 whatever it is loaded in.
        for x, data in kept:
            x.data = data.to(getattr(torch, dtype))
        yield
    finally:
        for x, data in kept:
            x.data = data


def score_asked(
    model: Any, asked: dict[str, Any], score: Callable[[Any, list[int]], float]
) -> dict[str, dict[str, list[float]]]:
    """Each consumer's scores of its own tokens, by precision; rows that consumers share are computed once."""
    answer: dict[str, dict[str, list[float]]] = {name: {} for name in asked}
    known: dict[tuple[Any, ...], float] = {}
    for dtype in sorted({dtype for wanted in asked.values() for dtype in wanted["dtypes"]}):
        with computing_in(model, dtype):
            for name, wanted in asked.items():
                if dtype not in wanted["dtypes"]:
                    continue
                keys = [(model.dtype, *row) for row in wanted["ids"]]
                for key in keys:
                    if key not in known:
                        known[key] = score(model, list(key[1:]))
                answer[name][dtype] = [known[key] for key in keys]
    return answer


def _listed(found: dict[str, Any]) -> dict[str, list[str]]:
    """The findings of a loading as lists of names."""
    kinds = {"missing": "missing_keys", "left over": "unexpected_keys", "of another shape": "mismatched_keys"}
    names = {kind: found.get(key) or () for kind, key in kinds.items()}
    return {kind: sorted(str(x[0] if isinstance(x, tuple) else x) for x in some) for kind, some in names.items()}


def _score(model: Any, row: list[int]) -> float:
    import torch

    return float(model(input_ids=torch.tensor([row], device=model.device)).logits[0, 0].float())


def _try(ask: Callable[..., Any], *args: Any) -> Any:
    try:
        return ask(*args)
    except FAULTS as error:
        return {"error": _say(error)}


def ask_padded(model: Any, tokenizer: Any, rows: list[Any], ids: list[list[int]]) -> dict[str, Any]:
    """The shorter half of the rows in one batch, padded on the right by the tokenizer."""
    chosen = sorted(range(len(ids)), key=lambda n: len(ids[n]))[: max(len(ids) // 2, min(len(ids), 2))]
    batch = tokenizer.pad({"input_ids": [ids[n] for n in chosen]}, padding_side="right", return_tensors="pt")
    return {"rows": chosen, "scores": model(**batch.to(model.device)).logits[:, 0].float().tolist()}


def ask_as_trl(model: Any, tokenizer: Any, rows: list[Any], ids: list[list[int]]) -> dict[str, Any]:
    """As TRL's trainers ask a reward model: the template's text, no special tokens, right padding, first logit."""
    chosen = [n for n, row in enumerate(rows) if row.get("messages") is not None]
    if not chosen:
        return {"rows": [], "scores": []}
    texts = [_text(tokenizer, rows[n]) for n in chosen]
    batch = tokenizer(text=texts, return_tensors="pt", padding=True, padding_side="right", add_special_tokens=False)
    return {"rows": chosen, "scores": model(**batch.to(model.device)).logits[:, 0].float().tolist()}


def ask_pipeline(model: Any, tokenizer: Any, rows: list[Any], ids: list[list[int]]) -> dict[str, Any]:
    """`pipeline("text-classification")` on the text of the chat template; also as it is without further arguments."""
    from transformers import pipeline

    chosen = [n for n, row in enumerate(rows) if row.get("messages") is not None]
    texts = [_text(tokenizer, rows[n]) for n in chosen]
    pipe = pipeline("text-classification", model=model, tokenizer=tokenizer)
    given = [float(found["score"]) for found in pipe(texts, add_special_tokens=False)] if texts else []
    bare = [[int(i) for i in tokenizer(text)["input_ids"]] for text in texts]
    return {"rows": chosen, "scores": given, "as_it_is": bare == [ids[n] for n in chosen]}


def _text(tokenizer: Any, row: dict[str, Any]) -> str:
    return str(tokenizer.apply_chat_template(row["messages"], tokenize=False, add_generation_prompt=False))


def by_openrlhf(question: dict[str, Any], tokenizer: Any, ids: list[list[int]]) -> dict[str, Any]:
    """As OpenRLHF opens a reward model: a backbone, a head named by `value_head_prefix`, left padding, the last token.

    Its own code needs engines that are not here; this is its convention: which names, which token, which arithmetic.
    """
    import torch
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.from_pretrained(question["folder"])
    prefix = getattr(config, "value_head_prefix", "score")
    base = AutoModel._model_mapping[type(config)]
    parent: Any = base.__base__

    class Reader(parent):
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            setattr(self, self.base_model_prefix, base(config))
            setattr(self, prefix, torch.nn.Linear(config.hidden_size, 1, bias=False))
            self.post_init()

    model, found = Reader.from_pretrained(question["folder"], config=config, **_load_options(question))
    model = model.to(question["device"]).eval()
    # Masked, so any token will do where the folder has none.
    pad = next((i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if i is not None), 0)

    def score(model: Any, row: list[int]) -> float:
        mask = torch.tensor([[0] * 3 + [1] * len(row)], device=model.device)
        at = (mask.cumsum(-1) - 1).masked_fill(mask == 0, 1)
        ids_BT = torch.tensor([[pad] * 3 + row], device=model.device)
        below = getattr(model, model.base_model_prefix)
        hidden = below(input_ids=ids_BT, attention_mask=mask, position_ids=at, use_cache=False).last_hidden_state
        return float(getattr(model, prefix)(hidden)[0, -1, 0].float())

    asked = {name: wanted for name, wanted in question.get("asked", {}).items() if name == OPENRLHF}
    about = {"prefix": prefix, "mean": getattr(config, "mean", None), "std": getattr(config, "std", None)}
    scores = [score(model, row) for row in ids]
    return {"loading": _listed(found), "scores": scores, **about, "asked": _try(score_asked, model, asked, score)}


def by_peft(question: dict[str, Any], tokenizer: Any, ids: list[list[int]]) -> dict[str, Any]:
    """An adapter's folder on its base, by peft: every tensor of the file has to be in the model afterwards."""
    import torch
    from peft import PeftConfig, PeftModel, get_peft_model_state_dict
    from safetensors import safe_open

    # Before peft looks: without this file it would open adapter_model.bin, a pickle.
    with safe_open(Path(question["folder"]) / "adapter_model.safetensors", framework="pt") as file:
        saved = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    config = PeftConfig.from_pretrained(question["folder"])
    base, answer = _load_base(question, str(config.base_model_name_or_path))
    if question["dtype"] == "float32" and not question.get("quantized"):
        for x in base.parameters():
            x.data = x.data.float()
    base.config.pad_token_id = base.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    model = PeftModel.from_pretrained(base, question["folder"], autocast_adapter_dtype=False).eval()
    answer["base"] = answer["loading"]
    there = get_peft_model_state_dict(model, save_embedding_layers=False)
    other = [n for n, x in saved.items() if n in there and not torch.equal(there[n].cpu(), x.to(there[n].dtype))]
    missing, left = sorted(there.keys() - saved.keys()), sorted(saved.keys() - there.keys())
    answer["loading"] = {"missing": missing, "left over": left, "of another value": sorted(other)}
    answer["scores"] = [_score(model, row) for row in ids]
    answer["narrow"] = None if question.get("quantized") else score_narrow(model, answer["own_dtype"], ids)
    return answer | {"dtype": str(base.dtype).removeprefix("torch."), "pad": tokenizer.pad_token_id}


def _load_base(question: dict[str, Any], name: str) -> tuple[Any, dict[str, Any]]:
    """The adapter's base, in the bits that it was trained on."""
    bits, path = question.get("quantized"), Path(question["folder"]) / name
    where = str(path) if not Path(name).is_dir() and path.is_dir() else name
    if not bits:
        base, answer = load_classifier(where, {**question, "dtype": _base_dtype(question)}, num_labels=1)
        return base, answer | {"own_dtype": str(base.dtype).removeprefix("torch.")}
    import torch
    from transformers import AutoModelForSequenceClassification, BitsAndBytesConfig

    about = {f"load_in_{bits['bits']}bit": True, "llm_int8_skip_modules": ["score"]}
    if bits["bits"] == 4:
        about |= {"bnb_4bit_quant_type": bits["quant_type"], "bnb_4bit_use_double_quant": bits["double_quant"]}
        about |= {"bnb_4bit_compute_dtype": getattr(torch, bits["compute"])}
    options = _load_options(question) | {"quantization_config": BitsAndBytesConfig(**about), "num_labels": 1}
    model, found = AutoModelForSequenceClassification.from_pretrained(where, device_map=question["device"], **options)
    return model.eval(), {"loading": _listed(found), "shipped": True, "own_dtype": "float32"}


def _base_dtype(question: dict[str, Any]) -> str:
    """The precision of the base that the adapter was trained on, whatever its files have."""
    return str(question.get("base_dtype") or question["dtype"])


def by_adapter_loading(question: dict[str, Any], tokenizer: Any, ids: list[list[int]]) -> dict[str, Any]:
    """An adapter's folder opened by transformers itself, which finds the base and calls peft."""
    from transformers import AutoModelForSequenceClassification

    if not (Path(question["folder"]) / "adapter_model.safetensors").is_file():
        raise OSError("adapter_model.safetensors is missing, and the pickle adapter_model.bin is not opened")
    options = _load_options(question) | {"num_labels": 1, "dtype": _base_dtype(question)}
    model, found = AutoModelForSequenceClassification.from_pretrained(question["folder"], **options)
    model = model.to(question["device"]).eval()
    model.config.pad_token_id = model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    dtype = str(model.dtype).removeprefix("torch.")
    return {"loading": _listed(found), "scores": [_score(model, row) for row in ids], "dtype": dtype}


def _say(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


WAYS: dict[str, Callable[[dict[str, Any], Any, list[list[int]]], dict[str, Any]]] = {
    "transformers": by_transformers,
    "openrlhf": by_openrlhf,
    "peft": by_peft,
    "adapter": by_adapter_loading,
}

if __name__ == "__main__":
    sys.exit(main())
