"""The PyTorch side of the training benchmark: a plain GPT of the same architecture, AdamW and Muon, written the way the reference runs
(torch.compile(dynamic=False), scaled_dot_product_attention, fused AdamW, bf16 Newton-Schulz), random tokens, both optimizers in the step.

    python dev/bench/peer_torch.py --depth 4 --seq 512 --batch 8 --vocab 4096 --dtype fp32 --steps 7 [--device cuda] [--check FOLDER]

Prints one JSON line. `--check FOLDER` compares loss and gradients with a golden gpt folder first, so that both sides do the same work;
with `--steps 0` it does only that.
"""

import argparse
import json
import math
import resource
import statistics
import time

import torch
import torch.nn.functional as F


def norm(x):
    return F.rms_norm(x, (x.size(-1),))


def rotate(x, cos, sin):
    half = x.shape[-1] // 2
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos + b * sin, b * cos - a * sin], -1)


class Layer(torch.nn.Module):
    def __init__(self, width, heads, kv_heads):
        super().__init__()
        self.heads, self.kv_heads, self.size = heads, kv_heads, width // heads
        linear = lambda i, o: torch.nn.Linear(i, o, bias=False)
        self.attn = torch.nn.ModuleDict({
            "c_q": linear(width, width),
            "c_k": linear(width, kv_heads * self.size),
            "c_v": linear(width, kv_heads * self.size),
            "c_proj": linear(width, width),
        })
        self.mlp = torch.nn.ModuleDict({"c_fc": linear(width, 4 * width), "c_proj": linear(4 * width, width)})

    def forward(self, x, cos, sin):
        B, T, C = x.shape
        y, a = norm(x), self.attn
        q = norm(rotate(a["c_q"](y).view(B, T, self.heads, -1), cos, sin)).transpose(1, 2)
        k = norm(rotate(a["c_k"](y).view(B, T, self.kv_heads, -1), cos, sin)).transpose(1, 2)
        v = a["c_v"](y).view(B, T, self.kv_heads, -1).transpose(1, 2)
        o = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=self.heads != self.kv_heads)
        x = x + a["c_proj"](o.transpose(1, 2).reshape(B, T, C))
        return x + self.mlp["c_proj"](F.relu(self.mlp["c_fc"](norm(x))).square())


