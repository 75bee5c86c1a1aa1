"""Hugging Face tokenizers as the judge of an encoder: its byte-level BPE over the same merges and split pattern.

In (JSON): pattern, tokens (base64 by rank), merges (pairs of ids), texts. Out: ids of each text.
"""

import base64
import json
import sys

from tokenizers import Regex, Tokenizer, models, pre_tokenizers


def characters():
    """The character of each byte in GPT-2's byte-level vocabulary: itself where it is printable, else one from 256 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) if byte in printable else chr(256 + others.index(byte)) for byte in range(256)]


given = json.load(sys.stdin)
table = characters()
tokens = ["".join(table[byte] for byte in base64.b64decode(token)) for token in given["tokens"]]
merges = [(tokens[left], tokens[right]) for left, right in given["merges"]]
tokenizer = Tokenizer(models.BPE(vocab={token: rank for rank, token in enumerate(tokens)}, merges=merges))
tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
    pre_tokenizers.Split(Regex(given["pattern"]), "isolated"),
    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
])
json.dump({"ids": [encoding.ids for encoding in tokenizer.encode_batch(given["texts"])]}, sys.stdout)
