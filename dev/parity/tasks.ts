/** `tasks`: orders, conversations, verdicts and refusals of the data sets, the random draws behind them, and the calculator. All exact. */
import { join } from "@std/path";
import { numpyPermutation, Random } from "../../src/data/random.ts";
import { rowsOf } from "../../src/data/task_data.ts";
import { calculate } from "../../src/engine/calculator.ts";
import { PythonPool } from "../../src/engine/execution.ts";
import { arcTask } from "../../tasks/arc.ts";
import { loadCustomJson } from "../../tasks/customjson.ts";
import { extractAnswer, gsm8kTask } from "../../tasks/gsm8k.ts";
import { extractCode, extractImports, humanEvalTask } from "../../tasks/humaneval.ts";
import { mmluTask } from "../../tasks/mmlu.ts";
import { smolTalkTask } from "../../tasks/smoltalk.ts";
import { readWords, simpleSpelling, spellingBee } from "../../tasks/spellingbee.ts";
import { hubOrder, type Slice, sliceTask, type Task, TaskMixture, TaskSequence } from "../../tasks/task.ts";
import type { Parity } from "./parity.ts";

// deno-lint-ignore no-explicit-any -- recorded JSON
type Golden = any;

/** Compares everything that the folder has. */
export async function run(t: Parity): Promise<void> {
  if (t.has("calculator.json")) {
    for (const { expr, result } of t.json("calculator.json")) {
      t.equal(`calculate(${JSON.stringify(expr)})`, calculate(expr), result);
    }
  }
  if (t.has("tasks.json")) {
    const golden = t.json("tasks.json");
    await hubTask(t, "arc", golden.arc, arcTask(rowsOf(golden.arc.raw_rows)));
    slices(t, golden.arc, arcTask(rowsOf(golden.arc.raw_rows)));
    await hubTask(t, "mmlu", golden.mmlu, mmluTask(rowsOf(golden.mmlu.raw_rows)));
    await hubTask(t, "gsm8k", golden.gsm8k, gsm8kTask(rowsOf(golden.gsm8k.raw_rows)));
    for (const [text, expected] of Object.entries(golden.gsm8k.extract_answer)) {
      t.equal(`gsm8k answer of ${JSON.stringify(text)}`, extractAnswer(text) ?? null, expected);
    }
    await hubTask(t, "smoltalk", golden.smoltalk, smolTalkTask(rowsOf(golden.smoltalk.raw_rows)));
    for (const { row, error } of golden.smoltalk.invalid_rows) {
      const verdict = await attempt(() => smolTalkTask(rowsOf([row])).conversation(0));
      t.equal(`smoltalk refuses ${JSON.stringify(row)} (${error})`, verdict, { error: "refused" });
    }
    await customJson(t, golden.customjson);
    await spelling(t, golden.spelling);
    mixtures(t, golden.mixtures);
    draws(t, golden);
  }
  if (t.has("humaneval.json")) await humanEval(t, t.json("humaneval.json"));
}

/** Order of the shuffle, and each conversation with its verdicts and rewards. */
async function hubTask(t: Parity, name: string, golden: Golden, task: Task): Promise<void> {
  t.equal(
    `${name} order`,
    Array.from({ length: task.length }, (_, i) => hubOrder(task.length)(i)),
    golden.shuffled_order,
  );
  for (const [i, example] of golden.examples.entries()) {
    const conversation = task.conversation(i);
    t.equal(`${name} ${i} conversation`, conversation, example.conversation);
    for (const key of ["evaluate", "reward"] as const) {
      for (const [answer, expected] of Object.entries<Golden>(example[key] ?? {})) {
        const verdict = await attempt(async () => ({ value: Number(await task[key]!(conversation, answer)) }));
        const recorded = "error" in expected ? { error: "refused" } : { value: Number(expected.value) };
        t.equal(`${name} ${i} ${key} ${JSON.stringify(answer)}`, verdict, recorded);
      }
    }
  }
}

