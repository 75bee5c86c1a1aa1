import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { join } from "@std/path";
import { SILENT } from "../data/log.ts";
import { cardMarkdown, makeCard, shown } from "./card.ts";
import { readEnvironment, readHeader, writeHeader } from "./environment.ts";
import { EventLog } from "./events.ts";
import { cardPage, chartsOf, writeCard } from "./page.ts";
import { reportBaseTraining, reportChatStage } from "./stages.ts";
import { readSections, removeSections, type Section, writeSection } from "./sections.ts";

const ROOT = join(import.meta.dirname!, "..", "..");
const section = (title: string, rest: Partial<Section> = {}): Section => ({
  title,
  command: "nanochat x",
  finished: "2026-01-02T03:04:05.000Z",
  sec: 90,
  items: {},
  ...rest,
});

async function inFolder(test: (folder: string) => void | Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await test(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test("readSections() gives sections in the order of the pipeline; a second one of a title replaces the first", () =>
  inFolder((folder) => {
    writeSection(folder, section("Something else"));
    writeSection(folder, section("Chat SFT"));
    writeSection(folder, section("Tokenizer training", { sec: 1 }));
    writeSection(folder, section("Tokenizer training", { sec: 2 }));
    Deno.writeTextFileSync(join(folder, "report.md"), "somebody else's");
    writeHeader(folder, readEnvironment({ version: "nanochat 9" }));
    const sections = readSections(folder);
    assertEquals(sections.map(({ title }) => title), ["Tokenizer training", "Chat SFT", "Something else"]);
    assertEquals(sections[0].sec, 2);
    assertEquals(removeSections(folder), 3);
    assertEquals(readSections(folder), []);
    assertEquals(readHeader(folder)?.program, "nanochat 9");
    assertEquals(Deno.readTextFileSync(join(folder, "report.md")), "somebody else's");
  }));

Deno.test("readSections() names a file that is no section", () =>
  inFolder((folder) => {
    const format = '"format": "nanochat report section"';
    for (const text of ["{", "[]", '{"title": "x"}', `{${format}, "version": 2}`, `{${format}, "version": 1}`]) {
      Deno.writeTextFileSync(join(folder, "chat-sft.json"), text);
      assertThrows(() => readSections(folder), SyntaxError, "chat-sft.json");
    }
  }));

Deno.test("makeCard() puts the scores of all stages into one table, CORE first, ChatCORE last", () => {
  const card = makeCard([
    section("Base model evaluation", { stage: "base", scores: { CORE: 0.125, val_bpb: 0.9 }, sec: 3600 }),
    section("Chat evaluation mid", { stage: "mid", scores: { ChatCORE: 0.1, "ARC-Easy": 0.25 } }),
    section("Chat evaluation rl", { stage: "rl", scores: { SpellingBee: 0.75 } }),
  ], { name: "tiny", environment: readEnvironment({ version: "nanochat" }), pricePerHour: 2 });
  const markdown = cardMarkdown(card);
  const rows = markdown.split("\n").filter((line) => line.startsWith("| "));
  assertEquals(rows.slice(0, 7).filter((row) => !row.includes("---")), [
    "| metric | BASE | MID | SFT | RL |",
    "| CORE | 0.1250 | - | - | - |",
    "| ARC-Easy | - | 0.2500 | - | - |",
    "| SpellingBee | - | - | - | 0.7500 |",
    "| val_bpb | 0.9000 | - | - | - |",
    "| ChatCORE | - | 0.1000 | - | - |",
  ]);
  assertStringIncludes(markdown, "| Base model evaluation | 1h | $2.00 |");
  assertStringIncludes(markdown, "| total | 1h 3m | $2.10 |");
});

Deno.test("shown() writes four decimals and thousands apart", () => {
  const values = [1.23456, 12345, 9999, 0.00001234, null, "text", true].map(shown);
  assertEquals(values, ["1.2346", "12,345", "9999", "0.00001234", "none", "text", "true"]);
});

Deno.test("cardPage() escapes what a model wrote and allows only its own scripts", async () => {
  const hostile = '</script><img src=x onerror="alert(1)">';
  const card = makeCard([section("Base model loss", { samples: [{ prompt: hostile, text: hostile }] })], {
    name: hostile,
    environment: readEnvironment({ version: hostile }),
  });
  const page = await cardPage(card, SILENT);
  assert(!page.includes("<img"), "no tag of the sample is in the page");
  assertEquals(page.match(/<script>/g)?.length, 2);
  assertEquals(page.match(/'sha256-[A-Za-z0-9+/]{43}='/g)?.length, 2);
  assert(
    !/https?:\/\/(?!github\.com\/leeoniya)[a-z]/.test(page.replaceAll("http://www.w3.org", "")),
    "no address to load from",
  );
});

Deno.test("writeCard() draws the curves of a run's events", () =>
  inFolder(async (folder) => {
    {
      using events = EventLog.create(folder);
      for (let step = 0; step < 3000; step++) {
        events.append({ kind: "step", run: "x", step, loss: step, lr: 1, tokPerSec: step === 7 ? undefined : 5 });
      }
      for (const step of [0, 3000]) events.append({ kind: "eval", run: "x", step, bpb: 2 });
    }
    writeSection(folder, section("Base model training", { eventsFolder: folder }));
    const environment = readEnvironment({ version: "nanochat", checkout: ROOT });
    assert(environment.code === null || environment.code.lines > 1000, "a checkout is counted, an archive is not");
    const card = makeCard(readSections(folder), { name: "x", environment });
    const paths = await writeCard(folder, card, SILENT);
    const json = /<script type="application\/json" id="charts-0">(.*)<\/script>/.exec(Deno.readTextFileSync(paths[1]));
    const charts = JSON.parse(json![1]);
    assertEquals(charts.length, 4);
    assertEquals([charts[0].x.length, charts[0].series[0].y.slice(0, 2)], [1000, [1, 4]]);
    assertEquals(JSON.parse(Deno.readTextFileSync(paths[2])).sections.length, 1);
    assertEquals(readSections(folder).length, 1, "the card itself is no section");
  }));

Deno.test("chartsOf() leaves out what was not measured", () => {
  assertEquals(chartsOf([]), []);
  const events = [0, 1].map((step) => ({ kind: "step" as const, run: "x", step, loss: 1, tokPerSec: 2 }));
  assertEquals(chartsOf(events).map(({ title }) => title.split(",")[0]), ["training loss", "tokens per second"]);
});

Deno.test("reports of training count the time that the machine was held, list each figure once and no flag that was not set", () =>
  inFolder((folder) => {
    const end = { folder, steps: 3, valBpb: 1.5, minValBpb: 1.25, totalTimeMs: 2000, wallTimeMs: 9000 };
    reportBaseTraining(folder, { ...end, flags: { depth: 4, deviceType: "", numIterations: 3 } });
    const figures = { val_bpb: 1.5, min_val_bpb: 1.25 };
    reportChatStage(folder, { ...end, stage: "mid", flags: { initLrFrac: 1 }, figures });
    const [base, mid] = readSections(folder);
    const measured = { updates: 3, update_time_sec: 2, val_bpb: 1.5, min_val_bpb: 1.25 };
    assertEquals([base.sec, base.items], [9, { depth: 4, num_iterations: 3, ...measured }]);
    assertEquals([mid.sec, mid.items], [9, { init_lr_frac: 1, ...measured }]);
  }));
