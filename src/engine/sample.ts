/**
 * How the next token is chosen: the settings of a request, and the device buffers that `nc_sample` reads them from.
 *
 *   p = softmax(logits / temperature) over the topK largest logits (lowest id first among equals), cut to the smallest set of mass topP
 *   id = inverse of the cumulative p at Philox4x32-10(seed, position, sample)
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
}

/** Chosen tokens of all rows. */
export interface Drawn {
  /** Chosen id of each row. */
  readonly ids: Int32Array;
  /** log p of each chosen token at temperature 1, nothing cut. */
  readonly logprobs: Float32Array;
}

/**
 * Fills in and checks settings.
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
  return { temperature, topK, topP, seed };
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
  static readonly WORDS = 7;
  /** What is uploaded: (WORDS, rows). */
  readonly words: Int32Array<ArrayBuffer>;
  /** First word of each argument of `nc_sample`, in its order. */
  readonly offsets: readonly number[];
  readonly seeds: BigUint64Array<ArrayBuffer>;
  readonly samples: Int32Array<ArrayBuffer>;
  readonly draws: Int32Array<ArrayBuffer>;
  readonly temperatures: Float32Array<ArrayBuffer>;
  readonly topK: Int32Array<ArrayBuffer>;
  readonly topP: Float32Array<ArrayBuffer>;

  constructor(rows: number) {
    this.words = new Int32Array(SamplingColumns.WORDS * rows);
    this.offsets = [0, 2, 3, 4, 5, 6].map((word) => word * rows); // seeds are of 8 bytes
    const { buffer } = this.words;
    const [seeds, samples, draws, temperatures, topK, topP] = this.offsets.map((word) => 4 * word);
    this.seeds = new BigUint64Array(buffer, seeds, rows);
    this.samples = new Int32Array(buffer, samples, rows);
    this.draws = new Int32Array(buffer, draws, rows);
    this.temperatures = new Float32Array(buffer, temperatures, rows);
    this.topK = new Int32Array(buffer, topK, rows);
    this.topP = new Float32Array(buffer, topP, rows);
  }

  /** Sets the settings of a row. */
  set(row: number, draw: Draw): void {
    this.seeds[row] = BigInt.asUintN(64, BigInt(draw.seed));
    this.samples[row] = draw.sample;
    this.draws[row] = draw.position;
    this.temperatures[row] = draw.temperature;
    this.topK[row] = draw.topK;
    this.topP[row] = draw.topP;
  }
}
