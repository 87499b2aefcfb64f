"""adapter.py MODEL FOLDER: write a LoRA adapter of noise for a Llama, which
changes every answer."""

import json
import os
import sys

import numpy as np
from safetensors.numpy import save_file


def main(model, folder):
    config = json.load(open(f"{model}/config.json"))
    hidden = config["hidden_size"]
    narrow = hidden // config["num_attention_heads"] * config["num_key_value_heads"]
    noise = np.random.default_rng(0)
    tensors = {}
    for layer in range(config["num_hidden_layers"]):
        for name, out in (("q_proj", hidden), ("v_proj", narrow)):
            at = f"base_model.model.model.layers.{layer}.self_attn.{name}."
            tensors[at + "lora_A.weight"] = noise.normal(0, 0.05, (8, hidden)).astype(np.float32)
            tensors[at + "lora_B.weight"] = noise.normal(0, 0.05, (out, 8)).astype(np.float32)
    os.makedirs(folder)
    save_file(tensors, f"{folder}/adapter_model.safetensors")
    json.dump({"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 8, "lora_alpha": 16, "lora_dropout": 0.0, "bias": "none",
               "target_modules": ["q_proj", "v_proj"], "base_model_name_or_path": model},
              open(f"{folder}/adapter_config.json", "w"))


main(*sys.argv[1:])
