/**
 * How the next token is chosen: the settings of a request, and the device buffers that `nc_sample` reads them from.
 *
 *   p = softmax(logits / temperature) over the topK largest logits (lowest id first among equals), cut to the smallest set of mass topP
 *   id = inverse of the cumulative p at Philox4x32-10(seed, position, sample)
 *
 * Penalties and biases are added to the logits first; log-probabilities are those of the logits as the model gave them.
 *
 * A row's draw depends on its seed, its sample number and the position of the token alone: an answer is the same alone, in a batch, and
 * however its prompt was cut. Temperature 0 takes the largest logit, the lowest id among equals.
 */

/** Settings of one request. */
export interface Sampling {
  /** 0 = greedy. */
  readonly temperature: number;
  /** Choose among this many; 0 = all. */
  readonly topK: number;
  /** Choose among the most probable that together reach this mass; 1 = all. */
  readonly topP: number;
  /** Any integer; the low 64 bits count. */
  readonly seed: number | bigint;
}

/** Changes to a row's logits before its next token is chosen (as OpenAI's API defines them). */
export interface Penalties {
  /** Taken from the logit of a token for each time the answer has it; 0. */
  readonly frequencyPenalty: number;
  /** Taken from the logit of a token once where the answer has it; 0. */
  readonly presencePenalty: number;
  /** Added to the logits of these ids; none. */
  readonly logitBias: ReadonlyMap<number, number>;
}

/** What the reference's engine uses where a caller says nothing (engine.py, Engine.generate), sampling from all tokens. */
export const DEFAULT_SAMPLING: Sampling = { temperature: 1, topK: 0, topP: 1, seed: 42 };

/** Settings of one row for one draw. */
export interface Draw extends Sampling {
  /** Number of the row among those of one prompt and seed. */
  readonly sample: number;
  /** Position of the token that is drawn. */
  readonly position: number;
  /** What is added to the logits of ids; nothing. */
  readonly changes?: ReadonlyMap<number, number>;
  /** How many of the most probable tokens are wanted; without it none. */
  readonly topLogprobs?: number;
}

/** A token that might have been drawn. */
export interface Candidate {
  /** What it is. */
  readonly id: number;
  /** log p at temperature 1, nothing cut or changed. */
  readonly logprob: number;
}

/** Chosen tokens of all rows. */
export interface Drawn {
  /** Chosen id of each row. */
  readonly ids: Int32Array;
  /** log p of each chosen token at temperature 1, nothing cut or changed. */
  readonly logprobs: Float32Array;
  /** The most probable tokens of each row, best first, the lowest id among equals; undefined where none were asked for. */
  readonly top: readonly (readonly Candidate[] | undefined)[];
}

/** Largest `topLogprobs`. */
export const MOST_TOP_LOGPROBS = 20;

/** Smallest normal float32, as which settings reach the device: below it the reciprocal of a temperature has no such form. */
const LEAST = 2 ** -126;

/**
 * Fills in and checks settings; those too small for the device become the ones that mean the same.
 *
 * @throws {RangeError} naming the setting that is out of range.
 */
export function checkSampling(options: Partial<Sampling>): Sampling {
  const { temperature, topK, topP, seed } = { ...DEFAULT_SAMPLING, ...defined(options) };
  if (!(temperature >= 0 && temperature < Infinity)) {
    throw new RangeError(`Cannot sample: temperature is ${temperature}, expected 0 or more`);
  }
  if (!Number.isInteger(topK) || topK < 0 || topK > 0x7fffffff) {
    throw new RangeError(`Cannot sample: topK is ${topK}, expected an integer, 0 = all tokens`);
  }
  if (!(topP > 0 && topP <= 1)) {
    throw new RangeError(`Cannot sample: topP is ${topP}, expected more than 0 and at most 1`);
  }
  if (typeof seed === "number" && !Number.isSafeInteger(seed)) {
    throw new RangeError(`Cannot sample: seed is ${seed}, expected an integer`);
  }
  return { temperature: temperature < LEAST ? 0 : temperature, topK, topP: Math.max(topP, LEAST), seed };
}

/** Largest penalty and largest bias that OpenAI's API takes. */
const [MOST_PENALTY, MOST_BIAS] = [2, 100];

/**
 * Checks penalties and biases; returns null where they change nothing.
 *
 * @throws {RangeError} naming the setting that is out of range.
 */
