import { assert, assertEquals, assertThrows } from "@std/assert";
import * as docs from "./docs.ts";

const { checkUnrun, elsewhere, ELSEWHERE, isCall, mentionedCalls, pages, readPage, shellLines, unknownPart } = docs;

Deno.test("shellLines() joins continued lines and leaves other blocks out", () => {
  const page = "```sh\na --b \\\n  --c\n# note\n\nd\n```\n```\ne\n```\n```sh\nf\n```\n";
  assertEquals(shellLines(page), ["a --b --c", "d", "f"]);
});

Deno.test("unknownPart() names a command or flag that the program does not have", () => {
  assertEquals(unknownPart("nanochat train --depth=4 --resume"), undefined);
  assertEquals(unknownPart("nanochat models remove base/d4"), undefined);
  assertEquals(unknownPart("nanochat trian"), 'no command "trian"');
  assertEquals(unknownPart("nanochat eval bpb --deth=4"), '"nanochat eval bpb" has no flag --deth=4');
});

Deno.test("checkUnrun() refuses tasks, versions and flags that do not exist", () => {
  assertThrows(() => checkUnrun("npx -y deno@2.9.6 task demos"), Error, "no task demos");
  assertThrows(() => checkUnrun("npx -y deno@1.0.0 task test"), Error, "another deno");
  assertThrows(() => checkUnrun(".peers/bin/python dev/bench/peer_torch.py --dept 4"), Error, "no flag --dept");
});

Deno.test("every shell line of README.md and docs/ is run by a test or accounted for", () => {
  const lines = pages().flatMap((page) => shellLines(readPage(page)).map((line) => ({ page, line })));
  for (const { page, line } of lines) {
    if (elsewhere(line) === undefined) {
      assert(isCall(line), `${page}: ${line} has no entry in dev/docs.ts`);
    } else checkUnrun(line);
  }
  for (const entry of ELSEWHERE) {
    assert(
      lines.some(({ line }) => elsewhere(line) === entry),
      `no page has a line that begins with "${entry.begins}"`,
    );
  }
  for (const page of pages()) {
    const other = readPage(page).match(/^```(bash|shell|console|zsh)$/m)?.[0];
    assert(other === undefined, `${page}: shell lines stand in sh blocks, found ${other}`);
  }
});

Deno.test("every call that README.md and docs/ mention has a command and flags that exist", () => {
  for (const page of pages()) {
    for (const call of mentionedCalls(readPage(page))) assertEquals(unknownPart(call), undefined, `${page}: ${call}`);
  }
});

Deno.test("every message that docs/ quotes is one of the program's", () => {
  const source = docs.messageSource();
  let quoted = 0;
  for (const page of pages()) {
    for (const parts of docs.quotedMessages(readPage(page))) {
      quoted++;
      for (const part of parts) {
        assert(source.includes(part), `${page}: the program never says ${JSON.stringify(part)}`);
      }
    }
  }
  assert(quoted > 10, `${quoted} messages are quoted`);
});
