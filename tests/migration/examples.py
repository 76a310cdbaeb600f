"""Small files in the form of the two tools' own examples."""

import json
from collections.abc import Mapping
from pathlib import Path

from rlhfctl.recipe import strict_yaml

BASE = "meta-llama/Meta-Llama-3-8B-Instruct"
SHARED = f"""\
### model
model_name_or_path: {BASE}
trust_remote_code: true

### method
do_train: true
finetuning_type: lora
lora_target: all

### dataset
template: llama3
cutoff_len: 2048
max_samples: 1000
overwrite_cache: true
preprocessing_num_workers: 16

### output
logging_steps: 10
save_steps: 500
plot_loss: true
overwrite_output_dir: true

### train
per_device_train_batch_size: 1
gradient_accumulation_steps: 8
num_train_epochs: 3.0
lr_scheduler_type: cosine
warmup_ratio: 0.1
bf16: true
ddp_timeout: 180000000
"""
LLAMAFACTORY = {
    "sft": f"{SHARED}stage: sft\nlora_rank: 8\ndataset: identity,alpaca_en_demo\n"
    "output_dir: saves/sft\nlearning_rate: 1.0e-4\n",
    "reward": f"{SHARED}stage: rm\nlora_rank: 8\ndataset: dpo_en_demo\n"
    "output_dir: saves/reward\nlearning_rate: 1.0e-4\n",
    "ppo": f"{SHARED}stage: ppo\ndataset: identity,alpaca_en_demo\nreward_model: saves/reward\n"
    "output_dir: saves/ppo\nlearning_rate: 1.0e-5\nmax_new_tokens: 512\ntop_k: 0\ntop_p: 0.9\n",
}
DATASET_INFO = {
    "identity": {"file_name": "identity.json"},
    "alpaca_en_demo": {"file_name": "alpaca_en_demo.json"},
    "dpo_en_demo": {
        "file_name": "dpo_en_demo.json",
        "ranking": True,
        "formatting": "sharegpt",
        "columns": {"messages": "conversations", "chosen": "chosen", "rejected": "rejected"},
    },
    "webqa": {
        "hf_hub_url": "suolyer/webqa",
        "columns": {"prompt": "input", "response": "output"},
    },
    "chat": {
        "hf_hub_url": "org/chat",
        "subset": "en",
        "split": "train_sft",
        "formatting": "sharegpt",
        "columns": {"messages": "messages", "images": "images"},
        "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "customer"},
    },
    "elsewhere": {"ms_hub_url": "org/elsewhere"},
}

TAIL = """\
output_dir: ./outputs/out
wandb_project:
wandb_entity:
gradient_accumulation_steps: 4
micro_batch_size: 2
num_epochs: 4
lr_scheduler: cosine
learning_rate: 0.0002
train_on_inputs: false
group_by_length: false
fp16:
tf32: false
gradient_checkpointing: true
logging_steps: 1
flash_attention: true
evals_per_epoch: 4
saves_per_epoch: 1
weight_decay: 0.0
"""
QLORA = f"""\
base_model: NousResearch/Meta-Llama-3-8B
model_type: AutoModelForCausalLM
load_in_8bit: false
load_in_4bit: true
datasets:
  - path: tatsu-lab/alpaca
    type: alpaca
val_set_size: 0
adapter: qlora
sequence_len: 4096
sample_packing: true
pad_to_sequence_len: true
lora_r: 32
lora_alpha: 16
lora_dropout: 0.05
lora_target_modules:
lora_target_linear: true
optimizer: paged_adamw_32bit
bf16: auto
warmup_steps: 10
special_tokens:
  pad_token: "<|end_of_text|>"
{TAIL}"""
INSTRUCT = f"""\
base_model: NousResearch/Meta-Llama-3-8B-Instruct
load_in_8bit: true
load_in_4bit: false
chat_template: llama3
datasets:
  - path: org/conversations
    type: chat_template
    field_messages: dialogue
    message_field_role: role
    message_field_content: content
    roles:
      user:
        - user
      assistant:
        - assistant
    split: train
val_set_size: 0.05
sequence_len: 4096
sample_packing: false
adapter: lora
lora_r: 32
lora_alpha: 16
lora_dropout: 0.05
lora_target_modules: [q_proj, v_proj]
optimizer: adamw_bnb_8bit
bf16: auto
warmup_ratio: 0.1
{TAIL}"""
REWARD = f"""\
base_model: google/gemma-2-2b
model_type: AutoModelForSequenceClassification
num_labels: 1
reward_model: true
chat_template: gemma
datasets:
  - path: org/pairs
    type: bradley_terry.chat_template
val_set_size: 0.0
remove_unused_columns: false
sequence_len: 2048
sample_packing: false
optimizer: adamw_bnb_8bit
bf16: true
warmup_ratio: 0.1
gradient_checkpointing_kwargs:
  use_reentrant: false
eval_max_new_tokens: 128
{TAIL}"""
AXOLOTL = {"qlora": QLORA, "instruct": INSTRUCT, "reward": REWARD}


def write_llamafactory(folder: Path, *stages: str, **changes: Mapping[str, object]) -> list[Path]:
    """Write example files and their data; return the files."""
    write_data(folder)
    files = []
    for stage in stages:
        path = folder / f"{stage}.yaml"
        path.write_text(changed(LLAMAFACTORY[stage], changes.get(stage, {})))
        files.append(path)
    return files


def write_data(folder: Path) -> None:
    """Write the data sets that LLaMA-Factory's files name, with two rows each."""
    data = folder / "data"
    data.mkdir()
    (data / "dataset_info.json").write_text(json.dumps(DATASET_INFO))
    for name in ("identity", "alpaca_en_demo"):
        rows = [{"instruction": f"{name} {row}?", "input": "", "output": "Yes."} for row in "ab"]
        (data / f"{name}.json").write_text(json.dumps(rows))
    chosen, rejected = ({"from": "gpt", "value": text} for text in ("Hello.", "No."))
    turns = [[{"from": "human", "value": f"Hi {row}"}] for row in "ab"]
    pairs = [{"conversations": turn, "chosen": chosen, "rejected": rejected} for turn in turns]
    (data / "dpo_en_demo.json").write_text(json.dumps(pairs))


def changed(text: str, changes: Mapping[str, object]) -> str:
    """Return YAML text with other values of some keys; None removes a key."""
    values = strict_yaml.parse(text).value
    others = {key: value for key, value in values.items() if key not in changes}
    return strict_yaml.dump(
        others | {key: value for key, value in changes.items() if value is not None}
    )
