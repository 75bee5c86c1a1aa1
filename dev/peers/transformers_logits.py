"""transformers' own NanoChat model as the judge of the recorded models: it gets the golden weights and must give the golden logits.

In (JSON): folder (a golden gpt folder). Out: error, the norm of the difference of the logits divided by their norm, and positions.
"""

import json
import sys

import torch
from safetensors.torch import load_file
from transformers import NanoChatConfig, NanoChatForCausalLM

NAMES = {
    "attn.c_q": "self_attn.q_proj",
    "attn.c_k": "self_attn.k_proj",
    "attn.c_v": "self_attn.v_proj",
    "attn.c_proj": "self_attn.o_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def renamed(name):
    """The name of a tensor in transformers' model."""
    if not name.startswith("transformer.h."):
        return name.replace("transformer.wte", "model.embed_tokens")
    _, _, layer, *part, _ = name.split(".")
    return f"model.layers.{layer}.{NAMES['.'.join(part)]}.weight"


folder = json.load(sys.stdin)["folder"]
golden = json.load(open(f"{folder}/config.json"))
sizes, io = golden["config"], load_file(f"{folder}/io.safetensors")
model = NanoChatForCausalLM(NanoChatConfig(
    vocab_size=golden["padded_vocab_size"],
    hidden_size=sizes["n_embd"],
    intermediate_size=4 * sizes["n_embd"],
    num_hidden_layers=sizes["n_layer"],
    num_attention_heads=sizes["n_head"],
    num_key_value_heads=sizes["n_kv_head"],
    max_position_embeddings=sizes["sequence_len"],
    rms_norm_eps=golden["rms_norm_eps"],
    final_logit_softcapping=float(golden["softcap"]),
    rope_parameters={"rope_type": "default", "rope_theta": float(golden["rope_base"])},
    bos_token_id=None,
    eos_token_id=None,
    pad_token_id=None,
))
model.load_state_dict({renamed(name): tensor for name, tensor in load_file(f"{folder}/weights.safetensors").items()})
# The reference keeps the rotary tables in bfloat16; transformers computes them in the type of the activations.
model.model.rotary_emb.register_forward_hook(lambda _, __, tables: tuple(table.bfloat16().float() for table in tables))
with torch.no_grad():
    logits = model.eval()(io["idx"].long(), use_cache=False).logits[..., : sizes["vocab_size"]]
error = (logits - io["logits"]).norm() / io["logits"].norm()
json.dump({"error": error.item(), "positions": logits[..., 0].numel()}, sys.stdout)
