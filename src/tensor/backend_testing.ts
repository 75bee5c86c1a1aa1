/** Which backend the tests of operations, models and training run on: NC_TEST_BACKEND=cpu|cuda|cuda_emu, the CPU without it. */
import type { LibraryKind } from "../native/load.ts";

const KINDS: readonly LibraryKind[] = ["cpu", "cuda", "cuda_emu"];

/** The backend under test. */
export const TEST_BACKEND: LibraryKind = chosen();

function chosen(): LibraryKind {
  const name = Deno.env.get("NC_TEST_BACKEND") || "cpu";
  const kind = KINDS.find((each) => each === name);
  if (kind === undefined) throw new RangeError(`Cannot test backend "${name}", expected ${KINDS.join(", ")}`);
  return kind;
}
