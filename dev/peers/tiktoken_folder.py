"""tiktoken as the reader of an exported tokenizer.

In (JSON): folder, texts. Out: ids of each text, and each text decoded from them.
"""

import json
import os
import sys

os.environ["TIKTOKEN_CACHE_DIR"] = ""  # its copies are named by the path alone

import tiktoken
from tiktoken.load import load_tiktoken_bpe

given = json.load(sys.stdin)
folder = given["folder"]
ranks = load_tiktoken_bpe(f"{folder}/ranks.tiktoken")
encoding = tiktoken.Encoding(mergeable_ranks=ranks, **json.load(open(f"{folder}/encoding.json")))
ids = [encoding.encode_ordinary(text) for text in given["texts"]]
specials = {name: encoding.encode_single_token(name) for name in encoding.special_tokens_set}
json.dump({"ids": ids, "decoded": [encoding.decode(each) for each in ids], "specials": specials}, sys.stdout)
