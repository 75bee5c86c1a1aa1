/** `tokenizer`: trained vocabularies, encodings, decodings, conversations, and training that runs out of pairs. All exact. */
import { type Conversation, renderConversation, renderForCompletion } from "../../src/data/conversation.ts";
import { Tokenizer } from "../../src/data/tokenizer.ts";
import { trainTokenizer } from "../../src/train/tok_train.ts";
import type { Parity } from "./parity.ts";

const NO_CAP = 1e9; // the recorded trainings took whole documents

/** Runs every vocabulary of the folder. */
export async function run(t: Parity): Promise<void> {
  const corpus = t.has("corpus.jsonl") ? lines(t, "corpus.jsonl") : null;
  for (const file of t.files()) {
    const size = /^tok(\d+)\.json$/.exec(file)?.[1];
    if (size === undefined) continue;
    const golden = t.json(file);
    const tokens: Uint8Array[] = golden.mergeable_ranks_base64.map((token: string) => Uint8Array.fromBase64(token));
    using tokenizer = await Tokenizer.fromParts({
      pattern: golden.split_pattern,
      tokens,
      specials: golden.special_tokens,
    });
    const name = `tok${size}`;
    t.equal(`${name} vocabulary size, bos`, [tokenizer.vocabSize, tokenizer.bosId], [
      golden.vocab_size,
      golden.bos_token_id,
    ]);
    t.equal(`${name} merges`, tokenizer.merges().subarray(2 * 256), golden.merges.flat());
    t.equal(`${name} token bytes, reference`, tokenizer.tokenBytes("reference"), golden.token_bytes_reference);
    t.equal(`${name} token bytes, newest`, tokenizer.tokenBytes("bytes"), golden.token_bytes_newest);
    if (corpus !== null) {
      const options = { texts: [corpus], vocabSize: golden.vocab_size, docCap: NO_CAP, pattern: golden.split_pattern };
      const { tokenizer: trained } = await trainTokenizer(options);
      t.equal(`${name} trained`, allTokens(trained), golden.mergeable_ranks_base64);
      trained[Symbol.dispose]();
    }
    if (t.has(`encodings_${name}.json`)) await encodings(t, name, tokenizer);
    if (t.has(`conversations_${name}.json`)) conversations(t, name, tokenizer);
  }
  if (t.has("train_early_stop.json")) await earlyStop(t);
}

async function encodings(t: Parity, name: string, tokenizer: Tokenizer): Promise<void> {
  const golden = t.json(`encodings_${name}.json`);
  type Case = { text: string; ids: number[]; chunks?: string[] };
  const cases: Case[] = golden.encodings;
  each(t, `${name} encode`, cases.map(({ text, ids }) => [JSON.stringify(text), tokenizer.encode(text), ids]));
  const batch = await tokenizer.encodeBatch(cases.map(({ text }) => text));
  each(t, `${name} encodeBatch`, cases.map(({ text, ids }, i) => [JSON.stringify(text), Array.from(batch[i]), ids]));
  const cut = cases.filter((item) => item.chunks !== undefined);
  if (cut.length > 0) {
    const pieces = await splitTexts(cut.map(({ text }) => text), tokenizer.pattern);
    each(t, `${name} chunks`, cut.map(({ text, chunks }, i) => [JSON.stringify(text), pieces[i], chunks]));
  }
  const { prepend_bos, append, batch: recorded } = golden.prepend_append;
  const prepend = tokenizer.bosId;
  each(
    t,
    `${name} prepend`,
    prepend_bos.map(({ text, ids }: Case) => [text, tokenizer.encode(text, { prepend: "<|bos|>" }), ids]),
  );
  each(
    t,
    `${name} append`,
    append.map(({ text, ids }: Case) => [text, tokenizer.encode(text, { prepend, append: ids.at(-1) }), ids]),
  );
  const many = await tokenizer.encodeBatch(recorded.texts, { prepend });
  t.equal(`${name} batch with bos`, many.map((ids) => Array.from(ids)), recorded.ids);
  type Decoding = { ids: number[]; bytes_base64: string; text: string };
  each(
    t,
    `${name} decode`,
    golden.decodings.map(({ ids, bytes_base64, text }: Decoding) => [
      JSON.stringify(ids),
      [tokenizer.decodeBytes(ids).toBase64(), tokenizer.decode(ids)],
      [bytes_base64, text],
    ]),
  );
  each(
    t,
    `${name} lone surrogates`,
    golden.surrogates.map(({ utf16, ids }: { utf16: number[]; ids: number[] }) => [
      JSON.stringify(utf16),
      tokenizer.encode(String.fromCharCode(...utf16)),
      ids,
    ]),
  );
}

