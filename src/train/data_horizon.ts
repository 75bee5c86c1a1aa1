/** Says how much text a run needs and how much there is. */
import { openShard } from "../data/dataset.ts";
import type { Log } from "../data/log.ts";
import type { Tokenizer } from "../data/tokenizer.ts";

/** Estimates the tokens of the shards from the first row group, and warns where the run will read them more than once. */
export async function announceData(
  { files, tokenizer, tokens, log }: { files: readonly string[]; tokenizer: Tokenizer; tokens: number; log: Log },
): Promise<void> {
  let documents = 0, perDocument = 0;
  for (const [i, path] of files.entries()) {
    using shard = openShard(path);
    documents += shard.rows;
    if (i > 0 || shard.rowGroups === 0) continue;
    const texts = await shard.readTexts(0);
    const ids = await tokenizer.encodeBatch(texts, { prepend: tokenizer.bosId });
    perDocument = ids.reduce((sum, document) => sum + document.length, 0) / Math.max(1, ids.length);
  }
  const available = documents * perDocument;
  const epochs = tokens / available;
  const millions = (n: number) => n < 1e5 ? Math.round(n).toLocaleString("en-US") : `${(n / 1e6).toFixed(1)} M`;
  const needed = Math.ceil(files.length * epochs);
  const shards = `${files.length} training shard${files.length === 1 ? "" : "s"} with about ${
    millions(available)
  } tokens`;
  if (epochs <= 1) {
    log.info(`Data: ${shards}; this run reads ${millions(tokens)} (${needed} of ${files.length} shards)`);
  } else {
    log.warn(
      `Data: ${shards}, and this run reads ${millions(tokens)}: ${
        epochs.toFixed(1)
      } epochs; about ${needed} shards of this size ` +
        `would be read once, see "nanochat data download --help"`,
    );
  }
}
