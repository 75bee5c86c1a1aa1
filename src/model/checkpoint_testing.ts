/** Checkpoints for tests that look at meta and sizes alone. */
import { join } from "@std/path";
import { TOKENIZER_FILE } from "../data/base_dir.ts";
import { type CheckpointMeta, encodeMeta, fileNames, sha256Hex } from "./meta.ts";

/** Writes a checkpoint whose model is one byte, made with the tokenizer `{}`; gives the paths of its files. */
export function fakeCheckpoint(folder: string, meta: Partial<CheckpointMeta> & { readonly step: number }): string[] {
  const names = fileNames(meta.step);
  const model = new Uint8Array([meta.step % 256]);
  const whole: CheckpointMeta = {
    run: "dummy",
    stage: "base",
    valBpb: null,
    config: {},
    flags: {},
    loader: null,
    rng: null,
    loop: null,
    savedAt: "",
    worldSize: 1,
    blockBytes: 1,
    tokenizer: { name: TOKENIZER_FILE, sha256: sha256Hex(new TextEncoder().encode("{}")) },
    files: [{ name: names.model, bytes: 1, sha256: [sha256Hex(model)] }],
    ...meta,
  };
  Deno.mkdirSync(folder, { recursive: true });
  const paths = [join(folder, names.model), join(folder, names.meta)];
  Deno.writeFileSync(paths[0], model);
  Deno.writeFileSync(paths[1], encodeMeta(whole));
  return paths;
}
