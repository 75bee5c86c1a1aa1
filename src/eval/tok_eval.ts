/**
 * How well a tokenizer compresses, beside others (nanochat scripts/tok_eval.py): bytes per token over texts of several kinds, and how many
 * tokens fewer than the other it needs.
 */
import { openShard, type Split } from "../data/dataset.ts";
import type { Tokenizer } from "../data/tokenizer.ts";

/** A text to measure. */
export interface EvalText {
  readonly name: string;
  readonly text: string;
}

/** Figures of one text. */
export interface TextRow {
  readonly name: string;
  readonly bytes: number;
  readonly ours: number;
  /** Bytes a token. */
  readonly ourRatio: number;
}

/** Figures of one text beside those of another tokenizer. */
export interface CompressionRow extends TextRow {
  readonly theirs: number;
  readonly theirRatio: number;
  /** Tokens that ours saves, in percent of theirs; negative where it needs more. */
  readonly savedPercent: number;
}

/** Short texts of five kinds; `evalTexts` adds excerpts of the data. */
export const EVAL_TEXTS: readonly EvalText[] = [
  {
    name: "news",
    text:
      "RIVERTON, March 14 - The city council voted 7-2 on Tuesday to rebuild the 112-year-old bridge that was closed after " +
      "last autumn's flood. Mayor Ellen Park said the $38.5 million project would begin in June and take about two years. " +
      '"People have been driving twenty minutes around," she told reporters. "They\'ve waited long enough." Opponents ' +
      "argued that the money should go to schools first; a second hearing is planned for April 2.\n",
  },
  {
    name: "korean",
    text:
      "서울의 아침은 일찍 시작된다. 지하철역마다 사람들이 줄을 서고, 골목의 작은 빵집에서는 갓 구운 빵 냄새가 난다. 오늘은 비가 올 " +
      "것이라고 했지만 하늘은 아직 맑다. 나는 우산을 들고 도서관으로 걸어가면서, 지난주에 빌린 책 세 권을 다 읽었는지 생각해 보았다.\n",
  },
  {
    name: "code",
    text: "fn median(values: &mut [f64]) -> Option<f64> {\n    if values.is_empty() {\n        return None;\n    }\n" +
      "    values.sort_by(|a, b| a.total_cmp(b));\n    let mid = values.len() / 2;\n    Some(if values.len() % 2 == 1 {\n" +
      "        values[mid]\n    } else {\n        (values[mid - 1] + values[mid]) / 2.0\n    })\n}\n\n" +
      "for (const [i, row] of rows.entries()) {\n  if (row.id !== i) throw new Error(`row ${i} has id ${row.id}`);\n}\n",
  },
  {
    name: "math",
    text:
      "\\begin{theorem}\nLet $f : [a,b] \\to \\mathbb{R}$ be continuous with $f(a) < 0 < f(b)$. Then there is a $c \\in (a,b)$ " +
      "such that $f(c) = 0$.\n\\end{theorem}\n\\begin{proof}\nPut $S = \\{x \\in [a,b] : f(x) < 0\\}$ and $c = \\sup S$. If $f(c) < 0$, " +
      "continuity gives $\\delta > 0$ with $f < 0$ on $[c, c+\\delta)$, against $c = \\sup S$; the case $f(c) > 0$ is similar. " +
      "Hence $f(c) = 0$. \\qedhere\n\\end{proof}\n\\[ \\sum_{k=1}^{n} k^2 = \\frac{n(n+1)(2n+1)}{6} \\]\n",
  },
  {
    name: "science",
    text:
      "Mitochondria take up pyruvate through a carrier in the inner membrane and oxidise it to acetyl-CoA, which enters the " +
      "citric acid cycle. The NADH and FADH2 formed there feed electrons into the respiratory chain; complexes I, III and IV pump " +
      "protons and build up a gradient of about 180 mV. ATP synthase lets the protons flow back and makes roughly 2.5 ATP per NADH. " +
      "At 37 °C a resting adult turns over some 40 kg of ATP a day.\n",
  },
];

/** Lists all seven texts: the five above, and the documents of the first row group of either split, one a line. */
export async function evalTexts({ train, val }: Split): Promise<EvalText[]> {
  const excerpt = async (name: string, path: string) => {
    using shard = openShard(path);
    return { name, text: (await shard.readTexts(0)).join("\n") };
  };
  return [...EVAL_TEXTS, await excerpt("train", train[0]), await excerpt("val", val[0])];
}

/**
 * Counts the tokens of each text.
 *
 * @throws {Error} where a text does not come back unchanged.
 */
export async function measureTokenizer(ours: Tokenizer, texts: readonly EvalText[] = EVAL_TEXTS): Promise<TextRow[]> {
  const counts = await countTokens(ours, texts);
  return texts.map(({ name, text }, i) => {
    const bytes = new TextEncoder().encode(text).length;
    return { name, bytes, ours: counts[i], ourRatio: bytes / counts[i] };
  });
}

/**
 * Counts the tokens of each text in both vocabularies.
 *
 * @throws {Error} where a text does not come back unchanged from one of them.
 */
export async function compareTokenizers(
  { ours, theirs }: { ours: Tokenizer; theirs: Tokenizer },
  texts: readonly EvalText[] = EVAL_TEXTS,
): Promise<CompressionRow[]> {
  const rows = await measureTokenizer(ours, texts);
  const counts = await countTokens(theirs, texts);
  return rows.map((row, i) => {
    const savedPercent = 100 * (counts[i] - row.ours) / counts[i];
    return { ...row, theirs: counts[i], theirRatio: row.bytes / counts[i], savedPercent };
  });
}

async function countTokens(tokenizer: Tokenizer, texts: readonly EvalText[]): Promise<number[]> {
  const encoded = await tokenizer.encodeBatch(texts.map(({ text }) => text));
  return encoded.map((ids, i) => {
    const { name, text } = texts[i];
    // Lone surrogates are no text: they come back as U+FFFD.
    if (tokenizer.decode(ids) !== text.toWellFormed()) {
      throw new Error(`Cannot compare tokenizers: text "${name}" does not come back unchanged, expected the same text`);
    }
    return ids.length;
  });
}

/** Writes the rows as a Markdown table under the baseline's name. */
export function compressionTable(baseline: string, rows: readonly CompressionRow[]): string {
  const lines = rows.map((row) => {
    const saved = `${row.savedPercent >= 0 ? "+" : ""}${row.savedPercent.toFixed(1)}%`;
    const cells = [
      row.name,
      row.bytes,
      row.theirs,
      row.theirRatio.toFixed(2),
      row.ours,
      row.ourRatio.toFixed(2),
      saved,
    ];
    return `| ${cells.join(" | ")} |`;
  });
  return [
    `### Comparison with ${baseline}`,
    "",
    `| Text | Bytes | ${baseline} tokens | ${baseline} ratio | Ours tokens | Ours ratio | Relative diff % |`,
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ...lines,
    "",
  ].join("\n");
}

/** Writes the rows of one tokenizer alone as a Markdown table. */
export function ratioTable(rows: readonly TextRow[]): string {
  const lines = rows.map(({ name, bytes, ours, ourRatio }) =>
    `| ${name} | ${bytes} | ${ours} | ${ourRatio.toFixed(2)} |`
  );
  return ["| Text | Bytes | Tokens | Ratio |", "| --- | ---: | ---: | ---: |", ...lines, ""].join("\n");
}