function slices(t: Parity, golden: Golden, task: Task): void {
  for (const { start, stop, step, length, first_question_index } of golden.slices) {
    const part = sliceTask(task, { start, stop: stop ?? undefined, step });
    const first = [part.length, part.conversation(0)];
    t.equal(`arc slice ${start}:${stop}:${step}`, first, [length, golden.examples[first_question_index].conversation]);
  }
}

async function customJson(t: Parity, golden: Golden): Promise<void> {
  t.bytes(golden.file);
  const task = await loadCustomJson(join(t.folder, golden.file));
  t.equal("customjson", Array.from({ length: task.length }, (_, i) => task.conversation(i)), golden.examples);
  const folder = Deno.makeTempDirSync();
  try {
    for (const [name, { line, error }] of Object.entries<Golden>(golden.invalid)) {
      const path = join(folder, `${name}.jsonl`);
      Deno.writeTextFileSync(path, `${line}\n`);
      const verdict = await attempt(() => loadCustomJson(path));
      t.equal(`customjson refuses ${line} (${error})`, verdict, { error: "refused" });
    }
    // A missing file has 0 rows in the reference; here it is an error (REFERENCE, improve).
    const verdict = await attempt(() => loadCustomJson(join(folder, "absent.jsonl")));
    t.equal(`customjson refuses a missing file (${golden.missing_file_length} rows)`, verdict, { error: "refused" });
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

async function spelling(t: Parity, golden: Golden): Promise<void> {
  t.bytes("words_alpha.txt");
  const words = await readWords(join(t.folder, "words_alpha.txt"));
  for (const split of ["train", "test"] as const) {
    for (const [i, expected] of golden[split].spelling_bee.entries()) {
      t.equal(`spellingbee ${split} ${i}`, spellingBee(words, { split }).conversation(i), expected);
    }
    for (const [i, expected] of golden[split].simple_spelling.entries()) {
      t.equal(`simplespelling ${split} ${i}`, simpleSpelling(words, { split }).conversation(i), expected);
    }
  }
  const bee = spellingBee(words, { size: 1_000_000, split: "train" });
  for (const [index, expected] of Object.entries(golden.large_index)) {
    t.equal(`spellingbee train ${index}`, bee.conversation(Number(index)), expected);
  }
  // The recorded verdicts are of row 0 of the test split.
  const test = spellingBee(words, { split: "test" });
  for (const { index, response, value, reward } of golden.evaluate) {
    const conversation = test.conversation(index);
    const verdict = [Number(await test.evaluate!(conversation, response)), test.reward!(conversation, response)];
    t.equal(`spellingbee verdict on ${JSON.stringify(response)}`, verdict, [value, reward]);
  }
  const shuffled = [...words];
  new Random(42).shuffle(shuffled);
  t.equal("simplespelling word order", shuffled.slice(0, 20), golden.simple_word_order_first20);
}

/** Mixtures and sequences of tasks whose conversations say where they come from. */
function mixtures(t: Parity, golden: Golden): void {
  const places = (task: Task, count = task.length) =>
    Array.from({ length: count }, (_, i) => JSON.parse(task.conversation(i).messages[0].content as string));
  for (const { sizes, slices, mixture, mixture_slice, sequence, lengths, first_200, total } of golden) {
    const tasks: Task[] = sizes.map((length: number, i: number): Task => ({
      length,
      conversation: (row) => ({ messages: [{ role: "user", content: JSON.stringify([i, row]) }] }),
    }));
    const bounds = ([start, stop, step]: (number | null)[]): Slice => ({
      start: start ?? 0,
      stop: stop ?? undefined,
      step: step ?? 1,
    });
    const parts = slices ? tasks.map((task, i) => sliceTask(task, bounds(slices[i]))) : tasks;
    const name = `mixture of ${sizes.join(", ")}`;
    const mixed = new TaskMixture(parts);
    if (lengths) t.equal(`${name}, lengths`, parts.map(({ length }) => length), lengths);
    if (total !== undefined) t.equal(`${name}, total`, mixed.length, total);
    if (mixture_slice) t.equal(`${name}, slice`, places(sliceTask(mixed, bounds(mixture_slice))), mixture);
    else t.equal(name, first_200 ? places(mixed, 200) : places(mixed), first_200 ?? mixture);
    if (sequence) t.equal(`sequence of ${sizes.join(", ")}`, places(new TaskSequence(parts)), sequence);
  }
}

/** Python's random primitives, one after the other from one generator (the shuffle from a fresh one), and NumPy's permutations. */
function draws(t: Parity, golden: Golden): void {
  const letters = "abcdefghijklmnopqrstuvwxyz";
  const range = (n: number) => Array.from({ length: n }, (_, i) => i);
  for (const [seed, recorded] of Object.entries<Golden>(golden.python_random)) {
    const random = new Random(BigInt(seed));
    const drawn = {
      random: range(5).map(() => random.random()),
      getrandbits32: range(5).map(() => random.getRandBits(32)),
      randrange100: range(8).map(() => random.below(100)),
      choice_abc: range(8).map(() => random.choice(letters)),
      sample_20_5: random.sample(range(20), 5),
      sample_200_10: random.sample(range(200), 10),
      sample_6_6: random.sample(range(6), 6),
      shuffle12: range(12),
    };
    new Random(BigInt(seed)).shuffle(drawn.shuffle12);
    t.equal(`Random(${seed})`, drawn, recorded);
  }
  for (const [name, order] of Object.entries<number[]>(golden.numpy_default_rng_permutation)) {
    const [seed, n] = name.split(":").map(Number);
    t.equal(`permutation ${name}`, numpyPermutation(seed, n).subarray(0, order.length), order);
  }
}

/** Programs whose exception has another text here: no input instead of a refused one, refusals by name, no `quit`, our memory limit. */
const OWN_TEXT = new Set(["stdin", "os_system", "quit", "memory"]);

/** Conversations, how programs are taken out of completions, and what they do in the sandbox with the recorded limits. */
async function humanEval(t: Parity, golden: Golden): Promise<void> {
  await using pool = await PythonPool.open({ timeoutMs: 2000, memoryBytes: 256 << 20 });
  const task = humanEvalTask(rowsOf(golden.raw_rows), async (program) => (await pool.run(program)).kind === "ok");
  const examples = golden.examples.map(({ conversation, completions, evaluate }: Golden) => ({
    conversation,
    evaluate: Object.fromEntries(
      Object.entries<string>(completions).map(([name, answer]) => [answer, { value: evaluate[name] }]),
    ),
  }));
  await hubTask(t, "humaneval", { ...golden, examples }, task);
  for (const { text, value } of golden.extract_program) {
    t.equal(`humaneval code of ${JSON.stringify(text)}`, extractCode(text), value);
  }
  for (const { text, value } of golden.extract_imports) {
    t.equal(`humaneval imports of ${JSON.stringify(text)}`, extractImports(text), value);
  }
  for (const [name, { code, ...recorded }] of Object.entries<Golden>(golden.execute)) {
    const { kind, stdout, stderr, error } = await pool.run(code);
    const ours = {
      success: kind === "ok",
      stdout,
      stderr,
      error: OWN_TEXT.has(name) ? recorded.error : error || null,
      timeout: kind === "timeout",
      memory_exceeded: kind === "memory",
    };
    t.equal(`program ${name}`, ours, recorded);
  }
}

/** The result, or that it was refused. */
async function attempt<T>(work: () => T | Promise<T>): Promise<T | { error: string }> {
  try {
    return await work();
  } catch (error) {
    if (/^Cannot /.test((error as Error).message)) return { error: "refused" };
    throw error;
  }
}
