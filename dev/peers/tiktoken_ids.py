"""tiktoken as the judge of an encoder and a decoder.

In (JSON): pattern, tokens (base64 by rank), specials {name: id}, texts, ids (lists to decode), allowed (texts whose special tokens count).
Out: ids of each text, special of each allowed text, and bytes (base64) and text of each list of ids.
"""

import base64
import json
import sys

import tiktoken

given = json.load(sys.stdin)
encoding = tiktoken.Encoding(
    name="peer",
    pat_str=given["pattern"],
    mergeable_ranks={base64.b64decode(token): rank for rank, token in enumerate(given["tokens"])},
    special_tokens=given["specials"],
)
json.dump({
    "ids": [encoding.encode_ordinary(text) for text in given["texts"]],
    "special": [encoding.encode(text, allowed_special="all") for text in given["allowed"]],
    "bytes": [base64.b64encode(encoding.decode_bytes(ids)).decode() for ids in given["ids"]],
    "decoded": [encoding.decode(ids) for ids in given["ids"]],
}, sys.stdout)
