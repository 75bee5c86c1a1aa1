/** What tests of several layers share: the seed, the length of random tests, temporary folders, damaged files. */
import { assert } from "@std/assert";

/** Returns the seed of a random test (`NANOCHAT_TEST_SEED`, else a fixed one) and prints it. */
export function testSeed(): number {
  const seed = Number(Deno.env.get("NANOCHAT_TEST_SEED") ?? 20260101);
  console.log(`NANOCHAT_TEST_SEED=${seed}`);
  return seed;
}

/** Returns how often a random test repeats: `runs`, in the slow tier `NANOCHAT_TEST_FACTOR` times as often. */
export function testRuns(runs: number): number {
  return runs * Number(Deno.env.get("NANOCHAT_TEST_FACTOR") ?? 1);
}

/** Makes a temporary folder that is removed at the end of the scope. */
export function temporaryFolder(): Disposable & { readonly path: string } {
  const path = Deno.makeTempDirSync({ prefix: "nanochat_test_" });
  return { path, [Symbol.dispose]: () => Deno.removeSync(path, { recursive: true }) };
}

/** Numbers of a small generator (mulberry32): the same for the same seed. */
export class TestRandom {
  #state: number;

  /** Starts the sequence of a seed. */
  constructor(seed: number) {
    this.#state = seed | 0;
  }

  /** Draws a whole number of 0 to `n - 1`. */
  below(n: number): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let z = this.#state;
    z = Math.imul(z ^ (z >>> 15), z | 1);
    z ^= z + Math.imul(z ^ (z >>> 7), z | 61);
    return Math.floor((((z ^ (z >>> 14)) >>> 0) / 2 ** 32) * n);
  }

  /** Draws one of a list. */
  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)];
  }
}

const EXTREMES = [0n, 1n, -1n, 127n, 128n, 65535n, 2n ** 31n - 1n, 2n ** 31n, 2n ** 32n - 1n, 2n ** 63n - 1n];
const EXTREME_TEXTS = [
  "-1",
  "0",
  "1e999",
  "1.5",
  "2147483648",
  "9007199254740993",
  "9".repeat(400),
  "null",
  "[]",
  "{}",
];
const STRUCTURE = [...new TextEncoder().encode("{}[]()\",:=#'\\ \n\r\t\0"), 0xff, 0xc3];

/** Puts `part` in the place of `length` bytes at `at`. */
function splice(bytes: Uint8Array, { at, length, part }: { at: number; length: number; part: ArrayLike<number> }) {
  const tail = bytes.subarray(Math.min(at + length, bytes.length));
  const joined = new Uint8Array(at + part.length + tail.length);
  joined.set(bytes.subarray(0, at));
  joined.set(part, at);
  joined.set(tail, at + part.length);
  return joined;
}

/** Overwrites a number by an extreme: the digits at or behind a place, or 1 to 8 bytes in little-endian order. */
function extreme(bytes: Uint8Array, at: number, random: TestRandom): Uint8Array {
  const isDigit = (i: number) => bytes[i] >= 0x30 && bytes[i] <= 0x39;
  let from = at;
  while (from < bytes.length && from < at + 64 && !isDigit(from)) from++;
  if (isDigit(from) && random.below(2) === 0) {
    let end = from;
    while (isDigit(end)) end++;
    while (from > 0 && isDigit(from - 1)) from--;
    return splice(bytes, { at: from, length: end - from, part: new TextEncoder().encode(random.pick(EXTREME_TEXTS)) });
  }
  const value = new Uint8Array(8);
  new DataView(value.buffer).setBigInt64(0, random.pick(EXTREMES), true);
  const part = value.subarray(0, random.pick([1, 2, 4, 8]));
  return splice(bytes, { at, length: part.length, part });
}

/**
 * Damages a file in one to three ways: flipped bits, a cut, inserted, duplicated or removed parts, signs of a text format, and lengths
 * overwritten by extremes. Half of the places lie in the first or last 64 bytes, where most formats keep theirs.
 */
