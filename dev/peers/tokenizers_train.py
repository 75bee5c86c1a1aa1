"""Hugging Face tokenizers as the judge of tokenizer training, with Python's regex module cutting the texts.

In (JSON): pattern, vocabSize (without special tokens), texts. Out: tokens (base64) by rank.

Each byte becomes one character whose code rises with the byte, so that the library's order of equal counts is that of the bytes.
"""

import base64
import json
import sys

import regex
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

FIRST = 0x4E00

given = json.load(sys.stdin)
pieces = regex.compile(given["pattern"])
words = lambda text: " ".join("".join(chr(FIRST + byte) for byte in piece.encode()) for piece in pieces.findall(text))
tokenizer = Tokenizer(models.BPE())
tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
trainer = trainers.BpeTrainer(
    vocab_size=given["vocabSize"],
    initial_alphabet=[chr(FIRST + byte) for byte in range(256)],
    show_progress=False,
)
tokenizer.train_from_iterator(map(words, given["texts"]), trainer)
vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda pair: pair[1])
to_bytes = lambda token: bytes(ord(character) - FIRST for character in token)
json.dump({"tokens": [base64.b64encode(to_bytes(token)).decode() for token, _ in vocabulary]}, sys.stdout)
