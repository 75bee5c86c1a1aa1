/** `nanochat selftest`: whether this machine's device computes what it should. */
import { selftest, type SelftestRow } from "../bench/selftest.ts";
import { Device, type DeviceType } from "../tensor/device.ts";
import type { Terminal } from "./progress.ts";
import { EXIT } from "./signals.ts";

const TYPES = { f32: "fp32", bf16: "bf16" };

/** Runs every kernel and shows the errors; returns 0, 1 where one is wrong. */
export async function runSelftest(
  { deviceType, terminal }: { readonly deviceType: DeviceType; readonly terminal: Terminal },
): Promise<number> {
  using device = Device.choose(deviceType);
  const { name, kind } = device.info();
  const rows = await selftest(device);
  const failed = rows.filter(({ problem }) => problem !== null);
  terminal.result(selftestTable(rows, { name, kind }), {
    device: name,
    reference: kind === "cpu" ? "plain loops" : "the CPU library",
    rows: rows.map((row) => ({ ...row, dtype: TYPES[row.dtype], ok: row.problem === null })),
  });
  if (failed.length === 0) return EXIT.DONE;
  terminal.error(
    `Cannot trust ${kind} device "${name}": ${failed.length} of ${rows.length} checks failed, expected none`,
  );
  return EXIT.FAILED;
}

/** Writes the rows as a table under a line that says what was compared with what. */
export function selftestTable(
  rows: readonly SelftestRow[],
  { name, kind }: { readonly name: string; readonly kind: "cpu" | "cuda" },
): string {
  const line = (op: string, dtype: string, error: string, end: string) =>
    `${op.padEnd(20)} ${dtype.padEnd(5)} ${error.padStart(8)}  ${end}`;
  const head = kind === "cpu"
    ? `No CUDA device is used; ${name} against plain loops, where an operation has one, and against itself`
    : `${name} against the CPU library, and against itself`;
  return [
    head,
    line("operation", "type", "error", ""),
    ...rows.map(({ op, dtype, error, problem }) => {
      const figure = error === null ? "-" : error === Infinity ? "inf" : error.toFixed(3);
      return line(op, TYPES[dtype], figure, problem === null ? "ok" : `FAILED: ${problem}`);
    }),
    "error: the largest one, in units of what rounding and the order of summation allow",
  ].map((text) => text.trimEnd()).join("\n");
}
