"""rustbpe as the judge of tokenizer training.

In (JSON): pattern, vocabSize (without special tokens), texts. Out: tokens (base64) by rank.
"""

import base64
import json
import sys

import rustbpe

given = json.load(sys.stdin)
tokenizer = rustbpe.Tokenizer()
tokenizer.train_from_iterator(iter(given["texts"]), given["vocabSize"], pattern=given["pattern"])
ranks = sorted(tokenizer.get_mergeable_ranks(), key=lambda pair: pair[1])
json.dump({"tokens": [base64.b64encode(bytes(token)).decode() for token, _ in ranks]}, sys.stdout)
