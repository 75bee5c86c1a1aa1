/** `nanochat data synth`: conversations about a persona, made by another model. */
import { resolve } from "@std/path";
import { synthesize } from "../../tasks/synth.ts";
import { assetPath } from "../data/assets.ts";
import { resolveBaseDir } from "../data/base_dir.ts";
import { readText } from "../data/text_file.ts";
import { UsageError } from "./flags.ts";
import type { Terminal } from "./progress.ts";
import { EXIT } from "./signals.ts";

/** Makes conversations; returns the exit code. */
export async function synth(
  values: {
    baseDir?: string;
    persona?: string;
    url?: string;
    model?: string;
    numConversations: number;
    numWorkers: number;
    temperature: number;
    keyEnv: string;
    out?: string;
    terminal: Terminal;
    stop: AbortSignal;
  },
): Promise<number> {
  const { persona, url, model, numConversations: count, numWorkers, temperature, terminal, stop } = values;
  if (persona === undefined) throw new UsageError("Cannot make conversations: no persona, expected --persona=FILE");
  if (url === undefined) throw new UsageError("Cannot make conversations: no server, expected --url=URL");
  if (model === undefined) throw new UsageError("Cannot make conversations: no model, expected --model=NAME");
  const out = values.out ? resolve(values.out) : assetPath(resolveBaseDir(values.baseDir), "identity");
  const key = Deno.env.get(values.keyEnv);
  const endpoint = { url, model, key };
  const text = await readText(persona);
  const done = await synthesize({
    persona: text,
    endpoint,
    out,
    count,
    numWorkers,
    temperature,
    signal: stop,
    log: terminal,
  });
  const { conversations, made, failed } = done;
  terminal.result(`${out}  conversations: ${conversations}, made now: ${made}, left out: ${failed}`, { out, ...done });
  if (conversations >= count) return EXIT.DONE;
  terminal.info("Stopped; the same command goes on from here");
  return EXIT.STOPPED;
}
