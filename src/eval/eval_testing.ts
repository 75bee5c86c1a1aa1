/** What tests of evaluations share: a byte tokenizer, a small random model, and a CORE bundle written into a folder. */
import { join } from "@std/path";
import { SPECIAL_TOKENS, Tokenizer } from "../data/tokenizer.ts";
import { GPT } from "../model/gpt.ts";
import { Device } from "../tensor/device.ts";

/** Makes a tokenizer of single bytes, words apart, with the chat's special tokens. */
export function byteTokenizer(extra: readonly string[] = []): Promise<Tokenizer> {
  const tokens = Array.from({ length: 256 }, (_, byte) => Uint8Array.of(byte));
  const merged = extra.map((text) => new TextEncoder().encode(text));
  const first = tokens.length + merged.length;
  const specials = Object.fromEntries(SPECIAL_TOKENS.map((name, i) => [name, first + i]));
  return Tokenizer.fromParts({ pattern: String.raw`\s+|\S+`, tokens: [...tokens, ...merged], specials });
}

/** A model of two layers with random weights everywhere, on a device of its own. */
export class TestModel implements Disposable {
  readonly device: Device;
  readonly model: GPT;

  /** Draws weights for a vocabulary; the same each time. */
  constructor(vocabSize: number, sequenceLen = 64) {
    this.device = Device.open("cpu", { threads: 1 });
    const config = { sequenceLen, vocabSize, nLayer: 2, nHead: 2, nKvHead: 1, nEmbd: 32 };
    this.model = new GPT(this.device, config, { dtype: "f32", training: false });
    const { nc, ctx } = this.device;
    for (const [i, { master, size }] of this.model.parameters.all().entries()) {
      nc.normal(ctx, master.pointer, BigInt(size), BigInt(i), 0n, 0, 0.3);
    }
    this.model.parameters.refreshCopies();
    this.model.packForInference();
  }

  /** Frees model and device. */
  [Symbol.dispose](): void {
    this.model[Symbol.dispose]();
    this.device[Symbol.dispose]();
  }
}

/** A task of a test bundle and the lines of its file. */
export interface TestTask {
  readonly label: string;
  readonly type: string;
  readonly shots?: number;
  readonly delimiter?: string;
  readonly lines: readonly unknown[];
}

/** Tasks of every type, with shots, and choices that differ in number and length. */
export const TEST_TASKS: readonly TestTask[] = [
  {
    label: "choices",
    type: "multiple_choice",
    shots: 2,
    delimiter: "\nAnswer: ",
    lines: Array.from({ length: 9 }, (_, i) => ({
      query: `Which of them is number ${i}${" indeed".repeat(i % 3)}?`,
      choices: ["one", "two of them", "three", "x"].slice(0, 2 + i % 3),
      gold: i % 2,
    })),
  },
  {
    label: "contexts",
    type: "schema",
    lines: Array.from({ length: 6 }, (_, i) => ({
      context_options: [`The dog saw the cat ${i} times as the dog`, "The cat as the cat"],
      continuation: "was there",
      gold: i % 2,
    })),
  },
  {
    label: "texts",
    type: "language_modeling",
    shots: 1,
    lines: Array.from({ length: 7 }, (_, i) => ({ context: ` ${"la ".repeat(i + 1)}`, continuation: "l" })),
  },
];

/** Writes a bundle. */
export function writeBundle(folder: string, tasks: readonly TestTask[] = TEST_TASKS): void {
  Deno.mkdirSync(join(folder, "eval_data", "x"), { recursive: true });
  const entries = tasks.map(({ label, type, shots = 0, delimiter }) =>
    [
      "-",
      `  label: ${label}`,
      `  dataset_uri: x/${label}.jsonl`,
      `  num_fewshot: [${shots}]`,
      `  icl_task_type: ${type}`,
      ...(delimiter === undefined ? [] : [`  continuation_delimiter: ${JSON.stringify(delimiter)}`]),
      "  has_categories: true",
    ].join("\n")
  );
  Deno.writeTextFileSync(join(folder, "core.yaml"), `icl_tasks:\n${entries.join("\n")}\n`);
  const rows = tasks.map(({ label }) => `${label},"a ""kind"", and\nmore",50.0`);
  Deno.writeTextFileSync(join(folder, "eval_meta_data.csv"), `Eval Task,Kind,Random baseline\n${rows.join("\n")}\n`);
  for (const { label, lines } of tasks) {
    const text = lines.map((line) => typeof line === "string" ? line : JSON.stringify(line)).join("\n");
    Deno.writeTextFileSync(join(folder, "eval_data", "x", `${label}.jsonl`), `${text}\n`);
  }
}
