"""PyTorch and tiktoken as the readers of a model that was exported for the Python nanochat.

In (JSON): folder, tag, step, texts. Out: names, types, shapes and values of the model's tensors; the groups of both optimizers, and their
states by number; ids of each text; token_bytes. torch.load is only allowed to make tensors and plain values.
"""

import json
import pickle
import sys

import torch

given = json.load(sys.stdin)
folder = given["folder"]
models = f"{folder}/base_checkpoints/{given['tag']}"
load = lambda path: torch.load(path, map_location="cpu", weights_only=True)


def told(tensor):
    """A tensor as JSON."""
    return {"dtype": str(tensor.dtype), "shape": list(tensor.shape), "values": tensor.float().flatten().tolist()}


model = load(f"{models}/model_{given['step']:06d}.pt")
mapped = torch.load(f"{models}/model_{given['step']:06d}.pt", mmap=True, weights_only=True)
adamw, muon = load(f"{models}/optim_{given['step']:06d}_rank0.pt")
meta = json.load(open(f"{models}/meta_{given['step']:06d}.json"))
# As the reference resumes: AdamW is made for head and embedding, a group each, and takes the state.
parameters = [torch.nn.Parameter(model[name].clone()) for name in ("lm_head.weight", "transformer.wte.weight")]
optimizer = torch.optim.AdamW([{"params": [each]} for each in parameters], lr=1.0)
optimizer.load_state_dict(load(f"{models}/optim_{given['step']:06d}_rank0.pt")[0])
for each in parameters:
    each.grad = torch.zeros_like(each)
optimizer.step()
tokenizer = pickle.load(open(f"{folder}/tokenizer/tokenizer.pkl", "rb"))
json.dump({
    "class": type(model).__name__,
    "model": {name: told(tensor) for name, tensor in model.items()},
    "mapped": all(torch.equal(mapped[name], tensor) for name, tensor in model.items()),
    "groups": [state["param_groups"] for state in (adamw, muon)],
    "states": [
        {number: {kind: told(tensor) for kind, tensor in values.items()} for number, values in state["state"].items()}
        for state in (adamw, muon)
    ],
    "updates": [optimizer.state[each]["step"].item() for each in parameters],
    "sizes": meta["model_config"],
    "ids": [tokenizer.encode_ordinary(text) for text in given["texts"]],
    "tokenBytes": told(load(f"{folder}/tokenizer/token_bytes.pt")),
}, sys.stdout)