function conversations(t: Parity, name: string, tokenizer: Tokenizer): void {
  const golden = t.json(`conversations_${name}.json`);
  type Case = { conversation: Conversation; ids: number[]; mask: number[]; completion_ids?: number[] };
  const rows: [string, unknown, unknown][] = [];
  for (const [i, item] of (golden.conversations as (Case & Record<string, number>)[]).entries()) {
    const { conversation, ids, mask, completion_ids } = item;
    rows.push([`${i}`, renderConversation(tokenizer, conversation), { ids, mask }]);
    for (const key of Object.keys(item)) {
      const max = /^len_max_tokens_(\d+)$/.exec(key)?.[1];
      if (max === undefined) continue;
      const cut = renderConversation(tokenizer, conversation, Number(max));
      const expected = [item[key], ids.slice(0, item[key]), mask.slice(0, item[key])];
      rows.push([`${i} cut to ${max}`, [cut.ids.length, cut.ids, cut.mask], expected]);
    }
    rows.push([
      `${i} for completion`,
      attempt(() => renderForCompletion(tokenizer, conversation)),
      completion_ids ?? null,
    ]);
  }
  each(t, `${name} conversations`, rows);
  const { conversation, n_ids, n_mask_ones, last_ids, completion_len, completion_tail } = golden.long;
  const { ids, mask } = renderConversation(tokenizer, conversation);
  const ones = mask.reduce((a, b) => a + b, 0);
  t.equal(`${name} long conversation`, [ids.length, ones, ids.slice(-last_ids.length)], [n_ids, n_mask_ones, last_ids]);
  const completion = renderForCompletion(tokenizer, conversation);
  t.equal(`${name} long completion`, [completion.length, completion.slice(-completion_tail.length)], [
    completion_len,
    completion_tail,
  ]);
  for (const { conversation, why } of golden.errors) {
    const render = why.startsWith("render_for_completion") ? renderForCompletion : renderConversation;
    t.equal(`${name} refuses: ${why}`, attempt(() => render(tokenizer, conversation)), null);
  }
}

async function earlyStop(t: Parity): Promise<void> {
  const golden = t.json("train_early_stop.json");
  const vocabSize = golden.requested_vocab_no_special + 9;
  const { tokenizer } = await trainTokenizer({ texts: [golden.docs], vocabSize, docCap: NO_CAP });
  t.equal("training without pairs left", allTokens(tokenizer).slice(256), golden.learned_base64);
  t.equal("its size", tokenizer.mergeableCount, golden.got);
  tokenizer[Symbol.dispose]();
}

/**
 * Cuts texts into the pieces of a pattern: a training that goes on until no pair is left makes every piece one token, so encoding
 * shows the pieces.
 */
export async function splitTexts(texts: readonly string[], pattern: string): Promise<string[][]> {
  const { tokenizer } = await trainTokenizer({ texts: [texts], vocabSize: 4_000_000, docCap: NO_CAP, pattern });
  const encoded = await tokenizer.encodeBatch(texts);
  const pieces = encoded.map((ids) => Array.from(ids, (id) => tokenizer.decode([id])));
  tokenizer[Symbol.dispose]();
  return pieces;
}

/** One case for all rows where all are equal, one for each that is not. */
function each(t: Parity, label: string, rows: readonly (readonly [string, unknown, unknown])[]): void {
  const wrong = rows.filter(([_, actual, expected]) => JSON.stringify(actual) !== JSON.stringify(expected));
  for (const [name, actual, expected] of wrong) t.equal(`${label} ${name}`, actual, expected);
  if (wrong.length === 0) t.equal(`${label}, ${rows.length} rows`, rows.length > 0, true);
}

/** The result, or null where it throws. */
function attempt<T>(work: () => T): T | null {
  try {
    return work();
  } catch {
    return null;
  }
}

function allTokens(tokenizer: Tokenizer): string[] {
  return Array.from({ length: tokenizer.mergeableCount }, (_, id) => tokenizer.token(id).toBase64());
}

function lines(t: Parity, name: string): string[] {
  return new TextDecoder().decode(t.bytes(name)).split("\n").filter((line) => line !== "").map((line) =>
    JSON.parse(line)
  );
}
