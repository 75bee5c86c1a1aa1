"""tiktoken as the writer of a tokenizer.pkl, as the Python nanochat saves it.

In (JSON): path, protocol, pattern, tokens (base64 by rank), specials {name: id}. Writes the pickle. Out: its size.
"""

import base64
import json
import pickle
import sys

import tiktoken

given = json.load(sys.stdin)
encoding = tiktoken.Encoding(
    name="rustbpe",
    pat_str=given["pattern"],
    mergeable_ranks={base64.b64decode(token): rank for rank, token in enumerate(given["tokens"])},
    special_tokens=given["specials"],
)
with open(given["path"], "wb") as file:
    pickle.dump(encoding, file, protocol=given["protocol"])
    json.dump(file.tell(), sys.stdout)
