/** Figures as Prometheus reads them: counters by label, gauges, histograms; text format 0.0.4. */

/** Labels of a figure. */
export type Labels = Readonly<Record<string, string>>;

/** One figure as lines of text. */
export interface Figure {
  readonly name: string;
  readonly help: string;
  readonly type: "counter" | "gauge" | "histogram";
  lines(): string[];
}

function labelText(labels: Labels): string {
  const escaped = (value: string) => value.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");
  const pairs = Object.entries(labels).map(([name, value]) => `${name}="${escaped(value)}"`);
  return pairs.length === 0 ? "" : `{${pairs.join(",")}}`;
}

/** Makes a figure that is asked for when it is read: one value, or several with labels. */
export function figure(
  type: "counter" | "gauge",
  [name, help]: readonly [string, string],
  read: () => number | Iterable<readonly [Labels, number]>,
): Figure {
  return {
    ...{ name, help, type },
    lines: () => {
      const value = read();
      const rows: Iterable<readonly [Labels, number]> = typeof value === "number" ? [[{}, value]] : value;
      return [...rows].map(([labels, value]) => `${name}${labelText(labels)} ${value}`);
    },
  };
}

/** Counts by labels; the caller sees to it that there are few of them. */
export class Counts {
  readonly #counts = new Map<string, { readonly labels: Labels; value: number }>();

  /** Adds one. */
  add(labels: Labels): void {
    const key = labelText(labels);
    const count = this.#counts.get(key);
    if (count) count.value++;
    else this.#counts.set(key, { labels, value: 1 });
  }

  *[Symbol.iterator](): Generator<readonly [Labels, number]> {
    for (const { labels, value } of this.#counts.values()) yield [labels, value];
  }
}

/** How often values of seconds were at most as large as each bound. */
export class Histogram implements Figure {
  readonly name: string;
  readonly help: string;
  readonly type = "histogram";
  readonly #bounds: readonly number[];
  readonly #counts: number[];
  #sum = 0;

  /** Starts empty; the bounds ascend, an infinite one follows the last. */
  constructor([name, help]: readonly [string, string], bounds: readonly number[]) {
    this.name = name;
    this.help = help;
    this.#bounds = bounds;
    this.#counts = Array(bounds.length + 1).fill(0);
  }

  /** Counts a value. */
  observe(value: number): void {
    const i = this.#bounds.findIndex((bound) => value <= bound);
    this.#counts[i < 0 ? this.#bounds.length : i]++;
    this.#sum += value;
  }

  lines(): string[] {
    let total = 0;
    const buckets = [...this.#bounds.map(String), "+Inf"].map((bound, i) => {
      total += this.#counts[i];
      return `${this.name}_bucket{le="${bound}"} ${total}`;
    });
    return [...buckets, `${this.name}_sum ${this.#sum}`, `${this.name}_count ${total}`];
  }
}

/** Writes figures in the order given. */
export function prometheusText(figures: readonly Figure[]): string {
  return figures.map((each) =>
    [`# HELP ${each.name} ${each.help}`, `# TYPE ${each.name} ${each.type}`, ...each.lines(), ""].join("\n")
  ).join("");
}
