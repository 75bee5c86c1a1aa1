/**
 * Writes what `ptxas` says of each kernel to `dev/bench/ptxas.csv`: `deno run -A dev/ptxas.ts`. Registers, bytes of stack (arrays that an
 * index keeps out of registers), bytes spilled and static shared memory, for sm_80 and sm_90a. Ends with 1 where a kernel of products,
 * norms or the optimizer spills or has a stack.
 */
import { basename, join } from "@std/path";
import { forCards } from "./build_cuda.ts";
import { runChild } from "./process.ts";
import { ROOT } from "./setup.ts";
import { temporaryFolder } from "./testing.ts";

/** A line of the table. */
export interface KernelUse {
  readonly arch: string;
  readonly file: string;
  /** Mangled, as `ptxas` prints it. */
  readonly symbol: string;
  readonly registers: number;
  readonly stack: number;
  readonly spilled: number;
  readonly shared: number;
}

const HOUR = 3_600_000;
const ARCHITECTURES = ["80", "90a"];
/** Files whose kernels keep everything in registers. */
const TIGHT = ["blas.cu", "matmul.cu", "newton_schulz.cu", "optimizer.cu", "rmsnorm.cu", "qk_rope_norm.cu"];
const TABLE = join(ROOT, "dev", "bench", "ptxas.csv");

/** Reads the messages of `ptxas -v` about a file. */
export function readUse(output: string, file: string): KernelUse[] {
  const number = (text: string, pattern: RegExp) => Number(text.match(pattern)?.[1] ?? 0);
  return output.split("Compiling entry function ").slice(1).map((text) => {
    const [, symbol, arch] = text.match(/^'(\S+)' for '(\S+)'/)!;
    return {
      ...{ arch, file, symbol, registers: number(text, /Used (\d+) registers/) },
      ...{ stack: number(text, /(\d+) bytes stack frame/), shared: number(text, /(\d+) bytes smem/) },
      spilled: number(text, /(\d+) bytes spill stores/) + number(text, /(\d+) bytes spill loads/),
    };
  });
}

async function output(command: string, args: readonly string[]): Promise<string> {
  const { code, output } = await runChild({ command, args, cwd: join(ROOT, "kernels_cu"), deadlineMs: HOUR });
  if (code !== 0) throw new Error(`Cannot ask ptxas: "${command} ${args.join(" ")}" ended with ${code}:\n${output}`);
  return output;
}

/** Names without types of parameters and namespaces. */
async function names(symbols: readonly string[]): Promise<string[]> {
  const lines = (await output("c++filt", symbols)).trimEnd().split("\n");
  return lines.map((line) =>
    line.replaceAll("(anonymous namespace)::", "").replace(/^void /, "").replace(/\((?!\d|bool\)|int\)).*$/, "")
  );
}

async function measure(): Promise<KernelUse[]> {
  const { command, flags, sources } = await forCards(["90a"]);
  const own = flags.filter((flag, i) => ![flag, flags[i - 1]].includes("-gencode") && !flag.startsWith("-Xfatbin"));
  using folder = temporaryFolder();
  const uses: KernelUse[] = [];
  for (const arch of ARCHITECTURES) {
    const waiting = [...sources];
    const worker = async () => {
      for (let source = waiting.shift(); source; source = waiting.shift()) {
        const target = [
          "-cubin",
          `-arch=sm_${arch}`,
          "-Xptxas",
          "-v",
          source,
          "-o",
          join(folder.path, `${source}.cubin`),
        ];
        uses.push(...readUse(await output(command, [...own, ...target]), basename(source)));
      }
    };
    await Promise.all(Array.from({ length: navigator.hardwareConcurrency }, worker));
  }
  return uses;
}

if (import.meta.main) {
  const uses = await measure();
  const named = await names(uses.map(({ symbol }) => symbol));
  const rows = uses.map(({ arch, file, registers, stack, spilled, shared }, i) =>
    [arch, file, `"${named[i]}"`, registers, stack, spilled, shared].join(",")
  );
  const table = ["arch,file,kernel,registers,stack_bytes,spill_bytes,shared_bytes", ...rows.sort()];
  await Deno.writeTextFile(TABLE, `${table.join("\n")}\n`);
  const loose = uses.flatMap(({ arch, file, stack, spilled }, i) =>
    TIGHT.includes(file) && stack + spilled > 0
      ? [`${arch} ${file} ${named[i]}: ${stack} bytes of stack, ${spilled} spilled`]
      : []
  );
  console.log([`${uses.length} kernels in ${TABLE}`, ...loose].join("\n"));
  Deno.exit(loose.length > 0 ? 1 : 0);
}
