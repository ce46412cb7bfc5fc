"""Who comes from another tool finds every option of it on the page, and every setting that the page names is there."""

from __future__ import annotations

import dataclasses
import re
from functools import cache
from pathlib import Path

import pytest

from plaudit import ConfigError
from plaudit.config import read_config
from plaudit.config.elsewhere import ALIASES, NO_USE, OWNED
from plaudit.config.kinds import part_keys, sections, settings

PAGE = Path(__file__).resolve().parents[2] / "docs" / "migrating.md"
BASE = {"model": "m", "data": "d", "out": "o"}

# The options of each tool, as its own source lists them.
TRL = """
learning_rate model_init_kwargs trust_remote_code chat_template_path disable_dropout dataset_num_proc eos_token
max_length pad_to_multiple_of center_rewards_coefficient activation_offloading pad_token logging_steps
gradient_checkpointing bf16 lr_scheduler_kwargs use_liger_kernel torch_empty_cache_steps
model_name_or_path model_revision dtype attn_implementation use_peft lora_r lora_alpha lora_dropout lora_target_modules
lora_target_parameters lora_modules_to_save lora_task_type use_rslora use_dora load_in_8bit load_in_4bit
bnb_4bit_quant_type use_bnb_nested_quant bnb_4bit_quant_storage
dataset_name dataset_config dataset_train_split dataset_test_split dataset_streaming ignore_bias_buffers
datasets datasets[].path datasets[].name datasets[].data_dir datasets[].data_files datasets[].split datasets[].columns
datasets[].fraction streaming test_split_size
"""
OPENRLHF = """
ckpt.output_dir ckpt.save_steps ckpt.save_hf ckpt.disable_ds logger.logging_steps eval.steps ckpt.path ckpt.max_num
ckpt.max_mem ckpt.load_enable ds.use_universal_ckpt model.gradient_checkpointing_enable ds.deepcompile train.seed
train.full_determinism_enable local_rank ds.zero_stage ds.param_dtype ds.zpg ds.adam_offload ds.attn_implementation
ds.experts_implementation ds.grad_accum_dtype ds.overlap_comm model.gradient_checkpointing_reentrant
data.disable_fast_tokenizer data.dataloader_num_workers ds.tensor_parallel_size model.model_name_or_path
ds.value_head_prefix ds.ring_attn_size ds.ring_attn_head_stride ds.load_in_4bit ds.lora.rank ds.lora.alpha
ds.lora.dropout ds.lora.target_modules train.max_epochs model.aux_loss_coef model.compute_fp32_loss_enable
model.margin_loss_enable train.micro_batch_size train.batch_size model.loss_type optim muon.lr muon.momentum
muon.ns_steps muon.nesterov muon.no_nesterov adam.lr adam.betas adam.eps adam.weight_decay lr_scheduler lr_warmup_ratio
min_lr_ratio max_norm ds.packing_samples data.dataset data.dataset_probs eval.dataset data.dataset_split eval.split
data.max_samples data.prompt_key data.chosen_key data.rejected_key data.input_template data.apply_chat_template
data.tokenizer_chat_template data.max_len logger.wandb.key logger.wandb.org logger.wandb.group logger.wandb.project
logger.wandb.run_name logger.tensorboard_dir use_ms
"""
DEEPSPEED_CHAT = """
data_path data_split data_output_path model_name_or_path num_padding_at_beginning per_device_train_batch_size
per_device_eval_batch_size max_seq_len learning_rate weight_decay num_train_epochs gradient_accumulation_steps
lr_scheduler_type num_warmup_steps output_dir seed local_rank gradient_checkpointing dropout offload dtype zero_stage
lora_dim lora_module_name only_optimize_lora lora_learning_rate eval_interval eval_iters compute_fp32_loss
enable_tensorboard tensorboard_path add_eot_token deepspeed_config
"""
TOOLS = {"TRL 1.16": TRL, "OpenRLHF: train_rm": OPENRLHF, "DeepSpeed-Chat: step 2": DEEPSPEED_CHAT}
NO_COUNTERPART = ("not needed: ", "none: ")


