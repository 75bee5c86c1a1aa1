/** How long a run has taken, over all its attempts, and what that costs where the price of an hour is known. */

/** Counts the time of a run: what earlier attempts took up to the checkpoint that is resumed, and this one. */
export class RunClock {
  readonly #beforeMs: number;
  readonly #startMs: number;
  readonly #now: () => number;
  readonly #pricePerHour: number | undefined;

  /** Starts the clock of an attempt. */
  constructor(
    { beforeMs = 0, pricePerHour, now = () => performance.now() }: {
      beforeMs?: number;
      pricePerHour?: number;
      now?: () => number;
    },
  ) {
    this.#beforeMs = beforeMs;
    this.#pricePerHour = pricePerHour;
    this.#now = now;
    this.#startMs = now();
  }

  /** Time of all attempts so far: everything counts that the machine was held for, evaluation and saving too. */
  get wallMs(): number {
    return this.#beforeMs + this.#now() - this.#startMs;
  }

  /** What that costs, in the unit of the price; undefined without a price. */
  get cost(): number | undefined {
    return this.#pricePerHour === undefined ? undefined : this.wallMs / 3.6e6 * this.#pricePerHour;
  }

  /** Writes the cost so far and at the end, as it follows from the updates of this attempt; undefined without a price. */
  costText({ done, left }: { done: number; left: number }): string | undefined {
    if (this.cost === undefined) return undefined;
    const perUpdate = (this.#now() - this.#startMs) / done / 3.6e6 * this.#pricePerHour!;
    return `${money(this.cost)} of about ${money(this.cost + left * perUpdate)}`;
  }
}

/** Writes an amount: cents, or, below ten cents, as many digits as it takes to see it grow. */
export function money(amount: number): string {
  return `$${amount >= 0.1 || amount === 0 ? amount.toFixed(2) : amount.toPrecision(2)}`;
}
