import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { allFlags } from "./command.ts";
import { COMMANDS } from "./commands.ts";
import { convertFlag, expectation } from "./flags.ts";
import { commandHelp, commandTable, flagTable, programHelp } from "./help.ts";

Deno.test("COMMANDS has no name, flag, alias or letter twice", () => {
  const twice = (names: string[]) => names.filter((name, i) => names.indexOf(name) !== i);
  assertEquals(twice(COMMANDS.map(({ name }) => name)), []);
  for (const row of COMMANDS) {
    const flags = Object.entries(allFlags(row));
    assertEquals(twice(flags.flatMap(([name, { aliases = [] }]) => [name, ...aliases])), [], row.name);
    assertEquals(twice(flags.flatMap(([_, { short }]) => short ? [short] : [])), [], row.name);
  }
});

Deno.test("every default is a value that its own flag accepts", () => {
  for (const row of COMMANDS) {
    for (const [name, flag] of Object.entries(allFlags(row))) {
      if (flag.default === undefined) continue;
      const where = { where: `${row.name} --${name}` };
      assertEquals(convertFlag(flag, String(flag.default), where), flag.default);
      assert(expectation(flag) !== "" && flag.help !== "" && !flag.help.endsWith("."), where.where);
    }
  }
});

Deno.test("help shows each flag on a line of its own, within 100 columns, with default and unit", () => {
  const train = COMMANDS.find(({ name }) => name === "train")!;
  const help = commandHelp(train);
  assert(/^ {2}--device-batch-size=INT {2,}rows of a micro-batch \(default 32\)$/m.test(help), help);
  assert(/^ {2}--max-seq-len=INT {2,}length of a row \[tokens\] \(default 2048\)$/m.test(help), help);
  assert(/^ {2}--resume\[=latest\|auto\]/m.test(help), help);
  assertStringIncludes(help, "--device-type, --device=cpu|cuda");
  for (const text of [programHelp(COMMANDS), ...COMMANDS.map(commandHelp)]) {
    for (const line of text.split("\n")) assert(line.length <= 110, `${line.length} columns: ${line}`);
  }
});

Deno.test("tables for the README have one row a command and one a flag", () => {
  assertEquals(commandTable(COMMANDS).split("\n").length, COMMANDS.length + 2);
  const train = COMMANDS.find(({ name }) => name === "train")!;
  assertEquals(flagTable(train).split("\n").length, Object.keys(train.flags).length + 2);
  for (const [table, cells] of [[commandTable(COMMANDS), 2], [flagTable(train), 3]] as const) {
    for (const line of table.split("\n")) assertEquals(line.split(/(?<!\\)\|/).length, cells + 2, line);
  }
});
