import { assert, assertEquals } from "@std/assert";
import { existsSync } from "node:fs";
import { join } from "@std/path";
import { ParquetFile } from "./parquet.ts";

/** A folder of the full data, or undefined and a line that says so. */
function dataFolder(name: string): string | undefined {
  const root = Deno.env.get("NANOCHAT_DATA");
  const path = root && join(root, name);
  if (path && existsSync(path)) return path;
  console.log(`skipped: ${name} is absent; set NANOCHAT_DATA`);
  return undefined;
}

const variants = dataFolder("parquet_variants");

Deno.test({
  name: "ParquetFile equals expected.jsonl for every variant",
  ignore: variants === undefined,
  fn: async () => {
    const lines = Deno.readTextFileSync(join(variants!, "expected.jsonl")).trim().split("\n");
    const expected = lines.map((line) => JSON.parse(line));
    const names = Array.from(Deno.readDirSync(variants!), (entry) => entry.name).filter((n) => n.endsWith(".parquet"));
    assert(names.length > 0);
    for (const name of names) {
      using file = ParquetFile.open(join(variants!, name));
      const number = (_: string, value: unknown) => typeof value === "bigint" ? Number(value) : value;
      const rows = (await file.readTable()).toArray().map((row) => JSON.parse(JSON.stringify(row, number)));
      assertEquals(rows, expected, name);
      const texts = [];
      for (let group = 0; group < file.rowGroups; group++) texts.push(...await file.readTexts(group));
      assertEquals(texts, expected.map((row) => row.text), name);
    }
  },
});

const tasks = dataFolder("task_data");

Deno.test({
  name: "ParquetFile reads every task file whole",
  ignore: tasks === undefined,
  fn: async () => {
    const search = function* (folder: string): Generator<string> {
      for (const entry of Deno.readDirSync(folder)) {
        const path = join(folder, entry.name);
        if (entry.isDirectory) yield* search(path);
        else if (path.endsWith(".parquet")) yield path;
      }
    };
    let files = 0;
    for (const path of search(tasks!)) {
      using file = ParquetFile.open(path);
      const table = await file.readTable();
      assertEquals(table.numRows, file.rows, path);
      assertEquals(table.schema.names, file.schema.map((field) => field.name));
      assert(
        table.toArray().every((row) => JSON.stringify(row, (_, v) => typeof v === "bigint" ? Number(v) : v).length > 2),
      );
      files++;
    }
    assert(files > 0);
  },
});
