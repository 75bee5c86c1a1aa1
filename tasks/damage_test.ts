import { assertEquals } from "@std/assert";
import { join } from "@std/path";
import { checkMutations, temporaryFolder } from "../dev/testing.ts";
import { FORMATS } from "../src/data/formats.ts";
import { openTaskRows, readManifest } from "../src/data/task_data.ts";
import { extractZip } from "../src/data/zip.ts";
import { makeZip } from "../src/data/zip_testing.ts";
import { loadCustomJson } from "./customjson.ts";
import { readWords } from "./spellingbee.ts";

const bytes = (text: string) => new TextEncoder().encode(text);

Deno.test("damaged task files, word lists and conversations are refused in one line or read as a whole", async () => {
  using folder = temporaryFolder();
  const at = (...parts: string[]) => join(folder.path, ...parts);
  for (const name of ["gsm8k", "arc", "mmlu/dev"]) Deno.mkdirSync(at(name), { recursive: true });
  const open = (repo: string, subset: string, split: string) => () =>
    openTaskRows(folder.path, { repo, subset, split }, ["question"]);
  const choices = [{ text: "ice", label: "A" }, { text: "fire", label: "B" }];
  const talk = [{ role: "user", content: "Hi\n" }, { role: "assistant", content: "Hello" }];
  const cases: readonly (readonly [path: string, content: string, read: () => unknown])[] = [
    [at("gsm8k/train.jsonl"), '{"question":"q","answer":"#### 1"}\n'.repeat(5), open("openai/gsm8k", "main", "train")],
    [
      at("arc/ARC-Easy-Test.jsonl"),
      `${JSON.stringify({ id: "x", question: { stem: "Hot?", choices }, answerKey: "B" })}\r\n`.repeat(3),
      open("allenai/ai2_arc", "ARC-Easy", "test"),
    ],
    [
      at("mmlu/dev/law_dev.csv"),
      'q,1,2,3,4,A\r\n"a ""b""\nc",1,2,3,4,B\r\n'.repeat(3),
      open("cais/mmlu", "all", "dev"),
    ],
    [at("talk.jsonl"), `${JSON.stringify(talk)}\n`.repeat(3), () => loadCustomJson(at("talk.jsonl"))],
    [at("manifest.json"), '["00000.parquet",\n"00001.parquet"]', () => readManifest(folder.path)],
    [
      at("manifest.json"),
      JSON.stringify({ ...FORMATS.taskSet, files: ["00000.parquet", "00001.parquet"] }),
      () => readManifest(folder.path),
    ],
    [at("words.txt"), "ant\nbee\n", () => readWords(at("words.txt"))],
  ];
  await checkMutations({
    files: cases.map(([_, content]) => bytes(content)),
    read: async (damaged, file) => {
      const [path, _, read] = cases[file];
      Deno.writeFileSync(path, damaged);
      await read();
    },
    errors: [Error],
    refused: 0.4,
  });
});

Deno.test("damaged zip files are refused in one line or unpacked inside their folder", async () => {
  using folder = temporaryFolder();
  const at = (name: string) => join(folder.path, name);
  const zip = await makeZip([
    { name: "eval_bundle/core.yaml", data: bytes("icl_tasks: []\n".repeat(20)) },
    { name: "eval_bundle/a", data: bytes("stored"), stored: true },
  ]);
  const outside: string[] = [];
  await checkMutations({
    files: [zip],
    read: async (damaged) => {
      Deno.writeFileSync(at("x.zip"), damaged);
      try {
        await extractZip(at("x.zip"), at("out"));
      } finally {
        const names = Array.from(Deno.readDirSync(folder.path), ({ name }) => name);
        outside.push(...names.filter((name) => name !== "out" && name !== "x.zip"));
        if (names.includes("out")) Deno.removeSync(at("out"), { recursive: true });
      }
    },
    errors: [Error],
    refused: 0.4,
  });
  assertEquals(outside, []);
});
