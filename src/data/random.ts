/**
 * The two random generators whose exact draws the data depends on: Python's `random.Random` (MT19937, Matsumoto and Nishimura 1998) for
 * task rows, mixtures and few-shot choices, and NumPy's `default_rng(seed).permutation` (PCG64, O'Neill 2014) for the order of a hub
 * data set. Draw by draw equal to both (`random_test.ts` holds recorded values). Neither is used on a device: that is Philox.
 */

const N = 624;
const M = 397;

/** Python's `random.Random(seed)`: the same seed gives the same draws. */
export class Random {
  readonly #state = new Uint32Array(N);
  #next = N;

  /** Seeds as `init_by_array` does with the 32-bit words of |seed|, low word first. */
  constructor(seed: number | bigint) {
    let rest = BigInt(seed);
    if (rest < 0n) rest = -rest;
    const key: number[] = [];
    do {
      key.push(Number(rest & 0xffffffffn));
      rest >>= 32n;
    } while (rest > 0n);
    const s = this.#state;
    s[0] = 19650218;
    for (let i = 1; i < N; i++) s[i] = Math.imul(1812433253, s[i - 1] ^ (s[i - 1] >>> 30)) + i;
    let i = 1;
    let j = 0;
    for (let k = Math.max(N, key.length); k > 0; k--) {
      s[i] = (s[i] ^ Math.imul(s[i - 1] ^ (s[i - 1] >>> 30), 1664525)) + key[j] + j;
      if (++i >= N) {
        s[0] = s[N - 1];
        i = 1;
      }
      if (++j >= key.length) j = 0;
    }
    for (let k = N - 1; k > 0; k--) {
      s[i] = (s[i] ^ Math.imul(s[i - 1] ^ (s[i - 1] >>> 30), 1566083941)) - i;
      if (++i >= N) {
        s[0] = s[N - 1];
        i = 1;
      }
    }
    s[0] = 0x80000000;
  }

  /** Draws 32 bits. */
  #draw(): number {
    const s = this.#state;
    if (this.#next === N) {
      for (let i = 0; i < N; i++) {
        const y = (s[i] & 0x80000000) | (s[(i + 1) % N] & 0x7fffffff);
        s[i] = s[(i + M) % N] ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
      }
      this.#next = 0;
    }
    let y = s[this.#next++];
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  }

