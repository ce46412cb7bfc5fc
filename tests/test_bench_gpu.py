"""bench/gpu/check.py: its rules and its time budget here; slow: the whole of it on a CPU with tiny models."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
import torch

SCRIPT = Path(__file__).resolve().parents[1] / "bench" / "gpu" / "check.py"


@pytest.fixture(scope="module")
def check() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_check", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up
    kept = list(sys.path)
    spec.loader.exec_module(module)
    sys.path[:] = kept
    return module


def test_a_section_without_time_is_left_out_and_one_that_fails_stops_nothing(
    check: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = check.Report(tmp_path, torch.device("cpu"), time.time() + 60)
    assert report.section("late", lambda: pytest.fail("it ran"), seconds=61) is None
    report.section("bad", lambda: 1 / 0)
    assert report.section("good", lambda: 7, seconds=30) == 7
    printed, written = capsys.readouterr().out, (tmp_path / "report.md").read_text()
    for text in (printed, written):
        assert "late: skipped: time budget" in text
        assert "bad: FAILED" in text and "ZeroDivisionError" in text
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["failures"] == report.failures == ["bad"]
    assert found["skipped"] == ["late"]


def test_a_section_that_hangs_ends_the_process(tmp_path: Path) -> None:
    code = (
        "import sys, time; sys.path.insert(0, sys.argv.pop(1)); import check\n"
        "check.describe = lambda report: time.sleep(60)\n"
        "check.threading.Timer = lambda s, *a, t=check.threading.Timer: t(s - 15, *a)\n"
        "sys.exit(check.main(sys.argv[1:]))"
    )
    told = ["--device", "cpu", "--tiny", "--no-tests", "--seconds", "1", "--out", str(tmp_path)]
    done = subprocess.run([sys.executable, "-c", code, str(SCRIPT.parent), *told], capture_output=True, timeout=120)
    assert done.returncode == 1
    assert json.loads((tmp_path / "results.json").read_text())["failures"] == ["stopped: time budget"]


def test_time_in_which_anything_ran_counts_overlaps_once(check: ModuleType) -> None:
    assert check.busy_time([]) == 0
    assert check.busy_time([(5, 7), (0, 2), (1, 3), (1.5, 2.5)]) == 5


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        ("void pytorch_flash::flash_fwd_splitkv_kernel<...>", "attention"),
        ("triton_tem_fused_flex_attention_0", "attention"),
        ("nvjet_tst_128x256_64x4_1x2_h_bz_coopA_TNT", "matrix products"),
        ("sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n", "matrix products"),
        ("void at::native::indexSelectLargeIndex<...>", "gather and scatter"),
        ("Memcpy HtoD (Pinned -> Device)", "copies"),
        ("void at::native::vectorized_elementwise_kernel<4, ...MulFunctor>", "elementwise and the rest"),
        ("void at::native::multi_tensor_apply_kernel<FusedAdamMathFunctor>", "optimizer"),
    ],
)
def test_kernels_are_told_apart_by_name(check: ModuleType, kernel: str, kind: str) -> None:
    assert check.kind_of(kernel) == kind


def test_advice_follows_from_the_figures(check: ModuleType) -> None:
    calm = {"matrix products": 0.8, "attention": 0.1, "elementwise and the rest": 0.1}
    [said] = check.advise(calm, 0.02, 0.9)
    assert said.startswith("Nothing stands out")
    [said] = check.advise(calm, 0.35, None)
    assert said.startswith("The device waits for the host 35% of the step")
    [said] = check.advise(calm, 0.0, 0.4)
    assert "40% of the measured peak" in said
    all_of_it = {
        "copies": 0.06, "gather and scatter": 0.06, "attention": 0.31, "optimizer": 0.16, "softmax and norms": 0.26,
    }  # fmt: skip
    assert len(check.advise(all_of_it, 0.11, 0.59)) == 7


def test_tests_are_counted_from_what_was_printed_so_far(check: ModuleType) -> None:
    lines = [
        "tests/gpu/a.py::one PASSED [ 1%]",
        "tests/gpu/a.py::two[x] FAILED",
        "tests/gpu/a.py::three SKIPPED (no)",
        "",
    ]
    assert check.count_tests([*lines, "tests/gpu/a.py::four PASSED"]) == {"passed": 2, "failed": 1, "skipped": 1}


def test_flops_of_a_pack_are_those_of_its_parts(check: ModuleType) -> None:
    from plaudit.pack import PackSettings, build_packs

    shape = check.shrink(check.SHAPES[1])
    net = check.make_net(shape, torch.device("cpu"))
    rows = check.make_rows(3, 500, 500, scale=0.05)
    [pack] = build_packs(rows, PackSettings(budget=1 << 20, share=False))
    sizes = check.SMALL
    hidden, heads, kv, head = (
        sizes[n] for n in ("hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim")
    )
    layer = hidden * head * (2 * heads + 2 * kv) + 3 * hidden * sizes["intermediate_size"]
    lengths = [len(row) for group in rows for row in group]
    pairs = sum(n * (n + 1) // 2 for n in lengths)
    wanted = sizes["num_hidden_layers"] * (2 * layer * sum(lengths) + 4 * heads * head * pairs)
    assert check.count_flops(net, [pack]) == wanted


def test_padded_rows_are_scored_as_transformers_does(check: ModuleType) -> None:
    net = check.make_net(check.shrink(check.SHAPES[0]), torch.device("cpu"))
    rows = [row for group in check.make_rows(2, 200, 500, scale=0.05) for row in group]
    batches = check.batch_rows(rows, 100)
    assert sorted(len(row) for batch in batches for row in batch) == sorted(map(len, rows)) and len(batches) > 1
    assert all(len(batch) * max(map(len, batch)) <= 100 for batch in batches if len(batch) > 1)
    net.float()
    with torch.inference_mode(), net.plain_attention() as hf:
        together = check.score_padded_rows(net, rows)
        alone = torch.stack([hf(input_ids=torch.from_numpy(row).long()[None]).logits[0, 0] for row in rows])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_all_of_it_runs_on_a_cpu(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--device", "cpu", "--tiny", "--out", str(tmp_path), "--seconds", "400"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["failures"] == [] and "skipped" not in found
    assert found["tests"]["passed"] >= 5 and "failed" not in found["tests"]
    assert {(r["model"], r["k"]) for r in found["scoring"]} == {(r["model"], r["k"]) for r in found["training"]}
    assert len(found["scoring"]) == 12
    assert all({"ours", "unshared", "padded"} <= row.keys() for row in found["scoring"] + found["training"])
    assert found["invariance"]["aligned"]["differing"] == 0
    assert found["profile scoring Qwen3-0.6B"]["advice"] and found["profile training Qwen3-0.6B"]["advice"]


def test_without_a_gpu_it_says_so(tmp_path: Path, check: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert check.main(["--out", str(tmp_path / "out")]) == 2
    assert not (tmp_path / "out").exists()