export function checkPenalties(options: Partial<Penalties>, vocabSize: number): Penalties | null {
  const { frequencyPenalty = 0, presencePenalty = 0, logitBias = new Map() } = options;
  for (const [name, value] of Object.entries({ frequencyPenalty, presencePenalty })) {
    if (!(Math.abs(value) <= MOST_PENALTY)) {
      throw new RangeError(`Cannot sample: ${name} is ${value}, expected ${-MOST_PENALTY} to ${MOST_PENALTY}`);
    }
  }
  for (const [id, bias] of logitBias) {
    if (!Number.isInteger(id) || id < 0 || id >= vocabSize) {
      throw new RangeError(`Cannot sample: logitBias names the token ${id}, expected 0 to ${vocabSize - 1}`);
    }
    if (!(Math.abs(bias) <= MOST_BIAS)) {
      throw new RangeError(`Cannot sample: logitBias of ${id} is ${bias}, expected ${-MOST_BIAS} to ${MOST_BIAS}`);
    }
  }
  if (frequencyPenalty === 0 && presencePenalty === 0 && logitBias.size === 0) return null;
  return { frequencyPenalty, presencePenalty, logitBias };
}

/** What penalties and biases add to the logits of one row, as its answer grows. */
export class LogitChanges {
  /** What is added, by id. */
  readonly values: Map<number, number>;
  readonly #penalties: Penalties;
  readonly #counts = new Map<number, number>();

  constructor(penalties: Penalties) {
    this.#penalties = penalties;
    this.values = new Map(penalties.logitBias);
  }

  /** Takes the next token of the answer. */
  count(id: number): void {
    const { frequencyPenalty, presencePenalty, logitBias } = this.#penalties;
    if (frequencyPenalty === 0 && presencePenalty === 0) return;
    const count = (this.#counts.get(id) ?? 0) + 1;
    this.#counts.set(id, count);
    this.values.set(id, (logitBias.get(id) ?? 0) - frequencyPenalty * count - presencePenalty);
  }
}

/** Draws a seed for a request that gave none. */
export function freshSeed(): number {
  return crypto.getRandomValues(new Uint32Array(1))[0] >>> 1;
}

function defined<T extends object>(options: T): T {
  return Object.fromEntries(Object.entries(options).filter(([_, value]) => value !== undefined)) as T;
}

/** The settings of all rows in the layout of `nc_sample`: one array a setting, behind each other in one buffer. */
export class SamplingColumns {
  /** Words of 4 bytes that a row takes. */
  static readonly WORDS = 8;
  /** What is uploaded: (WORDS, rows). */
  readonly words: Int32Array<ArrayBuffer>;
  /** First word of each argument of `nc_sample` in its order, then of the counts of `nc_top_logprobs`. */
  readonly offsets: readonly number[];
  readonly seeds: BigUint64Array<ArrayBuffer>;
  readonly samples: Int32Array<ArrayBuffer>;
  readonly draws: Int32Array<ArrayBuffer>;
  readonly temperatures: Float32Array<ArrayBuffer>;
  readonly topK: Int32Array<ArrayBuffer>;
  readonly topP: Float32Array<ArrayBuffer>;
  readonly topLogprobs: Int32Array<ArrayBuffer>;

  constructor(rows: number) {
    this.words = new Int32Array(SamplingColumns.WORDS * rows);
    this.offsets = [0, 2, 3, 4, 5, 6, 7].map((word) => word * rows); // seeds are of 8 bytes
    const { buffer } = this.words;
    const [seeds, samples, draws, temperatures, topK, topP, topLogprobs] = this.offsets.map((word) => 4 * word);
    this.seeds = new BigUint64Array(buffer, seeds, rows);
    this.samples = new Int32Array(buffer, samples, rows);
    this.draws = new Int32Array(buffer, draws, rows);
    this.temperatures = new Float32Array(buffer, temperatures, rows);
    this.topK = new Int32Array(buffer, topK, rows);
    this.topP = new Float32Array(buffer, topP, rows);
    this.topLogprobs = new Int32Array(buffer, topLogprobs, rows);
  }

  /** Sets the settings of a row. */
  set(row: number, draw: Draw): void {
    this.seeds[row] = BigInt.asUintN(64, BigInt(draw.seed));
    this.samples[row] = draw.sample;
    this.draws[row] = draw.position;
    this.temperatures[row] = draw.temperature;
    this.topK[row] = draw.topK;
    this.topP[row] = draw.topP;
    this.topLogprobs[row] = draw.topLogprobs ?? 0;
  }
}

/** Writes the changes of all rows in the layout of `nc_sample`: starts (rows + 1), ids, values f32; null where no row has any. */
export function writeChanges(
  draws: readonly Draw[],
): { readonly words: Int32Array<ArrayBuffer>; readonly size: number } | null {
  const size = draws.reduce((sum, { changes }) => sum + (changes?.size ?? 0), 0);
  if (size === 0) return null;
  const ids = draws.length + 1;
  const words = new Int32Array(ids + 2 * size);
  const values = new Float32Array(words.buffer, 4 * (ids + size), size);
  let at = 0;
  draws.forEach(({ changes }, row) => {
    for (const [id, value] of changes ?? []) {
      words[ids + at] = id;
      values[at++] = value;
    }
    words[row + 1] = at;
  });
  return { words, size };
}