export function mutate(whole: Uint8Array, random: TestRandom): Uint8Array<ArrayBuffer> {
  let bytes = Uint8Array.from(whole);
  for (let changes = random.pick([1, 1, 1, 2, 3]); changes > 0; changes--) {
    const n = bytes.length;
    const edge = Math.min(n, 64);
    const at = Math.max(
      0,
      random.pick([random.below(n), random.below(n), random.below(edge), n - 1 - random.below(edge)]),
    );
    const length = 1 + random.below(random.pick([8, 64, 512]));
    switch (random.below(8)) {
      case 0:
        bytes = bytes.slice(0, at);
        break;
      case 1:
        bytes = splice(bytes, { at, length: 0, part: Array.from({ length }, () => random.below(256)) });
        break;
      case 2:
        bytes = splice(bytes, { at, length: 0, part: bytes.slice(at, at + length) });
        break;
      case 3:
        bytes = splice(bytes, { at, length, part: [] });
        break;
      case 4:
        bytes = splice(bytes, { at, length: random.below(2), part: [random.pick(STRUCTURE)] });
        break;
      case 5:
      case 6:
        bytes = Uint8Array.from(extreme(bytes, at, random));
        break;
      default:
        for (let flips = 1 + random.below(8); flips > 0 && n > 0; flips--) {
          bytes[flips === 1 ? at : random.below(n)] ^= 1 << random.below(8);
        }
    }
  }
  return bytes;
}

/** Memory of this process in bytes, now and the most since `restart`; elsewhere than on Linux both are what it is now. */
export function processMemory(restart = false): { now: number; peak: number } {
  if (Deno.build.os !== "linux") {
    const { rss } = Deno.memoryUsage();
    return { now: rss, peak: rss };
  }
  if (restart) Deno.writeTextFileSync("/proc/self/clear_refs", "5");
  const status = Deno.readTextFileSync("/proc/self/status");
  const read = (name: string) => 1024 * Number(new RegExp(`^${name}:\\s*(\\d+) kB`, "m").exec(status)![1]);
  return { now: read("VmRSS"), peak: read("VmHWM") };
}

const ROOM_BYTES = 64 * 1024 * 1024;

/** What a reader of a foreign format is tried with. */
export interface MutationTrial {
  /** Whole files, damaged in turn. */
  readonly files: readonly Uint8Array[];
  /** Reads a damaged file; what it gives back without an error must be consistent, which the function checks itself. */
  readonly read: (bytes: Uint8Array<ArrayBuffer>, file: number) => unknown;
  /** Classes of error with which the reader may refuse. */
  readonly errors: readonly (new (...args: never[]) => Error)[];
  /** Least share that must be refused: otherwise the damage did not reach the reader. */
  readonly refused: number;
  /** Damages that are tried; 2,000 unless reading takes long. */
  readonly runs?: number;
}

/**
 * Reads 2,000 seeded damages of files (or `runs`; `NANOCHAT_TEST_FACTOR` times as many in the slow tier): each gives one clear error of the
 * allowed classes or a consistent result, and takes less memory than twice the file and 64 MB.
 */
export async function checkMutations(trial: MutationTrial): Promise<void> {
  const { files, read, errors, refused } = trial;
  const seed = testSeed();
  const runs = testRuns(trial.runs ?? 2000);
  let refusals = 0;
  for (let run = 0; run < runs; run++) {
    const file = run % files.length;
    const bytes = mutate(files[file], new TestRandom(seed + run));
    const before = processMemory(true).now;
    const where = `seed ${seed}, mutation ${run} of file ${file}`;
    try {
      await read(bytes, file);
    } catch (error) {
      if (!errors.some((kind) => error instanceof kind)) throw new Error(`${where}: ${error}`, { cause: error });
      const { message } = error as Error;
      const isClear = message.startsWith("Cannot ") && message.length < 2000 && !/[\r\n]/.test(message);
      assert(isClear, `${where}: ${JSON.stringify(message)}, expected one line of what cannot be done and why`);
      refusals++;
    }
    const grown = processMemory().peak - before;
    assert(grown < 2 * bytes.length + ROOM_BYTES, `${where}: took ${grown} bytes for a file of ${bytes.length}`);
  }
  console.log(`${refusals} of ${runs} mutations refused`);
  assert(refusals >= refused * runs, `only ${refusals} of ${runs} mutations were refused`);
}
