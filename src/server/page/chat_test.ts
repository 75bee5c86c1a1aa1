import { assertEquals } from "@std/assert";
import {
  addAnswer,
  addPiece,
  addQuestion,
  type Conversation,
  matches,
  mergeConversations,
  newConversation,
  pathTo,
  requestMessages,
  showBranch,
  siblings,
  textOf,
  titleOf,
} from "./chat.ts";
import { TestRandom, testRuns, testSeed } from "../../../dev/testing.ts";

/** A question with its answer; returns the answer. */
function turn(conversation: Conversation, text: string, reply: string) {
  const question = addQuestion(conversation, { text, parent: conversation.head });
  const answer = addAnswer(conversation, { parent: question.id, model: "d4" });
  addPiece(answer, { type: "text", text: reply });
  answer.end = "stop";
  return { question, answer };
}

const texts = (conversation: Conversation) => pathTo(conversation).map(textOf);

Deno.test("addQuestion() at an earlier place keeps the old branch", () => {
  const conversation = newConversation();
  turn(conversation, "a", "A");
  const { question } = turn(conversation, "b", "B");
  const edited = addQuestion(conversation, { text: "c", parent: question.parent });
  assertEquals(texts(conversation), ["a", "A", "c"]);
  assertEquals(siblings(conversation, edited), [question, edited]);
  showBranch(conversation, question);
  assertEquals(texts(conversation), ["a", "A", "b", "B"]);
  assertEquals(conversation.title, "a");
});

Deno.test("requestMessages() alternates, gives calls of tools back, and leaves out answers that never came", () => {
  const conversation = newConversation();
  const { answer } = turn(conversation, "2+2?", "");
  answer.parts = [{ type: "python", text: "2+2" }, { type: "python_output", text: "4" }, { type: "text", text: "4" }];
  const failed = addAnswer(conversation, {
    parent: addQuestion(conversation, { text: "and?", parent: answer.id }).id,
    model: "d4",
  });
  const last = addQuestion(conversation, { text: "well?", parent: failed.id });
  assertEquals(requestMessages(conversation, { until: last.id, system: "Be kind." }), [
    { role: "system", content: "Be kind." },
    { role: "user", content: "2+2?" },
    { role: "assistant", content: answer.parts },
    { role: "user", content: "and?\n\nwell?" },
  ]);
  assertEquals(requestMessages(conversation, { until: answer.parent!, system: " " }), [
    { role: "user", content: "2+2?" },
  ]);
});

Deno.test("addPiece() joins neighbours of one kind", () => {
  const { answer } = turn(newConversation(), "q", "a");
  addPiece(answer, { type: "text", text: "b" });
  addPiece(answer, { type: "python", text: "1" });
  addPiece(answer, { type: "python", text: "+1" });
  assertEquals(answer.parts, [{ type: "text", text: "ab" }, { type: "python", text: "1+1" }]);
});

Deno.test("titleOf() cuts whole characters", () => {
  assertEquals(titleOf("  two\n words "), "two words");
  assertEquals([...titleOf("😀".repeat(80))].length, 60);
  assertEquals(titleOf("😀".repeat(80)).endsWith("😀…"), true);
});

Deno.test("matches() looks for every word in titles and turns", () => {
  const conversation = newConversation();
  turn(conversation, "Where is Northwold?", "In the east.");
  for (const [query, expected] of [["north EAST", true], ["", true], ["west", false], ["north west", false]] as const) {
    assertEquals(matches(conversation, query), expected, query);
  }
});

Deno.test("mergeConversations() loses no turn of either side, in whatever order", () => {
  const random = new TestRandom(testSeed());
  for (let run = 0; run < testRuns(50); run++) {
    const mine = newConversation();
    const grow = (conversation: Conversation) => {
      for (let n = random.below(4); n > 0; n--) {
        conversation.head = random.pick([
          null,
          ...conversation.turns.filter((turn) => turn.role === "assistant"),
        ])?.id ??
          null;
        turn(conversation, `q${random.below(1000)}`, `a${random.below(1000)}`);
      }
    };
    grow(mine);
    const other = structuredClone(mine);
    grow(mine);
    grow(other);
    const merged = mergeConversations(mine, other);
    const ids = (list: readonly { id: string }[]) => list.map(({ id }) => id).sort();
    assertEquals(ids(merged.turns), ids([...new Map([...mine.turns, ...other.turns].map((t) => [t.id, t])).values()]));
    const seen = new Set<string | null>([null]);
    for (const { id, parent } of merged.turns) {
      assertEquals(seen.has(parent), true, "a parent comes first");
      seen.add(id);
    }
    const goesOn = pathTo(other).some(({ id }) => id === mine.head);
    assertEquals(merged.head, goesOn ? other.head : mine.head);
  }
});

Deno.test("mergeConversations() takes the answer that is further", () => {
  const mine = newConversation();
  const { answer } = turn(mine, "q", "begun");
  answer.end = "running";
  const other = structuredClone(mine);
  Object.assign(other.turns[1], { parts: [{ type: "text", text: "begun and ended" }], end: "stop" });
  for (const [a, b] of [[mine, other], [other, mine]]) {
    assertEquals(textOf(mergeConversations(a, b).turns[1]), "begun and ended");
  }
});
