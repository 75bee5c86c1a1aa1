/**
 * A tokenizer as Hugging Face's `tokenizers` reads it: `tokenizer.json`, byte-level BPE over our merges behind our split pattern, and
 * what `transformers` needs beside it.
 *
 * The format writes a token as characters, one for each byte, in the alphabet of GPT-2 (openai/gpt-2, src/encoder.py): a printable byte
 * of Latin-1 is itself, the others are the characters from U+0100 on. `<|bos|>` is put in front of a text unless the reader asks for
 * no special tokens. Names of special tokens inside a text become special ids there, where ours keep them as text; the reader's
 * `split_special_tokens` does the same.
 */
import type { Tokenizer } from "../../data/tokenizer.ts";

const isPrintable = (byte: number) => (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte !== 0xad);

/** The character of each byte. */
export function byteAlphabet(): string[] {
  let next = 0x100;
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(isPrintable(byte) ? byte : next++));
}

/** Vocabulary and merges in the alphabet of bytes. */
export interface ByteLevelVocabulary {
  /** Mergeable tokens; the index is the id. */
  readonly tokens: readonly string[];
  /** The two tokens that each merge joins, in the order of merging. */
  readonly merges: readonly (readonly [string, string])[];
}

/**
 * Spells a vocabulary in the alphabet of bytes.
 *
 * @throws {Error} where a token is no byte and joined from no two others: the format could not reach it.
 */
export function byteLevelVocabulary(tokenizer: Tokenizer): ByteLevelVocabulary {
  const alphabet = byteAlphabet();
  const spell = (bytes: Uint8Array) => Array.from(bytes, (byte) => alphabet[byte]).join("");
  const tokens = Array.from({ length: tokenizer.mergeableCount }, (_, id) => spell(tokenizer.token(id)));
  const pairs = tokenizer.merges();
  const merges: [string, string][] = [];
  for (let id = 0; id < tokens.length; id++) {
    if (tokens[id].length === 1) continue;
    const [left, right] = pairs.subarray(2 * id, 2 * id + 2);
    if (left < 0) {
      const shown = JSON.stringify(tokenizer.decode([id]));
      throw new Error(`Cannot export the tokenizer as merges: no two tokens make token ${id} (${shown})`);
    }
    merges.push([tokens[left], tokens[right]]);
  }
  return { tokens, merges };
}

/** Writes `tokenizer.json`. @throws {Error} where the vocabulary is not one of merges. */
export function tokenizerJson(tokenizer: Tokenizer): string {
  const { tokens, merges } = byteLevelVocabulary(tokenizer);
  const specials = [...tokenizer.specials];
  const bos = tokenizer.specials.get(BOS);
  return JSON.stringify({
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: specials.map(([content, id]) => ({
      id,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    })),
    normalizer: null,
    pre_tokenizer: {
      type: "Sequence",
      pretokenizers: [
        { type: "Split", pattern: { Regex: tokenizer.pattern }, behavior: "Isolated", invert: false },
        { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false },
      ],
    },
    post_processor: bos === undefined ? null : bosInFront(bos),
    decoder: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false },
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: true, // a piece that is a token is that token, as in tiktoken
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
      merges,
    },
  });
}

const BOS = "<|bos|>";
const END = "<|assistant_end|>";

function bosInFront(id: number) {
  const special = (type_id: number) => ({ SpecialToken: { id: BOS, type_id } });
  const text = (name: string, type_id: number) => ({ Sequence: { id: name, type_id } });
  return {
    type: "TemplateProcessing",
    single: [special(0), text("A", 0)],
    pair: [special(0), text("A", 0), special(1), text("B", 1)],
    special_tokens: { [BOS]: { id: BOS, ids: [id], tokens: [BOS] } },
  };
}

/** Writes `tokenizer_config.json`; `sequenceLen` is the context of a model that goes with it. */
export function tokenizerConfigJson(tokenizer: Tokenizer, { sequenceLen }: { sequenceLen?: number } = {}): string {
  const known = (name: string) => tokenizer.specials.has(name) ? name : undefined;
  return JSON.stringify(
    {
      tokenizer_class: "PreTrainedTokenizerFast",
      bos_token: known(BOS),
      eos_token: known(END),
      pad_token: known(END),
      clean_up_tokenization_spaces: false,
      model_max_length: sequenceLen,
    },
    null,
    2,
  );
}

/**
 * A conversation as text, in the language of Jinja: what `renderConversation` (`src/data/conversation.ts`) gives, except that two
 * neighbouring text parts are encoded as one.
 */
export const CHAT_TEMPLATE = `{{- '<|bos|>' -}}
{%- set state = namespace(system='') -%}
{%- for message in messages -%}
  {%- if message.role == 'system' and loop.first -%}
    {%- set state.system = message.content + '\\n\\n' -%}
  {%- elif message.role == 'user' -%}
    {{- '<|user_start|>' + state.system + message.content + '<|user_end|>' -}}
    {%- set state.system = '' -%}
  {%- elif message.role == 'assistant' -%}
    {{- '<|assistant_start|>' -}}
    {%- if message.content is string -%}
      {{- message.content -}}
    {%- else -%}
      {%- for part in message.content -%}
        {%- if part.type == 'text' -%}
          {{- part.text -}}
        {%- elif part.type == 'python' -%}
          {{- '<|python_start|>' + part.text + '<|python_end|>' -}}
        {%- elif part.type == 'python_output' -%}
          {{- '<|output_start|>' + part.text + '<|output_end|>' -}}
        {%- else -%}
          {{- raise_exception('expected parts of type text, python or python_output') -}}
        {%- endif -%}
      {%- endfor -%}
    {%- endif -%}
    {{- '<|assistant_end|>' -}}
  {%- else -%}
    {{- raise_exception('expected roles user and assistant, and system in front') -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- '<|assistant_start|>' -}}
{%- endif -%}
`;
