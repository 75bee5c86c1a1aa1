import { assert, assertEquals } from "@std/assert";
import { runChild } from "../../dev/process.ts";
import { COMMANDS } from "./commands.ts";
import { manPage } from "./man.ts";

Deno.test("manPage() names every command and every flag", () => {
  const page = manPage(COMMANDS).replaceAll("\\-", "-");
  for (const { name, flags } of COMMANDS) {
    const section = page.split(`.SS nanochat ${name}\n`)[1]?.split("\n.S")[0] ?? "";
    for (const flag of Object.keys(flags)) assert(section.includes(`--${flag}`), `${name} lacks --${flag}`);
  }
});

Deno.test("manPage() is roff without a warning", async (t) => {
  const checkers: Readonly<Record<string, string[]>> = {
    groff: ["-ww", "-man", "-Tutf8", "-z"],
    mandoc: ["-Tlint", "-Werror"],
  };
  for (const [command, args] of Object.entries(checkers)) {
    const ended = await runChild({ command, args, stdin: manPage(COMMANDS), deadlineMs: 60_000 });
    const isMissing = ended.code === 127;
    await t.step({ name: command, ignore: isMissing, fn: () => assertEquals([ended.code, ended.output], [0, ""]) });
  }
});
