import { assertEquals, assertStringIncludes } from "@std/assert";
import { setColorEnabled, stripAnsiCode } from "@std/fmt/colors";
import { printable } from "./printable.ts";
import { progressLine, type Sink, Terminal, type TerminalOptions } from "./progress.ts";

function collect(isTerminal: boolean): Sink & { text: string } {
  return {
    text: "",
    write(text) {
      this.text += text;
    },
    isTerminal: () => isTerminal,
    columns: () => 60,
  };
}

function terminal(isTerminal: boolean, options: Partial<TerminalOptions> = {}) {
  const clock = { ms: 0 };
  const [out, err] = [collect(isTerminal), collect(isTerminal)];
  const log = new Terminal({ json: false, quiet: false, verbose: false, out, err, now: () => clock.ms, ...options });
  return { log, out, err, clock };
}

Deno.test("printable() shows controls, escapes and direction marks as symbols", () => {
  assertEquals(printable("a\x1b[31mb\x07\x7f\r\n\tc"), "a␛[31mb␇␡␍\n\tc");
  assertEquals(printable("a\u009b31m\u202e"), "a<U+009B>31m<U+202E>");
  assertEquals(printable("a\nb", { oneLine: true }), "a␊b");
  assertEquals(printable("grüße 日本 👩‍🚀"), "grüße 日本 👩‍🚀");
});

Deno.test("Terminal keeps results on stdout and messages on stderr, all printable", () => {
  const { log, out, err } = terminal(false);
  log.result("a\x1b[2J");
  log.info("b\x1b[2J");
  log.warn("c");
  assertEquals(out.text, "a␛[2J\n");
  assertEquals(stripAnsiCode(err.text), "b␛[2J\nWarning: c\n");
});

Deno.test("Terminal writes plain progress lines when piped, some seconds apart, and the last one", () => {
  const { log, err, clock } = terminal(false);
  for (let done = 1; done <= 10; done++) {
    clock.ms += 1000;
    log.progress({ label: "Work", done, total: 10 });
  }
  log.progress({ label: "Work", done: 10, total: 10 }); // said twice, shown once
  assertEquals(err.text.split("\n").map((line) => line.split(" (")[0]), [
    "Work  1/10",
    "Work  6/10",
    "Work  10/10",
    "",
  ]);
});

Deno.test("Terminal draws over one line on a terminal and clears it before a message", () => {
  const { log, err, clock } = terminal(true);
  setColorEnabled(false);
  log.progress({ label: "Work", done: 1, total: 3 });
  clock.ms += 1;
  log.progress({ label: "Work", done: 2, total: 3 }); // too soon to draw
  log.info("note");
  log.progress({ label: "Work", done: 3, total: 3, detail: "x".repeat(100) });
  assertEquals(err.text.startsWith("\r\x1b[2KWork  1/3 (33 %)\r\x1b[2Knote\n\r\x1b[2KWork  3/3 (100 %)  xxx"), true);
  assertEquals(err.text.endsWith("x\n"), true);
  assertEquals(err.text.split("\r\x1b[2K").at(-1)!.length <= 60, true);
});

Deno.test("Terminal writes one JSON object a line with --json", () => {
  const { log, out, err } = terminal(true, { json: true });
  log.result("text", { bpb: 1.5, text: "\u009b" });
  log.info("note");
  log.progress({ label: "Work", done: 1, total: 3 });
  assertEquals(out.text, '{"bpb":1.5,"text":"\\u009b"}\n');
  assertEquals(err.text.trim().split("\n").map((line) => JSON.parse(line).level), ["info", "progress"]);
});

Deno.test("Terminal with --quiet keeps warnings and results", () => {
  const { log, out, err } = terminal(false, { quiet: true });
  log.info("note");
  log.progress({ label: "Work", done: 1, total: 3 });
  log.warn("careful");
  log.result("done");
  assertEquals(stripAnsiCode(err.text), "Warning: careful\n");
  assertEquals(out.text, "done\n");
});

Deno.test("Terminal shows a stack only with --verbose", () => {
  for (const verbose of [false, true]) {
    const { log, err } = terminal(false, { verbose });
    log.error("Cannot", "at line 1");
    assertEquals(err.text.includes("at line 1"), verbose);
  }
});

Deno.test("progressLine() estimates the time left", () => {
  assertStringIncludes(
    progressLine({ label: "Work", done: 10, total: 40 }, { elapsedMs: 10_000, since: 0 }),
    "30s left",
  );
  const resumed = progressLine({ label: "Work", done: 30, total: 40 }, { elapsedMs: 10_000, since: 20 });
  assertStringIncludes(resumed, "10s left");
  assertEquals(
    progressLine({ label: "Work", done: 3, total: 0, detail: "5 MB/s" }, { elapsedMs: 10_000, since: 0 }),
    "Work  3  5 MB/s",
  );
});
