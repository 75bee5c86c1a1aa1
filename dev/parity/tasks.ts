/** `tasks`: the calculator's recorded expressions. Rows, orders and verdicts of the data sets belong to the tasks themselves. */
import { calculate } from "../../src/engine/calculator.ts";
import type { Parity } from "./parity.ts";

/** Compares every recorded expression. */
export function run(t: Parity): Promise<void> {
  for (const { expr, result } of t.json("calculator.json")) {
    t.equal(`calculate(${JSON.stringify(expr)})`, calculate(expr), result);
  }
  t.note(
    /^(tasks\.json|custom_\w+\.jsonl|words_alpha\.txt)$/,
    "rows and orders of the data sets: the pipeline's tasks",
  );
  t.note(/^humaneval\.json$/, "verdicts of programs: the sandbox");
  return Promise.resolve();
}
