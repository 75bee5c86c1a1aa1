/**
 * A byte-level Markov model of order 2: what a model that only looks at the two previous bytes can reach. The yardstick that `run tiny`
 * prints beside the bits per byte of the trained model.
 *
 *   p(c | ab) = (n(abc) + T(ab) p(c | b)) / (n(ab) + T(ab)),   T(ab) = number of different bytes seen after ab
 *
 * (interpolated Witten-Bell smoothing, Witten and Bell 1991; p(c | b) and p(c) likewise, at the bottom p(c) = 1/256). Smoothing by
 * adding one would be simpler and a weaker opponent. A document begins in the context of two zero bytes; its end is not predicted,
 * as in bits per byte of the model.
 */

const encoder = new TextEncoder();

/** What the counts say about pairs and single bytes. */
interface Smoothed {
  readonly pairs: Uint32Array; // n(ab.) at a * 256 + b
  readonly pairKinds: Uint16Array; // T(ab)
  readonly order1: Float64Array; // p(c | b) at b * 256 + c
}

/** Counts of an order-2 model; memory 64 MiB, independent of the amount of text. */
export class Markov2 {
  readonly #triples = new Uint32Array(1 << 24); // n(abc) at a * 65536 + b * 256 + c
  #smoothed: Smoothed | undefined;

  /** Counts a document. */
  add(text: string): void {
    this.#smoothed = undefined;
    const triples = this.#triples;
    let context = 0;
    for (const byte of encoder.encode(text)) {
      const at = (context << 8) | byte;
      triples[at]++;
      context = at & 0xffff;
    }
  }

  /** Sums the counts for the lower orders. */
  #smooth(): Smoothed {
    const pairs = new Uint32Array(1 << 16);
    const pairKinds = new Uint16Array(1 << 16);
    const after = new Float64Array(1 << 16); // n(.bc) at b * 256 + c
    for (let at = 0; at < this.#triples.length; at++) {
      const n = this.#triples[at];
      if (n === 0) continue;
      pairs[at >> 8] += n;
      pairKinds[at >> 8]++;
      after[at & 0xffff] += n;
    }
    const single = new Float64Array(256); // n(..c)
    for (let at = 0; at < after.length; at++) single[at & 0xff] += after[at];
    const order0 = wittenBell(single, new Float64Array(256).fill(1 / 256));
    const order1 = new Float64Array(1 << 16);
    for (let b = 0; b < 256; b++) order1.set(wittenBell(after.subarray(b << 8, (b + 1) << 8), order0), b << 8);
    return { pairs, pairKinds, order1 };
  }

  /** Returns the number of bits that the model needs for a document, and its length in bytes. */
  measure(text: string): { bits: number; bytes: number } {
    this.#smoothed ??= this.#smooth();
    const { pairs, pairKinds, order1 } = this.#smoothed;
    const data = encoder.encode(text);
    let bits = 0;
    let context = 0;
    for (const byte of data) {
      const at = (context << 8) | byte;
      const kinds = pairKinds[context];
      const lower = order1[at & 0xffff];
      const p = kinds === 0 ? lower : (this.#triples[at] + kinds * lower) / (pairs[context] + kinds);
      bits -= Math.log2(p);
      context = at & 0xffff;
    }
    return { bits, bytes: data.length };
  }
}

/** Interpolates counts with a lower-order distribution. */
function wittenBell(counts: Float64Array, lower: Float64Array): Float64Array {
  let total = 0;
  let kinds = 0;
  for (const n of counts) {
    total += n;
    if (n > 0) kinds++;
  }
  if (kinds === 0) return lower;
  return counts.map((n, c) => (n + kinds * lower[c]) / (total + kinds));
}

/**
 * Returns the bits per byte of validation texts under the order-2 model of training texts. Reads both once.
 *
 * @throws RangeError if there is no byte to predict
 */
export function markov2BitsPerByte(trainTexts: Iterable<string>, valTexts: Iterable<string>): number {
  const model = new Markov2();
  for (const text of trainTexts) model.add(text);
  let bits = 0;
  let bytes = 0;
  for (const text of valTexts) {
    const measured = model.measure(text);
    bits += measured.bits;
    bytes += measured.bytes;
  }
  if (bytes === 0) {
    throw new RangeError("Cannot compute bits per byte: the validation texts are empty, expected at least one byte");
  }
  return bits / bytes;
}
