"""Hugging Face tokenizers as the reader of an exported tokenizer.

In (JSON): folder, texts. Out: ids of each text, its special tokens taken as text; the texts decoded from them; ids of the first text as a
reader gets them who asks for nothing; ids of the special tokens.
"""

import json
import sys

from tokenizers import Tokenizer

given = json.load(sys.stdin)
tokenizer = Tokenizer.from_file(f"{given['folder']}/tokenizer.json")
plain = tokenizer.encode(given["texts"][0]).ids
tokenizer.encode_special_tokens = True
ids = [encoding.ids for encoding in tokenizer.encode_batch(given["texts"], add_special_tokens=False)]
specials = {token.content: id for id, token in tokenizer.get_added_tokens_decoder().items()}
decoded = [tokenizer.decode(each, skip_special_tokens=False) for each in ids]
json.dump({"ids": ids, "decoded": decoded, "plain": plain, "specials": specials}, sys.stdout)