  /** Draws a number in [0, 1) with 53 random bits. */
  random(): number {
    const high = this.#draw() >>> 5;
    return (high * 67108864 + (this.#draw() >>> 6)) / 9007199254740992;
  }

  /** Draws an integer of `bits` (1 to 32) random bits. */
  getRandBits(bits: number): number {
    return this.#draw() >>> (32 - bits);
  }

  /** Draws an integer in [0, n), n at least 1 and below 2^32. */
  below(n: number): number {
    if (!(n >= 1 && n < 4294967296)) throw new RangeError(`Cannot draw below ${n}: expected 1 to 4294967295`);
    const bits = 32 - Math.clz32(n);
    let value = this.getRandBits(bits);
    while (value >= n) value = this.getRandBits(bits);
    return value;
  }

  /** Draws an integer in [low, high], both ends included. */
  randInt(low: number, high: number): number {
    return low + this.below(high - low + 1);
  }

  /** Draws one item of a list that is not empty. */
  choice<T>(items: ArrayLike<T>): T {
    return items[this.below(items.length)];
  }

  /** Shuffles a list in place. */
  shuffle<T>(items: { length: number; [index: number]: T }): void {
    for (let i = items.length - 1; i > 0; i--) {
      const j = this.below(i + 1);
      const item = items[i];
      items[i] = items[j];
      items[j] = item;
    }
  }

  /** Draws `k` different items in random order. */
  sample<T>(items: ArrayLike<T>, k: number): T[] {
    const n = items.length;
    if (k < 0 || k > n) throw new RangeError(`Cannot sample ${k} items: the list has ${n}`);
    // Python's two ways draw differently: a pool for short lists, redrawing for long ones. The border is part of the result.
    let limit = 21;
    if (k > 5) limit += 4 ** Math.ceil(Math.log(k * 3) / Math.log(4));
    const result: T[] = [];
    if (n <= limit) {
      const pool = Array.from(items);
      for (let i = 0; i < k; i++) {
        const j = this.below(n - i);
        result.push(pool[j]);
        pool[j] = pool[n - i - 1];
      }
      return result;
    }
    const taken = new Set<number>();
    for (let i = 0; i < k; i++) {
      let j = this.below(n);
      while (taken.has(j)) j = this.below(n);
      taken.add(j);
      result.push(items[j]);
    }
    return result;
  }
}

const MASK_64 = (1n << 64n) - 1n;
const MASK_128 = (1n << 128n) - 1n;
const PCG_MULTIPLIER = 0x2360ed051fc65da44385df649fccf645n;

/** Expands a 32-bit seed to PCG64's state and increment, as NumPy's SeedSequence does. */
function pcg64Seed(seed: number): { state: bigint; increment: bigint } {
  let h = 0x43b0d7e5;
  const hashMix = (value: number): number => {
    value ^= h;
    h = Math.imul(h, 0x931e8875);
    value = Math.imul(value, h);
    return value ^ (value >>> 16);
  };
  const mix = (x: number, y: number): number => {
    const z = Math.imul(0xca01f9dd, x) - Math.imul(0x4973f715, y);
    return z ^ (z >>> 16);
  };
  const pool = [seed, 0, 0, 0].map(hashMix);
  for (let from = 0; from < 4; from++) {
    for (let to = 0; to < 4; to++) {
      if (to !== from) pool[to] = mix(pool[to], hashMix(pool[from]));
    }
  }
  let g = 0x8b51f9dd;
  const words: bigint[] = [];
  for (let i = 0; i < 8; i++) {
    let value = pool[i % 4] ^ g;
    g = Math.imul(g, 0x58f38ded);
    value = Math.imul(value, g);
    words.push(BigInt((value ^ (value >>> 16)) >>> 0));
  }
  const q = [0, 2, 4, 6].map((i) => words[i] | (words[i + 1] << 32n));
  const increment = (((q[2] << 64n) | q[3]) * 2n + 1n) & MASK_128;
  const state = ((increment + ((q[0] << 64n) | q[1])) * PCG_MULTIPLIER + increment) & MASK_128;
  return { state, increment };
}

/** Returns NumPy's `default_rng(seed).permutation(n)`, which is also the order of the hub library's `shuffle(seed)`. */
export function numpyPermutation(seed: number, n: number): Uint32Array {
  if (!(Number.isInteger(seed) && seed >= 0 && seed < 4294967296)) {
    throw new RangeError(`Cannot seed a permutation: seed is ${seed}, expected an integer from 0 to 4294967295`);
  }
  let { state, increment } = pcg64Seed(seed);
  let kept = -1; // the unused high half of the last 64-bit draw
  const draw32 = (): number => {
    if (kept >= 0) {
      const value = kept;
      kept = -1;
      return value;
    }
    state = (state * PCG_MULTIPLIER + increment) & MASK_128;
    const folded = ((state >> 64n) ^ state) & MASK_64;
    const turn = state >> 122n;
    const value = ((folded >> turn) | (folded << (64n - turn))) & MASK_64;
    kept = Number(value >> 32n);
    return Number(value & 0xffffffffn);
  };
  const order = Uint32Array.from({ length: n }, (_, i) => i);
  for (let i = n - 1; i > 0; i--) {
    const mask = 0xffffffff >>> Math.clz32(i);
    let j = (draw32() & mask) >>> 0;
    while (j > i) j = (draw32() & mask) >>> 0;
    const item = order[i];
    order[i] = order[j];
    order[j] = item;
  }
  return order;
}

/** Returns the low 31 bits of Python's hash of a tuple of small non-negative integers (xxHash style): the seed of an RL rollout. */
export function pythonTupleHash31(items: readonly number[]): number {
  let acc = 2870177450012600261n;
  for (const item of items) {
    acc = (acc + BigInt(item) * 14029467366897019727n) & MASK_64;
    acc = ((acc << 31n) | (acc >> 33n)) & MASK_64;
    acc = (acc * 11400714785074694791n) & MASK_64;
  }
  acc = (acc + (BigInt(items.length) ^ (2870177450012600261n ^ 3527539n))) & MASK_64;
  if (acc === MASK_64) acc = 1546275796n;
  return Number(acc & 0x7fffffffn);
}
