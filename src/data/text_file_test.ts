import { assertEquals, assertRejects } from "@std/assert";
import { join } from "@std/path";
import { temporaryFolder } from "../../dev/testing.ts";
import { readCsv, readJsonLines, readText } from "./text_file.ts";

const utf8 = (text: string) => new TextEncoder().encode(text);

Deno.test("readText() leaves the byte order mark out and names the first line that is no UTF-8", async () => {
  using folder = temporaryFolder();
  const path = join(folder.path, "a.txt");
  Deno.writeFileSync(path, utf8("\ufeffé\r\nb"));
  assertEquals(await readText(path), "é\r\nb");
  const wrong: [bytes: number[], line: number][] = [
    [[0xff, 0xfe, 0x68, 0, 0x0a, 0], 1], // UTF-16
    [[...utf8("good é\n\nbad "), 0xe9, 0x0a, 0x68], 3], // Latin-1
    [[...utf8("good\n"), 0xc3], 2], // cut inside a character
  ];
  for (const [bytes, line] of wrong) {
    Deno.writeFileSync(path, Uint8Array.from(bytes));
    const message = `Cannot read "${path}", line ${line}: it holds other bytes, expected UTF-8 text`;
    await assertRejects(() => readText(path), SyntaxError, message);
  }
  Deno.writeFileSync(`${path}.gz`, utf8("plain"));
  await assertRejects(() => readText(`${path}.gz`), SyntaxError, "expected gzip");
});

Deno.test("readJsonLines() and readCsv() number the lines of the file, also behind a mark, blank lines and CRLF", async () => {
  using folder = temporaryFolder();
  const [lines, table] = ["a.jsonl", "a.csv"].map((name) => join(folder.path, name));
  Deno.writeFileSync(lines, utf8('\ufeff{"a":1}\r\n\r\n  \r\n[2]\r\n'));
  assertEquals(await readJsonLines(lines), [{ line: 1, value: { a: 1 } }, { line: 4, value: [2] }]);
  Deno.writeFileSync(lines, utf8('{"a":1}\r\n\r\n{"a":\r\n'));
  const message = `Cannot read "${lines}", line 3: Unexpected end of JSON input, expected one JSON value a line`;
  await assertRejects(() => readJsonLines(lines), SyntaxError, message);
  Deno.writeFileSync(lines, utf8('{"a":1}\n{"a" 1}\n'));
  await assertRejects(
    () => readJsonLines(lines),
    SyntaxError,
    "line 2: Expected ':' after property name in JSON at column 6,",
  );
  Deno.writeFileSync(table, utf8('\ufeffa,b\r\n\r\n"c\r\nd",e\r\nf\r\n'));
  await assertRejects(() => readCsv(table), SyntaxError, `Cannot read "${table}", line 5: 1 fields, expected 2`);
});