def chapter(title: str) -> str:
    return PAGE.read_text(encoding="utf-8").split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    """The cells of every table, heads left out."""
    found = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    return [row for row in found if row[0] != "there" and not row[0].startswith("---")]


def quoted(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


@cache
def training_arguments() -> set[str]:
    from transformers import TrainingArguments

    return {f.name for f in dataclasses.fields(TrainingArguments)}


@pytest.mark.parametrize("tool", TOOLS)
def test_every_option_has_one_row_with_its_counterpart_or_the_reason_for_none(tool: str) -> None:
    table = rows(chapter(tool))
    assert [row[0].strip("`") for row in table] == TOOLS[tool].split()
    for there, _, here, *_ in table:
        assert here.startswith(NO_COUNTERPART) or quoted(here), there


@pytest.mark.parametrize("tool", TOOLS)
def test_every_setting_that_is_named_is_there_and_takes_the_value(tool: str) -> None:
    named = [word for row in rows(chapter(tool)) for cell in row[2:] for word in quoted(cell)]
    named = [word for word in named if not word.startswith(("plaudit ", "hf://"))]
    assert len(named) > 25
    there = {*settings(), *part_keys()}
    for word in named:
        key = word.partition("=")[0]
        if key.startswith("hf."):
            assert key.removeprefix("hf.") in training_arguments(), word
        else:
            assert key in there or key.startswith("model_args."), word
        if "=" in word:
            assert read_config(None, [word], {k: v for k, v in BASE.items() if k != key}).origin(key) == "command line"


def test_every_section_and_key_in_the_text_is_there() -> None:
    there = {*settings(), *part_keys(), *sections()}
    text = re.sub(r"```.*?```", "", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    prose = "\n".join(line for line in text.splitlines() if not line.startswith("|"))
    heads = tuple(f"{name}." for name in sections())
    named = [word.partition("=")[0] for word in quoted(prose) if word.startswith((*heads, "hf.", "data[]."))]
    assert len(named) > 15
    for key in named:
        if key.startswith("hf."):
            assert key in ("hf.x", "hf.NAME") or key.removeprefix("hf.") in training_arguments(), key
        else:
            assert key in there or key == "data[].x", key


def test_what_trainingarguments_calls_it_is_what_the_program_says() -> None:
    tables = rows(chapter("TrainingArguments"))
    told = {there.strip("`"): here for there, here in tables}
    assert {there: here.strip("`") for there, here in told.items() if there in OWNED} == OWNED
    assert set(told) == {*OWNED, *NO_USE}
    assert all(" " in told[name] for name in NO_USE)


@pytest.mark.parametrize("tool", TOOLS)
def test_who_writes_an_old_name_is_told_what_the_page_says(tool: str) -> None:
    told = 0
    for there, _, here, *_ in rows(chapter(tool)):
        name, keys = there.strip("`"), [word.partition("=")[0] for word in quoted(here)]
        counterpart = ALIASES.get(name) or OWNED.get(name)
        if counterpart is None or name in settings() or here.startswith(NO_COUNTERPART):
            continue
        same = counterpart in keys or any(f"{counterpart}[]" == key.partition(".")[0] for key in keys)
        assert same, f"{name}: {counterpart} is suggested, and the page says {here}"
        if name != "gradient_checkpointing":
            with pytest.raises(ConfigError, match=re.escape(f"here it is called {counterpart}")):
                read_config(None, [f"{name}=1"], BASE)
        told += 1
    assert told >= 15


def test_the_examples_are_settings_that_are_taken(tmp_path: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    assert len(blocks) == 3
    file = tmp_path / "run.yaml"
    for block in blocks:
        file.write_text(block)
        settled = read_config(file)
        assert settled.config.train.groups_per_step >= 32
        assert settled.origin("train.learning_rate") == "run.yaml"
    with pytest.raises(ConfigError) as caught:
        read_config(None, ["num_train_epochs=2"], BASE)
    assert f"plaudit: error: {caught.value}\n" in text
