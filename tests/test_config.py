"""Settings: every key known, every value of its kind, every value's origin said, and every mistake one sentence."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from plaudit import ConfigError, InternalError
from plaudit.config import (
    Settled,
    TrainConfig,
    compare_configs,
    config_table,
    is_override,
    read_config,
)
from plaudit.config.elsewhere import ALIASES, MODEL_ARGS, NO_USE, OWNED
from plaudit.config.kinds import core, nothing_word, part_keys, sections, settings
from plaudit.config.schema import DataPart
from plaudit.config.settled import list_values, read_value
from plaudit.config.yamltext import dump_entry, read_yaml

BASE = {"model": "smollm2", "data": ["a.jsonl"], "out": "run"}


def read(*overrides: str, **base: Any) -> Settled:
    told = {key: value for key, value in BASE.items() if not any(o.startswith(f"{key}=") for o in overrides)}
    return read_config(None, overrides, told | base)


def value(override: str) -> Any:
    return read_value(read(override).config, override.partition("=")[0])


def refusal(*overrides: str, **base: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        read(*overrides, **base)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., Path]:
    def write(text: str | bytes, name: str = "run.yaml") -> Path:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def in_file(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        read_config(path, (), BASE)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(str(path), path.name)


# The names that scripts outside of this repository use.
@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("lora.enabled=true", True),
        ("lora.enabled=false", False),
        ("train.epochs=2", 2.0),
        ("train.groups_per_step=32", 32),
        ("train.learning_rate=1e-5", 1e-5),
        ("train.learning_rate=2.0e-05", 2e-5),
        ("precision=bfloat16", "bfloat16"),
        ("loss.name=hinge", "hinge"),
    ],
)
def test_the_frozen_overrides_are_taken(override: str, expected: object) -> None:
    assert value(override) == expected
    assert read(override).origin(override.partition("=")[0]) == "command line"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("out=no", "no"),
        ("out=1e5", "1e5"),
        ("out=2024-01-01", "2024-01-01"),
        ("out=a=b", "a=b"),
        ("device=auto", None),
        ("train.learning_rate=auto", None),
        ("train.learning_rate=null", None),
        ("train.max_steps=none", None),
        ("train.max_grad_norm=none", None),
        ("lora.enabled=auto", None),
        ("lora.enabled=yes", True),
        ("checks.enabled=off", False),
        ("lora.bits=4", 4),
        ("lora.targets=q_proj,v_proj", ("q_proj", "v_proj")),
        ("lora.targets=[q_proj, v_proj]", ("q_proj", "v_proj")),
        ("lora.targets=all-linear", ("all-linear",)),
        ("train.betas=0.9,0.999", (0.9, 0.999)),
        ("train.betas=[0.9, 0.999]", (0.9, 0.999)),
        ("train.gradient_checkpointing=on", "on"),
        ("train.gradient_checkpointing=false", "off"),
        ("train.best_by=helpful/loss", "helpful/loss"),
        ("data=*.jsonl", (DataPart(path="*.jsonl"),)),
        ("data=hub:o/n:c@train", (DataPart(path="hub:o/n:c@train"),)),
        ("data=[a, {path: b, weight: 0.5}]", (DataPart(path="a"), DataPart(path="b", weight=0.5))),
        ("data={path: b, weight: 2}", (DataPart(path="b", weight=2.0),)),
        ("render.eos_token=</s>", "</s>"),
        ("hf.report_to=tensorboard", "tensorboard"),
        ("hf.torch_compile=true", True),
        ("hf.deepspeed={stage: 3}", {"stage": 3}),
        ("hf={run_name: x}", {"run_name": "x"}),
        ("loss.annotators.ann.3=0.5", 0.5),
        ("model_args.rope_theta=1e6", 1e6),
    ],
)
def test_a_text_becomes_the_kind_of_value_that_its_key_takes(override: str, expected: object) -> None:
    found = value(override)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("train.epoch=1", "unknown key train.epoch (command line); did you mean train.epochs?"),
        ("epochs=1", "unknown key epochs (command line); did you mean train.epochs?"),
        ("lora.epochs=1", "unknown key lora.epochs (command line); did you mean train.epochs?"),
        ("trian.epochs=1", "unknown key trian.epochs (command line); did you mean train.epochs?"),
        ("learning_rate=1", "unknown key learning_rate (command line); here it is called train.learning_rate"),
        ("ds.lora.rank=8", "unknown key ds.lora.rank (command line); here it is called lora.rank"),
        ("train.seed=8", "unknown key train.seed (command line); here it is called seed"),
        ("lora.lora_alpha=8", "unknown key lora.lora_alpha (command line); here it is called lora.alpha"),
        ("center_rewards_coefficient=0", "here it is called loss.center"),
        ("report_to=x", "goes under hf (hf.report_to)"),
        ("data=[{path: x, weigth: 2}]", "unknown key data[0].weigth (command line); did you mean weight?"),
        ("data=[a, {path: x, zzz: 2}]", "unknown key data[1].zzz (command line); its keys are path, weight"),
        ("train.epochs", "'train.epochs' came, section.key=value was needed; for example train.epochs=2"),
        ("=3", "'=3' came, section.key=value was needed"),
        ("lora=true", "lora: 'true' came (command line), but lora is a section; set what is in it, such as lora.enab"),
        ("hf=3", "hf: 3 came (command line), a table of names and values was needed; set its items, such as hf.NAME"),
        ("train.epochs=x", "train.epochs: 'x' came (command line), a number above 0, or auto was needed"),
        ("train.epochs=true", "train.epochs: true came (command line), a number above 0, or auto was needed"),
        ("train.weight_decay=", "train.weight_decay: nothing came (command line), a number of at least 0 was needed"),
        ("train.epochs=.inf", "train.epochs: inf came (command line), a number above 0, or auto was needed"),
        (
            "train.epochs='2'",
            "train.epochs: '2' came (command line), a number above 0, or auto was needed; write it without quo",
        ),
        ("train.groups_per_step=1.5", "1.5 came (command line), a whole number of at least 1, or auto was needed"),
        ("train.max_steps=0", "0 came (command line), a whole number of at least 1, or none was needed"),
        ("train.learning_rate=-1", "-1 came (command line), a number above 0, or auto was needed"),
        ("train.betas=0.9", "train.betas: [0.9] came (command line), two numbers were needed"),
        (
            "train.betas=0.9,2",
            "train.betas[1]: 2 came (command line), a number of at least 0 and of at most 1 was need",
        ),
        ("train.betas=0.9,[", "train.betas: '[' came, which cannot be read"),
        ("train.best_by=f1", "'f1' came (command line), accuracy, loss or margin"),
        (
            "loss.name=bradly_terry",
            "ordinal, scaled_bt, plackett_luce, token_wise, regression was needed; did you mean ",
        ),
        ("loss.label_smoothing=0.5", "0.5 came (command line), a number of at least 0 and below 0.5 was needed"),
        ("loss.annotators.bob=-1", "loss.annotators.bob: -1 came (command line), a number of at least 0 was needed"),
        ("lora.bits=5", "lora.bits: 5 came (command line), 4 or 8, or none was needed"),
        ("lora.targets=", "lora.targets: [] came (command line), a list of texts was needed"),
        ("data=[{weight: 2}]", "data[0].path is missing; every source of data needs one"),
        ("data=[{path: a, bad_rows: drop}]", "data[0].bad_rows: 'drop' came (command line), error or skip=PATH was"),
        ("data=[{path: a, weight: 0}]", "data[0].weight: 0 came (command line), a number above 0 was needed"),
        ("data=[3]", "data[0]: 3 came (command line), a path"),
        (
            "hf.learning_rate=1",
            "hf.learning_rate came, which train.learning_rate decides here; set train.learning_rate",
        ),
        ("hf.use_liger_kernel=true", "hf.use_liger_kernel came, which has no use here: it replaces"),
        ("hf.hub_token=abc", "put it into the environment as HF_TOKEN"),
        ("model_args.revision=x", "it is part of the name: model=owner/name@revision"),
        ("streaming=true", "streaming=true came without train.max_steps"),
        ("seed=-1", "seed: -1 came (command line), a whole number of at least 0 and below 4294967296 was needed"),
    ],
)
def test_a_setting_that_cannot_be_used_is_one_sentence(override: str, sentence: str) -> None:
    assert sentence in refusal(override)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (("train.epochs=1", "train.epochs=2"), "train.epochs came twice on the command line"),
        (("hf={run_name: a}", "hf.run_name=b"), "hf.run_name came twice on the command line"),
        (("lora.enabled=false", "lora.bits=4"), "lora.bits=4 came with lora.enabled=false"),
        (("lora.enabled=true", "train.backbone=frozen"), "choose one of the two"),
        (("loss.attributes=a,b",), "loss.attributes came with loss.name bradley_terry"),
        (("loss.name=regression", "loss.attributes=a,a"), "names one twice (a, a)"),
        (("loss.name=regression", "loss.attributes=a,b", "loss.attribute_weights=1"), "has 1 numbers for 2"),
        (("loss.name=regression", "loss.attribute_weights=1"), "has 1 numbers for 0"),
        (("loss.name=regression", "loss.attributes=a", "loss.attribute_weights=0"), "are all zero"),
        (("loss.name=regression", "loss.label_smoothing=0.1"), "no two sides to smooth over"),
        (("loss.name=plackett_luce", "loss.label_smoothing=0.1"), "no two sides to smooth over"),
        (("train.patience=2", "split.eval_share=0"), "nothing tells when to stop"),
        (("train.epochs=x", "seed=y"), "seed: 'y' came (command line), a whole number"),
    ],
)
def test_settings_that_do_not_go_together_are_one_sentence(overrides: tuple[str, ...], sentence: str) -> None:
    assert sentence in refusal(*overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        ("streaming=true", "train.max_steps=10"),
        ("lora.bits=4",),
        ("lora.enabled=true", "lora.bits=8"),
        ("train.backbone=frozen", "lora.enabled=false"),
        ("loss.name=regression", "loss.attributes=a,b", "loss.attribute_weights=1,0"),
        ("loss.label_smoothing=0.49",),
        ("train.patience=2",),
        ("train.patience=2", "split.eval_share=0", "eval=b.jsonl"),
    ],
)
def test_settings_that_go_together_are_taken(overrides: tuple[str, ...]) -> None:
    assert {o.partition("=")[0] for o in overrides} <= set(read(*overrides).origins)


def test_all_that_is_wrong_is_said_at_once_up_to_five() -> None:
    two = refusal("train.epochs=x", "seed=y")
    assert "train.epochs: 'x'" in two
    assert "seed: 'y'" in two
    many = refusal(
        *(f"train.{key}=x" for key in ("epochs", "warmup", "keep", "dropout", "budget", "patience", "log_every"))
    )
    assert many.count(" came ") == 5
    assert many.endswith("; and 2 more")


def test_what_is_missing_is_said_with_the_way_to_say_it() -> None:
    with pytest.raises(
        ConfigError, match=r"model is missing; name a folder.*data is missing.*out is missing.*--out RUN"
    ):
        read_config()
    assert refusal(data=()).startswith("data is missing")
    with pytest.raises(ConfigError, match="model: nothing came"):
        read_config(None, ["model="], {"data": "a", "out": "b"})


def test_nearer_to_the_person_wins_and_every_origin_is_said(file: Callable[..., Path]) -> None:
    path = file("model: other\ntrain:\n  epochs: 3\n  keep: 4\nhf:\n  run_name: x\n")
    settled = read_config(path, ["train.epochs=2"], BASE | {"eval": None, "precision": "float32"})
    assert settled.config.train.epochs == 2
    origins = {one.key: one.origin for one in settled.explain() if one.origin != "default"}
    assert origins == {
        "model": "command line",
        "data": "command line",
        "out": "command line",
        "precision": "command line",
        "train.epochs": "command line",
        "train.keep": "run.yaml",
        "hf.run_name": "run.yaml",
    }
    assert settled.origin("seed") == "default"
    shown = {one.key: one.value for one in settled.explain()}
    assert (shown["train.learning_rate"], shown["train.max_steps"], shown["loss.name"]) == (
        "auto",
        "none",
        "bradley_terry",
    )
    assert shown["data"] == ["a.jsonl"]
    assert list(shown) == [*[k for k in settings() if k not in ("hf", "model_args", "loss.annotators")], "hf.run_name"]


def test_a_file_may_write_yes_and_no_paths_and_dotted_keys(file: Callable[..., Path]) -> None:
    text = """
        # traps of YAML 1.1
        model: no
        data: {path: 12:30.jsonl, name: on}
        out: 2024-01-01
        lora.enabled: yes
        train:
        loss: {annotators: {ann.3: 0.5, no: 2}}
        train.learning_rate: 1e-5
        render: {max_length: 0x400, chat_template: "{{ a }}\\n"}
        hf: {a: 1e-5, b: no, c: 010, d: ~, e: "1", f: 1:30, g: .5, h: 1_000}
    """
    settled = read_config(file(text))
    config = settled.config
    assert (config.model, config.out, config.lora.enabled) == ("no", "2024-01-01", True)
    assert config.data == (DataPart(path="12:30.jsonl", name="on"),)
    assert config.train.learning_rate == 1e-5
    assert config.render.max_length == 1024
    assert config.loss.annotators == {"ann.3": 0.5, "no": 2.0}
    expected = {"a": 1e-5, "b": "no", "c": 10, "d": None, "e": "1", "f": "1:30", "g": 0.5, "h": "1_000"}
    assert config.hf == expected


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("train:\n  epohcs: 1\n", "unknown key train.epohcs (run.yaml, line 2); did you mean train.epochs?"),
        (
            "seed: 1\ntrain.epochs: '2'\n",
            "train.epochs: '2' came (run.yaml, line 2), a number above 0, or auto was needed",
        ),
        (
            "seed: 1\nseed: 2\n",
            "run.yaml, line 2: the key 'seed' stands on line 1 and again on line 2; keep one of them",
        ),
        ("train: {keep: 1}\ntrain.keep: 2\n", "run.yaml: train.keep came twice; keep one of the two"),
        ("train: 5\n", "train: 5 came (run.yaml, line 1), but train is a section"),
        ("eval: 5\n", "eval: 5 came (run.yaml, line 1), a path, or a list of paths"),
        ("head_prefix: 5\n", "head_prefix: 5 came (run.yaml, line 1), text, or auto was needed; put it in quotes"),
        ("- a\n- b\n", "run.yaml: a list came, settings (key: value) were needed"),
        ("text", "run.yaml: a str came, settings (key: value) were needed"),
        ("a: [\n", "run.yaml, line 2: expected the node content, but found '<stream end>'"),
        ("1: 2\n", "run.yaml, line 1: the key '1' is no plain text; put it in quotes"),
        ("? [a]\n: 2\n", "is no plain text"),
        ("a: !!python/object:os.system x\n", "could not determine a constructor"),
        ("\ttrain: 2\n", "run.yaml, line 1: found character '\\t' that cannot start any token"),
        (b"model: \xff\n", "run.yaml: it is no UTF-8 text"),
        ("a: " + "[" * 5000, "run.yaml"),
        ("a: 1\n---\nb: 2\n", "but found another document"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_sentence_with_its_line(
    text: str | bytes, sentence: str, file: Callable[..., Path]
) -> None:
    assert sentence in in_file(file(text))


def test_toml_and_json_say_the_same_as_yaml(file: Callable[..., Path]) -> None:
    told = {"train": {"learning_rate": 1e-5}, "hf": {"run_name": "x"}, "data": ["b", {"path": "c", "weight": 2}]}
    base = {"model": "m", "out": "o"}
    expected = read_config(file(yaml.safe_dump(told)), (), base).config
    toml = 'data = ["b", {path = "c", weight = 2}]\ntrain.learning_rate = 1e-5\n[hf]\nrun_name = "x"\n'
    assert read_config(file(toml, "run.toml"), (), base).config == expected
    assert read_config(file(json.dumps(told), "run.json"), (), base).config == expected
    assert read_config(file(b"\xef\xbb\xbfseed: 3\n"), (), BASE).config.seed == 3
    assert read_config(file(""), (), BASE).config == read().config
    assert "could not be read as TOML" in in_file(file("train = \n", "run.toml"))
    assert "could not be read as JSON (the key 'seed' stands there twice)" in in_file(
        file('{"seed":1,"seed":2}', "a.json")
    )
    assert "No such file" in in_file(Path("nowhere.yaml"))
    assert "Is a directory" in in_file(file("", "x.yaml").parent)


def test_anchors_and_merges_of_yaml_work(file: Callable[..., Path]) -> None:
    path = file("loss: &a {center: 0.1}\ntrain:\n  <<: {keep: 5, epochs: 9}\n  epochs: 2\n")
    config = read_config(path, (), BASE).config
    assert (config.loss.center, config.train.keep, config.train.epochs) == (0.1, 5, 2)


def test_a_derived_value_comes_with_its_reason_and_replaces_nothing_that_was_said() -> None:
    settled = read("train.learning_rate=1e-4", "precision=auto")
    assert settled.is_open("precision")
    assert settled.is_open("train.budget")
    assert settled.is_open("lora.rank")
    assert not settled.is_open("train.learning_rate")
    derived = settled.settle({"precision": "bfloat16", "train.budget": 4096}, "AVX512-BF16")
    assert (derived.config.precision, derived.config.train.budget) == ("bfloat16", 4096)
    assert derived.origin("precision") == "derived: AVX512-BF16"
    assert derived.config.train.learning_rate == 1e-4
    assert settled.config.precision == "auto"
    assert derived.settle({"train.budget": 64}, "memory ran out").config.train.budget == 64
    with pytest.raises(
        InternalError, match=r"train.learning_rate came from command line, and was to be derived \(size"
    ):
        derived.settle({"train.learning_rate": 2e-5}, "size")
    with pytest.raises(InternalError, match="do not fit"):
        derived.settle({"train.budget": -1}, "a mistake of ours")
    assert derived.settle({"hf.ddp_backend": "gloo"}, "no GPU").config.hf == {"ddp_backend": "gloo"}


def test_records_are_frozen() -> None:
    settled = read()
    with pytest.raises(ValidationError):
        settled.config.seed = 3
    with pytest.raises(dataclasses.FrozenInstanceError):
        settled.config = read("seed=4").config  # type: ignore[misc]


def test_the_saved_file_reads_back_equal_and_tells_origins(tmp_path: Path, file: Callable[..., Path]) -> None:
    path = file("data: [a, {path: b, weight: 2}]\nloss: {annotators: {no: 1, a.b: 2}}\n")
    settled = read_config(
        path, ["render.chat_template={{ a }}\n# b: c\n", "hf.x={y: [1, {z: on}]}"], {"model": "1e5", "out": "no"}
    )
    settled = settled.settle({"train.learning_rate": 2e-5}, "135M\nparameters")
    saved = tmp_path / "config.yaml"
    settled.write_yaml(saved)
    text = saved.read_text()
    assert "  learning_rate: 2.0e-05  # derived: 135M parameters\n" in text
    assert "\nout: 'no'  # command line\n" in text
    assert "\n# run.yaml\ndata:\n- a\n" in text
    assert "  epochs: auto\n" in text
    assert read_config(saved).config == settled.config
    plain = yaml.safe_load(text)
    assert (plain["model"], plain["out"]) == ("1e5", "no")
    assert plain["hf"] == {"x": {"y": [1, {"z": "on"}]}}
    assert [p.name for p in tmp_path.iterdir() if p.name.endswith(".partial")] == []


texts = st.text(max_size=8)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts
words = st.sampled_from(
    ["no", "on", "1e5", "1e-5", "0o7", "012", "1_0", "12:30", "~", "null", "=", "<<", "2024-01-01", ".5"]
)


def containers(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(values, max_size=3) | st.dictionaries(texts | words, values, max_size=3)


names = st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=8).filter(
    lambda name: name not in OWNED and name not in NO_USE
)


@given(st.dictionaries(names, st.recursive(scalars | words, containers, max_leaves=5), max_size=4))
def test_any_table_survives_the_file(table: dict[str, Any]) -> None:
    settled = read(hf=table)
    assert read_yaml(settled.to_yaml())["hf"] == table


@given(scalars | words)
def test_what_is_dumped_reads_the_same_in_both_versions_of_yaml(value: Any) -> None:
    text = dump_entry("key", value)
    assert read_yaml(text) == {"key": value}
    assert yaml.safe_load(text) == {"key": value}


@given(st.text(max_size=40) | st.text("{}[]:,-?&*!|>'\"%@`#a1.<=\n ", max_size=40))
def test_no_text_is_too_broken_for_a_sentence(text: str) -> None:
    try:
        read_yaml(text)
    except ValueError as error:
        assert str(error)


@given(st.sampled_from(list(settings())), st.text("0123456789.e-+abnoyes[]{},: ", max_size=8))
def test_any_override_is_a_setting_or_a_sentence(key: str, text: str) -> None:
    try:
        settled = read(f"{key}={text}")
    except ConfigError as error:
        assert key in str(error)
    else:
        assert TrainConfig.model_validate(settled.config.model_dump()) == settled.config


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("train.epochs=2", True),
        ("seed=3", True),
        ("data=a=b", True),
        ("a.jsonl", False),
        ("./a=b", False),
        ("-x=3", False),
    ],
)
def test_a_word_of_the_command_line_is_an_override_or_a_path(word: str, expected: bool) -> None:
    assert is_override(word) is expected


def test_a_file_of_that_name_is_no_override(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("shard=3").touch()
    assert not is_override("shard=3")


def test_what_a_run_was_told_stands_under_what_is_said_now() -> None:
    saved = read("train.epochs=2").settle({"precision": "bfloat16"}, "fast").config
    again = read_config(None, ["train.keep=5", "precision=auto"], BASE, under=saved)
    assert compare_configs(saved, again.config)[0].key == "train.keep"
    assert len(compare_configs(saved, again.config)) == 1
    assert (again.config.precision, again.origin("precision")) == ("bfloat16", "resumed run")
    assert not again.is_open("precision")
    assert again.is_open("train.budget")
    assert read_config(None, (), {"out": "run"}, under=saved).config == saved


def test_differences_are_named_with_both_values() -> None:
    was = read("train.epochs=2", "hf.run_name=a", "data=a").config
    now = read("hf.project=b", "train.max_steps=7", "data=b").config
    assert [str(d) for d in compare_configs(was, now)] == [
        "data was ['a'], now ['b']",
        "train.epochs was 2.0, now 'auto'",
        "train.max_steps was 'none', now 7",
        "hf.run_name was 'a', now 'not there'",
        "hf.project was 'not there', now 'b'",
    ]
    assert compare_configs(was, was) == []


def test_every_setting_says_what_it_means_and_what_nothing_means() -> None:
    for key, info in settings().items():
        assert info.description, key
        assert "\n" not in info.description
        assert (nothing_word(info) is not None) is core(info.annotation)[1], key
        default = info.get_default(call_default_factory=True)
        assert default is not None or nothing_word(info) is not None or info.is_required(), key
    assert len(settings()) == len(list(list_values(read("hf.a=1", "model_args.b=1", "loss.annotators.c=1").config)))


def test_the_table_lists_every_key_once_with_type_default_and_meaning() -> None:
    rows = [line.strip("|\n ").split(" | ") for line in config_table().splitlines()]
    assert all(len(row) == 4 and all(row) for row in rows)
    keys = [row[0].strip("`") for row in rows[2:]]
    assert sorted(keys) == sorted([*settings(), *part_keys()])
    cells = {row[0].strip("`"): row for row in rows}
    assert cells["train.max_grad_norm"][1:3] == ["number above 0, or none", "`1.0`"]
    assert cells["train.max_grad_norm"][3] == "Gradients are scaled down to this norm; none: never."
    assert cells["train.budget"][1:3] == ["whole number of at least 1, or auto", "`auto`"]
    assert cells["model"][2] == "required"
    assert cells["loss.ties"][1:3] == ["half or drop", "`half`"]


def test_choices_agree_with_the_rooms_below() -> None:
    from plaudit.render import Overlength, RenderSettings

    info = settings()["render.overlength"]
    assert set(core(info.annotation)[0].__args__) == {str(o) for o in Overlength}
    assert {f.name for f in dataclasses.fields(RenderSettings)} <= set(sections()["render"].model_fields)


def test_names_of_transformers_are_its_names_and_lead_to_keys_that_are_there() -> None:
    from transformers import TrainingArguments
    from transformers.trainer_utils import SchedulerType

    known = {f.name for f in dataclasses.fields(TrainingArguments)}
    renamed = {"warmup_ratio", "gradient_checkpointing", "activation_checkpointing", "group_by_length"}
    assert set(OWNED) - known <= renamed, "names that TrainingArguments does not have"
    assert set(NO_USE) - known == set()
    assert not set(OWNED) & set(NO_USE)
    assert {s.value for s in SchedulerType} <= set(core(settings()["train.schedule"].annotation)[0].__args__)
    there = {*settings(), *part_keys()}
    assert {*OWNED.values(), *ALIASES.values()} <= there
    assert not set(ALIASES) & {*settings(), *sections()}
    assert all(" " in reason for reason in {**NO_USE, **MODEL_ARGS}.values())


def test_importing_it_is_light_and_quick() -> None:
    code = (
        "import time; start = time.process_time(); import plaudit.config; "
        "print(time.process_time() - start); import plaudit.runs, sys; "
        "print([m for m in ('torch', 'transformers', 'datasets', 'pyarrow', 'numpy') if m in sys.modules])"
    )
    source = str(Path(__file__).resolve().parents[1] / "src")
    seconds = []
    for _ in range(5):
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONPATH": source},
        )
        took, heavy = done.stdout.splitlines()
        assert heavy == "[]"
        seconds.append(float(took))
    # Seconds of this process, not of the clock: other work on the machine is not the import's.
    assert min(seconds) < 0.4, f"best of five took {min(seconds):.3f} s"
