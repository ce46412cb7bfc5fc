"""What settings are called elsewhere, and what they are called here.

Part of `config`; data only, facts of transformers 5.23, TRL 1.16, OpenRLHF 2026-08 and DeepSpeed-Chat. It answers two
questions: someone types a name from another tool, and is told ours; someone passes a TrainingArguments name through
`hf` that a setting of ours already decides, and is told so. Invariant: a thing is set in one place, never in two.
`docs/migrating.md` is the same knowledge for people; its tests hold the two together.
"""

from __future__ import annotations

OWNED: dict[str, str] = {
    "output_dir": "out",
    "per_device_train_batch_size": "train.groups_per_step",
    "gradient_accumulation_steps": "train.groups_per_step",
    "per_device_eval_batch_size": "train.budget",
    "eval_accumulation_steps": "train.budget",
    "auto_find_batch_size": "train.budget",
    "num_train_epochs": "train.epochs",
    "max_steps": "train.max_steps",
    "learning_rate": "train.learning_rate",
    "lr_scheduler_type": "train.schedule",
    "warmup_steps": "train.warmup",
    "warmup_ratio": "train.warmup",
    "optim": "train.optimizer",
    "weight_decay": "train.weight_decay",
    "adam_beta1": "train.betas",
    "adam_beta2": "train.betas",
    "max_grad_norm": "train.max_grad_norm",
    "label_smoothing_factor": "loss.label_smoothing",
    "bf16": "precision",
    "fp16": "precision",
    "bf16_full_eval": "precision",
    "fp16_full_eval": "precision",
    "activation_checkpointing": "train.gradient_checkpointing",
    "gradient_checkpointing": "train.gradient_checkpointing",
    "logging_strategy": "train.log_every",
    "logging_steps": "train.log_every",
    "eval_strategy": "train.eval_every",
    "eval_steps": "train.eval_every",
    "save_strategy": "train.save_every",
    "save_steps": "train.save_every",
    "save_total_limit": "train.keep",
    "metric_for_best_model": "train.best_by",
    "greater_is_better": "train.best_by",
    "seed": "seed",
    "data_seed": "seed",
    "use_cpu": "device",
}
"""TrainingArguments names that a setting of ours decides; `hf` refuses them, naming it."""

NO_USE: dict[str, str] = {
    "resume_from_checkpoint": "a run goes on with --resume, said to the command",
    "load_best_model_at_end": "the best checkpoint is always kept, and is what model/ holds",
    "ignore_data_skip": "a resumed run always goes on at the row where it was",
    "save_only_model": "a checkpoint without its optimizer could not be resumed",
    "restore_callback_states_from_checkpoint": "a resumed run restores everything",
    "do_train": "plaudit train trains",
    "do_eval": "it evaluates wherever there is evaluation data",
    "do_predict": "plaudit score and plaudit eval predict",
    "remove_unused_columns": "rows are read as groups, and no column of theirs reaches the model",
    "label_names": "labels travel with their groups",
    "include_for_metrics": "metrics are exact means over comparisons, computed where the scores are",
    "batch_eval_metrics": "metrics are exact means over comparisons, computed where the scores are",
    "prediction_loss_only": "metrics cost one comparison each",
    "eval_do_concat_batches": "there are no padded batches to join",
    "eval_use_gather_object": "there are no padded batches to join",
    "train_sampling_strategy": "packs have no padding that sorting by length could save",
    "length_column_name": "packs have no padding that sorting by length could save",
    "dataloader_drop_last": "the last step takes the groups that are left, weighted as what they are",
    "average_tokens_across_devices": "the loss is a mean over groups or comparisons of all ranks, never over tokens",
    "use_liger_kernel": "it replaces the classification forward, which gives other scores",
    "liger_kernel_config": "it replaces the classification forward, which gives other scores",
    "use_cache": "training keeps no key-value cache",
    "local_rank": "torchrun and accelerate say it in the environment",
    "hub_token": "config.yaml would keep it; put it into the environment as HF_TOKEN",
}
"""TrainingArguments names that have no use here, each with the reason; `hf` refuses them, saying it."""

FILE_ARGS: dict[str, str] = dict.fromkeys(
    (
        "adapter_kwargs", "gguf_file", "key_mapping", "state_dict", "subfolder", "transformers_weights",
        "use_safetensors", "variant", "weights_only",
    ),
    "the weights are read from the folder's own safetensors, which were checked",
)  # fmt: skip
"""Arguments of from_pretrained that would load other files than those that were checked."""

