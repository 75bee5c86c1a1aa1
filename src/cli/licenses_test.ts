import { assert, assertStringIncludes, assertThrows } from "@std/assert";
import { showLicenses } from "./licenses_command.ts";
import { Terminal } from "./progress.ts";

/** Runs the command and gives what it prints. */
function show(name?: string, { texts = false, json = false } = {}): string {
  let shown = "";
  const sink = { write: (text: string) => void (shown += text), isTerminal: () => false, columns: () => 80 };
  showLicenses(name, { texts, terminal: new Terminal({ json, quiet: false, verbose: false, out: sink, err: sink }) });
  return shown;
}

Deno.test("showLicenses() lists runtime, packages and crates, and shows the text of each", () => {
  const list = show();
  for (
    const row of [
      /^ {2}deno +2\./m,
      /^ {2}v8 /m,
      /^ {2}cpython +3\./m,
      /^ {2}apache-arrow .*Apache-2.0$/m,
      /^ {2}parquet /m,
      /^ {2}deno_core +0\.\d+/m,
      /^ {2}icu .*Unicode-3.0$/m,
    ]
  ) {
    assert(row.test(list), String(row));
  }
  assert(!/proptest|fast-check/.test(list), "what only tests need is no part");
  assertStringIncludes(show("uplot"), "Copyright (c) 2022 Leon Sorokin");
  assertStringIncludes(show("hyper"), "Copyright (c) 2014-2025 Sean McArthur");
  assertStringIncludes(show("pyodide"), "Mozilla Public License Version 2.0");
  const { parts } = JSON.parse(show(undefined, { json: true })) as { parts: { name: string; texts: string[] }[] };
  const all = show(undefined, { texts: true });
  for (const { name, texts } of parts) {
    assert(texts.length > 0 && texts.every((text) => text.length > 100 && !text.includes("<copyright>")), name);
    for (const text of texts) assert(all.includes(text), name);
  }
  assertThrows(() => show("parqet"), RangeError, 'did you mean "parquet"?');
});
