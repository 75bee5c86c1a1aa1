/**
 * How far an accuracy may be off by the choice of the questions: percentile intervals of the bootstrap (Efron 1979).
 *
 * Drawing n of n answers with replacement and counting the right ones is a draw from Binomial(n, right / n), so that no answer has to be
 * drawn one by one: the count is found by inverting the distribution.
 */
import { Random } from "../data/random.ts";

/** Right answers of one task. */
export interface Count {
  /** Answers that were right. */
  readonly right: number;
  /** All answers. */
  readonly total: number;
}

/** A closed interval. */
export type Interval = readonly [low: number, high: number];

const RESAMPLES = 2000;
const SEED = 1337;

/** Resamples the tasks and gives the middle 95 % of a statistic of their accuracies. Same counts, same interval. */
export function bootstrapInterval(counts: readonly Count[], statistic: (accuracies: number[]) => number): Interval {
  const random = new Random(SEED);
  const tables = counts.map(cumulative);
  const values = Float64Array.from(
    { length: RESAMPLES },
    () => statistic(tables.map((table) => lowerBound(table, random.random()) / (table.length - 1))),
  ).sort();
  return [values[Math.floor(0.025 * (RESAMPLES - 1))], values[Math.ceil(0.975 * (RESAMPLES - 1))]];
}

/** P(X <= k) for k = 0..n, X of Binomial(n, right / n). */
function cumulative({ right, total }: Count): Float64Array {
  const p = right / total;
  const table = new Float64Array(total + 1);
  if (p === 0 || p === 1) return table.fill(p === 0 ? 1 : 0).fill(1, total);
  // Outwards from the most probable count, whose weight is 1, so that nothing underflows where it matters.
  const mode = Math.min(total, Math.floor((total + 1) * p));
  table[mode] = 1;
  for (let k = mode; k < total; k++) table[k + 1] = table[k] * ((total - k) / (k + 1)) * (p / (1 - p));
  for (let k = mode; k > 0; k--) table[k - 1] = table[k] * (k / (total - k + 1)) * ((1 - p) / p);
  const sum = table.reduce((a, b) => a + b, 0);
  let running = 0;
  return table.map((weight) => (running += weight) / sum);
}

/** The first index whose value is above u. */
function lowerBound(table: Float64Array, u: number): number {
  let [low, high] = [0, table.length - 1];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (table[middle] > u) high = middle;
    else low = middle + 1;
  }
  return low;
}
