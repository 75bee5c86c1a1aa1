/** `nanochat report`: what a run has reached so far. */
import { resolveBaseDir } from "../data/base_dir.ts";
import { findWatched, watchRun } from "../report/watch.ts";
import type { Terminal } from "./progress.ts";

const HEIGHT = 16; // lines; the drawing of a piped call, and the most on a terminal
const WIDTH = 100;

/** Draws the losses of a run: on a terminal anew after each change until the run ends, piped once. */
export async function watch(
  name: string | undefined,
  { baseDir, terminal }: { baseDir?: string; terminal: Terminal },
): Promise<void> {
  const { path, name: found } = findWatched(resolveBaseDir(baseDir), name);
  terminal.info(`Watching ${found} (${path})`);
  const size = () => {
    if (!terminal.isTerminal) return { width: WIDTH, height: HEIGHT };
    const { columns, rows } = Deno.consoleSize();
    return { width: Math.min(columns - 1, 2 * WIDTH), height: Math.max(4, Math.min(HEIGHT, rows - 6)) };
  };
  let drawn = 0;
  for await (const lines of watchRun(path, { size })) {
    if (drawn > 0) terminal.raw(`\x1b[${drawn}A\x1b[J`);
    terminal.result(lines.join("\n"));
    if (!terminal.isTerminal) return;
    drawn = lines.length;
  }
}