class Model(torch.nn.Module):
    def __init__(self, layers, heads, kv_heads, width, vocab, seq):
        super().__init__()
        padded = -(-vocab // 64) * 64
        self.vocab = vocab
        self.transformer = torch.nn.ModuleDict({
            "wte": torch.nn.Embedding(padded, width),
            "h": torch.nn.ModuleList([Layer(width, heads, kv_heads) for _ in range(layers)]),
        })
        self.lm_head = torch.nn.Linear(width, padded, bias=False)
        size = width // heads
        angles = torch.outer(torch.arange(seq).float(), 1.0 / (10000 ** (torch.arange(0, size, 2).float() / size)))
        self.register_buffer("cos", angles.cos().bfloat16()[None, :, None, :], persistent=False)
        self.register_buffer("sin", angles.sin().bfloat16()[None, :, None, :], persistent=False)

    def init(self):
        for name, p in self.named_parameters():
            if name == "transformer.wte.weight":
                torch.nn.init.normal_(p)
            elif name == "lm_head.weight" or name.endswith("c_proj.weight"):
                torch.nn.init.zeros_(p)
            else:
                torch.nn.init.normal_(p, std=min(1.0, math.sqrt(p.shape[0] / p.shape[1])) / math.sqrt(p.shape[1]))

    def forward(self, ids, targets):
        T = ids.shape[1]
        x = norm(self.transformer["wte"](ids))
        for layer in self.transformer["h"]:
            x = layer(x, self.cos[:, :T], self.sin[:, :T])
        logits = self.lm_head(norm(x))[..., : self.vocab].float()
        logits = 15 * torch.tanh(logits / 15)
        return F.cross_entropy(logits.view(-1, self.vocab), targets.view(-1), ignore_index=-1)


@torch.compile
def orthogonalise(g, steps=5):
    a, b, c = 3.4445, -4.7750, 2.0315
    x = g.bfloat16()
    tall = x.size(-2) > x.size(-1)
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        s = x @ x.mT
        x = a * x + (b * s + c * s @ s) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    def __init__(self, params, lr, momentum=0.95):
        super().__init__(params, dict(lr=lr, momentum=momentum))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state["m"] = torch.zeros_like(p)
                m = state["m"].lerp_(p.grad, 1 - group["momentum"])
                u = orthogonalise(p.grad.lerp_(m, group["momentum"]))
                p.add_(u, alpha=-group["lr"] * math.sqrt(max(1, p.size(0) / p.size(1))))


def check(folder):
    import struct
    import numpy as np

    def read(path):
        raw = open(path, "rb").read()
        size = struct.unpack("<Q", raw[:8])[0]
        head = json.loads(raw[8 : 8 + size])
        kinds = {"F32": np.float32, "I32": np.int32, "F64": np.float64}
        out = {}
        for name, t in head.items():
            if name != "__metadata__":
                a, b = t["data_offsets"]
                out[name] = torch.from_numpy(np.frombuffer(raw[8 + size + a : 8 + size + b], kinds[t["dtype"]]).reshape(t["shape"]).copy())
        return out

    c = json.load(open(f"{folder}/config.json"))["config"]
    model = Model(c["n_layer"], c["n_head"], c["n_kv_head"], c["n_embd"], c["vocab_size"], c["sequence_len"])
    model.load_state_dict(read(f"{folder}/weights.safetensors"))
    io, grads = read(f"{folder}/io.safetensors"), read(f"{folder}/grads.safetensors")
    loss = model(io["idx"].long(), io["targets"].long())
    loss.backward()
    assert abs(loss.item() - io["loss_mean"].item()) < 5e-6, (loss.item(), io["loss_mean"].item())
    for name, p in model.named_parameters():
        error = ((p.grad - grads[name]).norm() / grads[name].norm()).item()
        assert error < 1e-5, (name, error)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--seq", type=int, default=512)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--vocab", type=int, default=4096)
    parser.add_argument("--grad-accum", type=int, default=1)
    parser.add_argument("--dtype", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--check", default="")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.check:
        check(args.check)
    if args.steps == 0:
        print(json.dumps({"peer": "torch", "version": torch.__version__, "checked": args.check}))
        return
    torch.manual_seed(42)
    width = 64 * args.depth
    heads = max(1, -(-width // 128))
    model = Model(args.depth, heads, heads, width, args.vocab, args.seq)
    model.init()
    model.to(args.device)
    on_gpu = args.device == "cuda"
    wait = torch.cuda.synchronize if on_gpu else lambda: None
    scale = (width / 768) ** -0.5
    adamw = torch.optim.AdamW(
        [dict(params=[model.lm_head.weight], lr=0.004 * scale), dict(params=[model.transformer["wte"].weight], lr=0.2 * scale)],
        betas=(0.8, 0.95), eps=1e-10, weight_decay=0.0, fused=True,
    )
    muon = Muon(model.transformer["h"].parameters(), lr=0.02)
    run = torch.compile(model, dynamic=False)
    ids = torch.randint(0, args.vocab, (args.batch, args.seq)).to(args.device)
    targets = torch.randint(0, args.vocab, (args.batch, args.seq)).to(args.device)
    autocast = torch.autocast(args.device, dtype=torch.bfloat16, enabled=args.dtype == "bf16")
    times, optimizer_times, warm_up = [], [], 0.0  # the compiler runs in the warm-up
    for i in range(-2, args.steps):
        start = time.perf_counter()
        for _ in range(args.grad_accum):
            with autocast:
                loss = run(ids, targets) / args.grad_accum
            loss.backward()
        wait()
        middle = time.perf_counter()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adamw.step()
        muon.step()
        model.zero_grad(set_to_none=True)
        wait()
        end = time.perf_counter()
        if i >= 0:
            times.append(end - start)
            optimizer_times.append(end - middle)
        else:
            warm_up += end - start
    peak = torch.cuda.max_memory_allocated() if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    step = statistics.median(times)
    print(json.dumps({
        "peer": "torch", "version": torch.__version__, "depth": args.depth, "max_seq_len": args.seq, "device_batch_size": args.batch,
        "grad_accum": args.grad_accum, "vocab_size": args.vocab, "dtype": args.dtype, "threads": torch.get_num_threads(),
        "tok_per_sec": args.batch * args.seq * args.grad_accum / step, "step_ms": step * 1e3,
        "optimizer_ms": statistics.median(optimizer_times) * 1e3, "peak_bytes": peak,
        "device": torch.cuda.get_device_name() if on_gpu else "cpu", "warm_up_s": warm_up,
    }))


if __name__ == "__main__":
    main()
