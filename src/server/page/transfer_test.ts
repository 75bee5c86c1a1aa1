import { assertEquals, assertThrows } from "@std/assert";
import { addAnswer, addPiece, addQuestion, newConversation } from "./chat.ts";
import { exportText, importText } from "./transfer.ts";
import { mutate, TestRandom, testRuns, testSeed } from "../../../dev/testing.ts";

function example() {
  const conversation = newConversation(1_760_000_000_000);
  const question = addQuestion(conversation, { text: "2+2? 😀 <b>", parent: null });
  const answer = addAnswer(conversation, { parent: question.id, model: "d4" });
  for (const [type, text] of [["python", "2+2"], ["python_output", "4"], ["text", "It is 4."]] as const) {
    addPiece(answer, { type, text });
  }
  Object.assign(answer, { end: "stop", promptTokens: 9, completionTokens: 12, tokPerSec: 40.5, droppedMessages: 2 });
  answer.tokens = [{ text: "It", logprob: -0.1, top: [{ text: "It", logprob: -0.1 }, { text: "Is", logprob: -3 }] }];
  return conversation;
}

// deno-lint-ignore no-explicit-any -- tests break values on purpose
function broken(change: (file: any) => void): string {
  const file = JSON.parse(exportText([example()]));
  change(file);
  return JSON.stringify(file);
}

Deno.test("importText() gives back what exportText() wrote", () => {
  const conversations = [example(), example(), newConversation()];
  assertEquals(importText(exportText(conversations)), conversations);
  assertEquals(importText(exportText([])), []);
});

Deno.test("importText() leaves out what it does not know", () => {
  const text = broken((file) => {
    file.conversations[0].extra = "<script>";
    file.conversations[0].turns[0].__proto__x = 1;
    file.conversations[0].turns[1].parts[0].html = "<img onerror=1>";
  });
  const [{ turns, ...rest }] = importText(text);
  const names = ["id", "title", "isNamed", "created", "updated", "version", "head"];
  assertEquals(Object.keys(rest).sort(), names.sort());
  assertEquals(Object.keys(turns[0]).sort(), ["id", "parent", "role", "text", "time"]);
});

Deno.test("importText() refuses what is wrong, and says what", () => {
  // deno-lint-ignore no-explicit-any
  const cases: [(file: any) => void, string][] = [
    [(file) => file.format = "x", "an export of this page"],
    [(file) => file.version = 2, "has version 2, expected version 1"],
    [(file) => file.conversations = {}, "its conversations is {}, expected a list"],
    [(file) => file.conversations[0].id = "../../x", 'conversation 1, id is "../../x"'],
    [(file) => file.conversations[0].id = '"><script>', "small letters and digits"],
    [(file) => file.conversations[0].title = 5, "title is 5, expected text"],
    [(file) => file.conversations[0].title = "x".repeat(201), "has 201 letters"],
    [(file) => file.conversations[0].created = "now", 'is "now"'],
    [(file) => file.conversations[0].head = "0123456789ab", "is no turn"],
    [(file) => file.conversations[0].turns[0].role = "system", 'is "system", expected user or assistant'],
    [(file) => file.conversations[0].turns[0].parent = file.conversations[0].turns[1].id, "follows no earlier turn"],
    [(file) => file.conversations[0].turns[1].parent = null, "answer to no question"],
    [(file) => file.conversations[0].turns[1].id = file.conversations[0].turns[0].id, "the id of another turn"],
    [(file) => file.conversations[0].turns[1].end = "done", 'end is "done"'],
    [(file) => file.conversations[0].turns[1].parts[0].type = "html", 'has type "html"'],
    [(file) => file.conversations[0].turns[1].parts[0].text = null, "text is null"],
    [(file) => file.conversations[0].turns[1].tokens[0].logprob = 1, "no log-probability"],
    [(file) => file.conversations[0].turns[1].tokPerSec = -1, "tokPerSec is -1"],
  ];
  for (const [change, message] of cases) assertThrows(() => importText(broken(change)), SyntaxError, message);
  for (const text of ["", "{", "null", "[]", '"x"']) assertThrows(() => importText(text), SyntaxError, "Cannot import");
});

Deno.test("importText() of a damaged file is an import or a refusal, never another error", () => {
  const random = new TestRandom(testSeed());
  const bytes = new TextEncoder().encode(exportText([example()]));
  for (let run = 0; run < testRuns(400); run++) {
    try {
      importText(new TextDecoder().decode(mutate(bytes, random)));
    } catch (error) {
      assertEquals((error as Error).name, "SyntaxError", String(error));
    }
  }
});
