"""The PyTorch side of the CORE benchmark: a plain GPT, one example a forward pass as the reference does it: the options of an example,
padded on the right, go through the whole model, then every position through the output layer and the loss.

    python dev/bench/peer_core.py EXAMPLES_FILE --depth 4 --vocab 4096 --dtype fp32 [--check GOLDEN]

EXAMPLES_FILE is what `dev/bench/core.ts` writes, which runs this program. Prints one JSON line. `--check GOLDEN` first compares mean losses and predicted tokens with
the golden set's core_eval, so that both sides do the same work.
"""

import argparse
import json
import pathlib
import resource
import time

import torch
import torch.nn.functional as F
from peer_torch import Model, norm


class Scorer(Model):
    def logits(self, ids):
        T = ids.shape[1]
        x = norm(self.transformer["wte"](ids))
        for layer in self.transformer["h"]:
            x = layer(x, self.cos[:, :T], self.sin[:, :T])
        return 15 * torch.tanh(self.lm_head(norm(x))[..., : self.vocab].float() / 15)


@torch.inference_mode()
def score(model, options):
    """Losses and most probable tokens (rows, T - 1): what position t says about token t + 1."""
    longest = max(len(tokens) for tokens in options)
    ids = torch.zeros(len(options), longest, dtype=torch.long)
    for row, tokens in enumerate(options):
        ids[row, : len(tokens)] = torch.tensor(tokens)
    logits = model.logits(ids)
    losses = F.cross_entropy(logits[:, :-1].reshape(-1, logits.shape[-1]), ids[:, 1:].reshape(-1), reduction="none")
    return losses.view(len(options), -1), logits.argmax(-1)[:, :-1]


def check(golden):
    from safetensors.torch import load_file

    golden = pathlib.Path(golden)
    info = json.loads((golden / "core_eval" / "core.json").read_text())
    c = info["config"]
    model = Scorer(c["n_layer"], c["n_head"], c["n_kv_head"], c["n_embd"], c["vocab_size"], 10 * c["sequence_len"])
    model.load_state_dict(load_file(golden / info["weights"]))
    count = 0
    for task in info["tasks"]:
        for example in task["examples"]:
            losses, predicted = score(model, example["tokens"])
            spans = list(zip(example["start_idxs"], example["end_idxs"]))
            if "mean_losses" in example:
                for row, (start, end) in enumerate(spans):
                    assert abs(losses[row, start - 1 : end - 1].mean().item() - example["mean_losses"][row]) < 2e-5, task["label"]
            else:
                start, end = spans[0]
                assert predicted[0, start - 1 : end - 1].tolist() == example["predicted_tokens"], task["label"]
            count += 1
    return count


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("examples")
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--vocab", type=int, required=True)
    parser.add_argument("--dtype", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--check")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    checked = check(args.check) if args.check else 0
    width = 64 * args.depth
    heads = max(1, -(-width // 128))
    model = Scorer(args.depth, heads, heads, width, args.vocab, 20480)
    model.init()
    examples = [json.loads(line) for line in open(args.examples)]
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.dtype == "bf16"):
        wall, cpu = time.perf_counter(), time.process_time()
        for example in examples:
            losses, predicted = score(model, example["options"])
            for row, (start, end) in enumerate(zip(example["starts"], example["ends"])):
                losses[row, start - 1 : end - 1].mean().item(), predicted[row, start - 1 : end - 1].tolist()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(json.dumps({
        "peer": "torch", "version": torch.__version__, "checked": checked, "depth": args.depth, "vocab": args.vocab, "dtype": args.dtype,
        "threads": torch.get_num_threads(), "examples": len(examples), "wallSec": wall, "cpuSec": cpu,
        "maxRssBytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }))


if __name__ == "__main__":
    main()
