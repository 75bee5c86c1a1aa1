"""transformers as the reader of an exported model.

In (JSON): folder, ids (rows of equal length), prompts (lists of ids), steps, texts, conversations.
Out: logits of the rows; greedy continuations of the prompts by `steps` tokens; ids of each text, special tokens in it taken as text;
ids of each conversation by the chat template; what an assistant is given to answer the last message; what was loaded.
"""

import json
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

given = json.load(sys.stdin)
folder = given["folder"]
model, loading = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
tokenizer = AutoTokenizer.from_pretrained(folder)
problems = [f"{kind}: {names}" for kind, names in loading.items() if names]
with torch.no_grad():
    logits = model.eval()(torch.tensor(given["ids"]), use_cache=False).logits.float()
    greedy = []
    for prompt in given["prompts"]:
        ids = torch.tensor([prompt])
        out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=given["steps"])
        greedy.append(out[0, len(prompt):].tolist())
as_text = {"add_special_tokens": False, "split_special_tokens": True}
json.dump({
    "class": type(model).__name__,
    "problems": problems,
    "dtype": str(model.dtype),
    "eps": model.config.rms_norm_eps,
    "stops": model.generation_config.eos_token_id,
    "logits": logits.flatten().tolist(),
    "greedy": greedy,
    "ids": [tokenizer(text, **as_text).input_ids for text in given["texts"]],
    "decoded": [tokenizer.decode(tokenizer(text, **as_text).input_ids) for text in given["texts"]],
    "conversations": [
        tokenizer.apply_chat_template(each, tokenize=True, return_dict=False) for each in given["conversations"]
    ],
    "completions": [
        tokenizer.apply_chat_template(each[:-1], tokenize=True, return_dict=False, add_generation_prompt=True)
        for each in given["conversations"] if len(each) > 1 and each[-1]["role"] == "assistant"
    ],
}, sys.stdout)
