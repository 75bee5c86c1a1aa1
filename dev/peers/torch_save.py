"""PyTorch and transformers as the writers of what `nanochat import` reads.

In (JSON): folder. Writes model.pt (tensors that lie in several ways), optimizer.pt (of real optimizers) and hf/ (a small NanoChat model
in several files). Out: tensors {name: values in order} of model.pt, moments {name: values}, logits of hf/ for ids.
"""

import json
import sys

import torch
from transformers import NanoChatConfig, NanoChatForCausalLM

folder = json.load(sys.stdin)["folder"]
torch.manual_seed(7)
whole = torch.randn(6, 4)
tensors = {
    "whole": whole,
    "rows": whole[2:4],
    "transposed": whole.t(),
    "column": whole[:, 1],
    "bf16": torch.randn(3, 5).bfloat16(),
    "scalar": torch.tensor(2.5),
    "empty": torch.empty(0, 4),
    "parameter": torch.nn.Parameter(torch.randn(2, 2)),
    "linear.weight": torch.nn.Linear(3, 2).state_dict()["weight"],
}
torch.save(tensors, f"{folder}/model.pt")

weight = torch.nn.Parameter(torch.randn(4, 3))
optimizer = torch.optim.AdamW([weight], lr=0.1)
for _ in range(3):
    (weight**2).sum().backward()
    optimizer.step()
torch.save([optimizer.state_dict()], f"{folder}/optimizer.pt")

model = NanoChatForCausalLM(NanoChatConfig(
    vocab_size=320,
    hidden_size=32,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    max_position_embeddings=16,
    bos_token_id=None,
    eos_token_id=None,
    pad_token_id=None,
)).eval()
for parameter in model.parameters():
    torch.nn.init.normal_(parameter, std=0.3)
model.save_pretrained(f"{folder}/hf", max_shard_size="60KB")
ids = torch.randint(0, 265, (1, 16))
with torch.no_grad():
    logits = model(ids, use_cache=False).logits[0, :, :265]

state = optimizer.state_dict()["state"][0]
json.dump({
    "tensors": {name: tensor.detach().float().flatten().tolist() for name, tensor in tensors.items()},
    "moments": {name: state[name].flatten().tolist() for name in ("step", "exp_avg", "exp_avg_sq")},
    "ids": ids[0].tolist(),
    "logits": logits.flatten().tolist(),
}, sys.stdout)
