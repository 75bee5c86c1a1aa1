/** Exported tokenizers in the programs that they are for: equal ids and texts on all golden strings. */
import { assert, assertEquals } from "@std/assert";
import { join } from "@std/path";
import { askPeer, peerTest } from "../../../dev/peers.ts";
import { ROOT } from "../../../dev/setup.ts";
import { nanochat, withFolder } from "../../../dev/cli.ts";
import { Tokenizer } from "../../data/tokenizer.ts";

const GOLDEN = join(ROOT, "dev", "golden", "tokenizer");

interface Judged {
  readonly ids: number[][];
  readonly decoded: string[];
  readonly plain?: number[];
  readonly specials: Record<string, number>;
}

/** Saves a golden vocabulary as ours, exports it with the command and asks a program of `dev/peers/`. */
async function judge(name: string, { format, program }: { format: string; program: string }): Promise<void> {
  const golden = JSON.parse(Deno.readTextFileSync(join(GOLDEN, `${name}.json`)));
  const { encodings } = JSON.parse(Deno.readTextFileSync(join(GOLDEN, `encodings_${name}.json`)));
  const texts: string[] = ["say hello", ...encodings.map(({ text }: { text: string }) => text)];
  assert(texts.length > 50 && texts.some((text) => text.includes("<|")), "golden strings with special names");
  using tokenizer = await Tokenizer.fromParts({
    pattern: golden.split_pattern,
    tokens: golden.mergeable_ranks_base64.map((token: string) => Uint8Array.fromBase64(token)),
    specials: golden.special_tokens,
  });
  await withFolder(async (base) => {
    await tokenizer.save(join(base, "ours"));
    const folder = join(base, "theirs");
    const args = ["export", "tokenizer", `--tokenizer-dir=${join(base, "ours")}`, `--format=${format}`];
    const { code, output } = await nanochat([...args, `--out=${folder}`]);
    assertEquals(code, 0, output);
    const judged = await askPeer<Judged>(program, { folder, texts });
    texts.forEach((text, i) => assertEquals(judged.ids[i], tokenizer.encode(text), JSON.stringify(text)));
    encodings.forEach(({ ids }: { ids: number[] }, i: number) => assertEquals(judged.ids[i + 1], ids));
    assertEquals(judged.decoded, texts);
    assertEquals(judged.specials, golden.special_tokens);
    if (judged.plain) assertEquals(judged.plain, tokenizer.encode(texts[0], { prepend: "<|bos|>" }));
  });
}

for (const name of ["tok500", "tok512"]) {
  peerTest(
    "quick",
    `an exported ${name} gives the golden ids in tiktoken`,
    () => judge(name, { format: "tiktoken", program: "tiktoken_folder.py" }),
  );
  peerTest(
    "quick",
    `an exported ${name} gives the golden ids in tokenizers`,
    () => judge(name, { format: "hf", program: "tokenizers_folder.py" }),
  );
}
