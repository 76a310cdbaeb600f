"""Spreads a model's layers by ZeRO-3 in each of several processes: ``torchrun THIS OUTPUT``."""

import json
import os
import sys
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from torch.multiprocessing.reductions import StorageWeakRef
from transformers import LlamaConfig, LlamaForCausalLM

from rlhfctl.models import sharding

IDS = torch.arange(2 * 7).reshape(2, 7)


def adapted():
    """A language model with an adapter that says something already."""
    torch.manual_seed(0)
    base = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=32,
            # odd sizes, so that shares cannot be even
            hidden_size=9,
            intermediate_size=13,
            num_hidden_layers=3,
            num_attention_heads=3,
            head_dim=4,
        )
    )
    model = get_peft_model(base, LoraConfig(r=2, init_lora_weights=False))
    model.enable_input_require_grads()
    return model


def adapters_of(model):
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def passes(model):
    """Loss, and gradient of every adapter, by one forward and one backward pass."""
    model.zero_grad()
    loss = model(input_ids=IDS, labels=IDS).loss
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in adapters_of(model).items()}


class HeldOutEvaluator:
    """What is whole of the layers' weights at the moments when a layer computes."""

    def __init__(self, model):
        self.layers = model.get_base_model().model.layers
        self.most = 0
        self.seen = []
        for layer in self.layers:
            layer.register_forward_hook(self.look)

    def look(self, layer, _arguments, output):
        self.count()
        self.seen += [StorageWeakRef(p.untyped_storage()) for p in frozen(layer)]
        if output.requires_grad:
            output.register_hook(lambda _gradient: self.count())

    def count(self):
        whole = sum(p.numel() for layer in self.layers for p in frozen(layer))
        self.most = max(self.most, whole)

    def alive(self):
        """How many of the gathered weights are still held, by a graph or anyone."""
        return sum(not reference.expired() for reference in self.seen)


def frozen(layer):
    return [p for name, p in layer.named_parameters() if "lora_" not in name]


def difference(model, expected):
    loss, gradients = passes(model)
    wanted, wanted_gradients = expected
    return max(
        float((loss - wanted).abs()),
        *(float((gradients[name] - g).abs().max()) for name, g in wanted_gradients.items()),
    )


def main(output):
    torch.distributed.init_process_group("gloo")
    model = adapted()
    expected = passes(model)
    layer = sum(p.numel() for p in frozen(model.get_base_model().model.layers[0]))

    os.environ["RLHFCTL_USE_DEEPSPEED"] = "true"
    sharding.shard_base(model.get_base_model())
    watch = HeldOutEvaluator(model)
    found = {"plain": difference(model, expected)}
    kept = model(input_ids=IDS).logits
    found |= {"weights_alive": watch.alive(), "weights_a_layer": len(frozen(watch.layers[0]))}
    with torch.no_grad():
        model(input_ids=IDS)
    kept.sum().backward()
    found["again"] = difference(model, expected)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    found["checkpointed"] = difference(model, expected)
    found |= {
        "most_whole": watch.most,
        "layer": layer,
        "share": sum(p.ds_tensor.numel() for part in watch.layers for p in frozen(part)),
        "adapters": sum(p.numel() for p in adapters_of(model).values()),
    }
    sharding.gather_base(model)
    rank = torch.distributed.get_rank()
    for _ in range(rank + 1):  # would wait for ever if the processes still needed one another
        found["whole"] = difference(model, expected)
    (Path(output) / f"{rank}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