MODEL_ARGS: dict[str, str] = {
    **FILE_ARGS,
    "dtype": "precision decides it",
    "torch_dtype": "precision decides it",
    "quantization_config": "lora.bits decides it",
    "trust_remote_code": "the setting trust_remote_code decides it",
    "revision": "it is part of the name: model=owner/name@revision",
    "num_labels": "a reward model has one score, or one for each of loss.attributes",
    "problem_type": "a reward model is saved as a regression, so that servers return its scores as they are",
    "attn_implementation": "packs have an attention of their own, and plaudit doctor says which",
    "device_map": "device, torchrun and accelerate decide it",
}
"""Arguments of from_pretrained that are decided elsewhere; `model_args` refuses them, saying it."""

ALIASES: dict[str, str] = {
    # TRL, and what transformers calls it elsewhere
    "model_name_or_path": "model",
    "model_revision": "model",
    "model_init_kwargs": "model_args",
    "dtype": "precision",
    "torch_dtype": "precision",
    "dataset_name": "data",
    "datasets": "data",
    "dataset_config": "data",
    "dataset_train_split": "data",
    "dataset_test_split": "eval",
    "dataset_streaming": "streaming",
    "test_split_size": "split.eval_share",
    "max_length": "render.max_length",
    "chat_template_path": "render.chat_template",
    "eos_token": "render.eos_token",
    "pad_token": "render.pad_token",
    "center_rewards_coefficient": "loss.center",
    "activation_offloading": "train.activation_offload",
    "disable_dropout": "train.dropout",
    "use_peft": "lora.enabled",
    "lora_r": "lora.rank",
    "lora_alpha": "lora.alpha",
    "lora_dropout": "lora.dropout",
    "lora_target_modules": "lora.targets",
    "lora_target_parameters": "lora.target_parameters",
    "lora_modules_to_save": "lora.modules_to_save",
    "use_rslora": "lora.rslora",
    "use_dora": "lora.dora",
    "load_in_8bit": "lora.bits",
    "load_in_4bit": "lora.bits",
    "bnb_4bit_quant_type": "lora.quant_type",
    "use_bnb_nested_quant": "lora.double_quant",
    "bnb_4bit_quant_storage": "lora.quant_storage",
    # OpenRLHF
    "ckpt.output_dir": "out",
    "ckpt.save_steps": "train.save_every",
    "ckpt.max_num": "train.keep",
    "logger.logging_steps": "train.log_every",
    "eval.steps": "train.eval_every",
    "eval.dataset": "eval",
    "eval.split": "eval",
    "model.gradient_checkpointing_enable": "train.gradient_checkpointing",
    "model.margin_loss_enable": "loss.margins",
    "model.loss_type": "loss.name",
    "train.seed": "seed",
    "train.max_epochs": "train.epochs",
    "train.batch_size": "train.groups_per_step",
    "train.micro_batch_size": "train.budget",
    "ds.param_dtype": "precision",
    "ds.value_head_prefix": "head_prefix",
    "value_head_prefix": "head_prefix",
    "ds.load_in_4bit": "lora.bits",
    "ds.lora.rank": "lora.rank",
    "ds.lora.alpha": "lora.alpha",
    "ds.lora.dropout": "lora.dropout",
    "ds.lora.target_modules": "lora.targets",
    "adam.lr": "train.learning_rate",
    "adam.betas": "train.betas",
    "adam.weight_decay": "train.weight_decay",
    "lr_scheduler": "train.schedule",
    "lr_warmup_ratio": "train.warmup",
    "min_lr_ratio": "train.min_rate_share",
    "max_norm": "train.max_grad_norm",
    "data.dataset": "data",
    "data.dataset_probs": "data[].weight",
    "data.dataset_split": "data",
    "data.max_samples": "data[].limit",
    "data.prompt_key": "data[].prompt_key",
    "data.chosen_key": "data[].chosen_key",
    "data.rejected_key": "data[].rejected_key",
    "data.apply_chat_template": "render.plain",
    "data.tokenizer_chat_template": "render.chat_template",
    "data.max_len": "render.max_length",
    "max_len": "render.max_length",
    # DeepSpeed-Chat
    "data_path": "data",
    "max_seq_len": "render.max_length",
    "num_warmup_steps": "train.warmup",
    "lora_dim": "lora.rank",
    "lora_module_name": "lora.targets",
    "eval_interval": "train.eval_every",
}
"""Other tools' names -> the setting that does the same here."""


def find_counterpart(name: str) -> str | None:
    """What another tool's name is called here: the name as it came, or without the section that was put before it."""
    for word in (name, name.rpartition(".")[2]):
        if word in ALIASES or word in OWNED:
            return ALIASES.get(word) or OWNED[word]
    return None
