import { assert, assertEquals } from "@std/assert";
import { Random } from "../src/data/random.ts";
import { FACTS, hash32, isHeldOut, operandKey, PEOPLE, TOWN_FACTS } from "./world_facts.ts";
import { capitalise, plural, Scene, withArticle } from "./world_grammar.ts";
import { arithmeticDocument, calendarDay, drawSum, letterCount, numberInWords, spelled } from "./world_numbers.ts";
import { worldDocuments, worldSplitOf } from "./world.ts";
import * as forms from "./world_stories.ts";

const train = [...worldDocuments({ seed: 7, count: 6000, split: "train" })];
const val = [...worldDocuments({ seed: 7, count: 1000, split: "val" })];

Deno.test("worldDocuments() gives the same texts when the seed is the same", () => {
  assertEquals([...worldDocuments({ seed: 7, count: 50, split: "train" })], train.slice(0, 50));
  const other = new Set(worldDocuments({ seed: 8, count: 50, split: "train" }));
  assertEquals(train.slice(0, 50).filter((text) => other.has(text)), []);
});

Deno.test("worldDocuments() keeps the splits apart, whatever the seeds", () => {
  assert(train.every((text) => worldSplitOf(text) === "train"));
  assert(val.every((text) => worldSplitOf(text) === "val"));
  assertEquals(new Set(train).size, train.length, "a training text occurs twice");
});

Deno.test("worldDocuments() uses at least 2,000 words and dozens of sentence forms", () => {
  const words = new Set<string>();
  for (const text of train) for (const [word] of text.toLowerCase().matchAll(/[a-z]{2,}/g)) words.add(word);
  assert(words.size >= 2000, `${words.size} words`);
  const count = Object.values(forms).filter(Array.isArray).flat().length;
  assert(count >= 100, `${count} forms`);
});

Deno.test("worldDocuments() leaves no slot open and writes plain text", () => {
  for (const text of train) {
    assert(!/[{}[\]|]|undefined/.test(text), text);
    assert(/^[\x20-\x7e\n]+$/.test(text), text);
    assert(
      !/\b[Aa] (?:apple|orange|onion|owl|eel|oak|old|ugly|editor|actor|astronomer|apron|oven|otter)\b/.test(text),
      text,
    );
    assert(text.length > 60, text);
  }
});

Deno.test("worldDocuments() states the facts truly and asks no question that is held out", () => {
  const byQuestion = new Map<string, { value: string; heldOut: boolean }>();
  for (const fact of FACTS) {
    for (const form of fact.attribute.questions) {
      const question = new Scene(new Random(1), forms.LISTS, fact.slots).say(form);
      byQuestion.set(question, { value: fact.value, heldOut: isHeldOut(fact.key) });
    }
  }
  let asked = 0;
  for (const text of [...train, ...val]) {
    const lines = text.split("\n");
    for (const [i, line] of lines.entries()) {
      const fact = byQuestion.get(line.replace(/^(Question: |Q: |")/, "").replace(/"$/, ""));
      if (!fact) continue;
      asked++;
      assert(!fact.heldOut, line);
      assert(lines[i + 1].includes(fact.value), `${line} ${lines[i + 1]}`);
    }
    for (const [_, a, operator, b, result] of text.matchAll(/(\d+) ([+*-]) (\d+) = (\d+)\./g)) {
      const x = Number(a);
      const y = Number(b);
      assertEquals(operator === "+" ? x + y : operator === "-" ? x - y : x * y, Number(result));
      assert(!isHeldOut(operandKey(x, operator as "+", y)), text);
    }
    for (const [_, name, age] of text.matchAll(/(\w+ \w+) is (\d+) years old/g)) {
      assertEquals(PEOPLE.find((person) => person.name === name)?.age, Number(age), text);
    }
    for (const [_, letter, word] of text.matchAll(/How many (\w) are in (\w+)\?/g)) {
      assert(!isHeldOut(`${word}/${letter}`), text);
      assert(text.includes(`The answer is ${letterCount(word, letter)}.`));
    }
  }
  assert(asked > 1000, `${asked} questions`);
});

Deno.test("isHeldOut() keeps about one question in six", () => {
  const share = FACTS.filter((fact) => isHeldOut(fact.key)).length / FACTS.length;
  assert(share > 0.12 && share < 0.22, `${share}`);
  assertEquals(hash32("a") === hash32("b"), false);
  assertEquals(operandKey(12, "+", 7), operandKey(7, "+", 12));
  assertEquals(operandKey(12, "-", 7), "12-7");
});

Deno.test("PEOPLE and TOWN_FACTS have unique names and mutual friends", () => {
  assertEquals(PEOPLE.length, 64);
  assertEquals(new Set(PEOPLE.flatMap((person) => [person.firstName, person.lastName])).size, 128);
  assertEquals(new Set(PEOPLE.map((person) => person.petName)).size, 64);
  assertEquals(new Set(TOWN_FACTS.map((town) => town.product)).size, TOWN_FACTS.length);
  for (const person of PEOPLE) {
    assert(person.friend !== person.index);
    assertEquals(PEOPLE[person.friend].friend, person.index);
  }
});

Deno.test("Scene.say() repeats numbered slots, fits articles and plurals, and capitalises sentences", () => {
  const scene = new Scene(new Random(3), { fruit: ["apple"], animal: ["mouse", "fox"] }, { who: "Mira" });
  assertEquals(scene.say("{a:fruit}. {s:fruit} for {who}[!|!]"), "An apple. Apples for Mira!");
  const [first, second] = scene.raw("{animal#1}/{animal#1}").split("/");
  assertEquals(first, second);
  assertEquals(capitalise('"why?" she asked. "so." then "no."'), '"Why?" she asked. "So." Then "no."');
  assertEquals(["mouse", "berry", "fox", "day", "piece of cake"].map(plural), [
    "mice",
    "berries",
    "foxes",
    "days",
    "pieces of cake",
  ]);
  assertEquals(["useful owl", "owl", "hour"].map(withArticle), ["a useful owl", "an owl", "an hour"]);
});

Deno.test("drawSum() draws held-out operands only when asked", () => {
  const random = new Random(5);
  for (let i = 0; i < 500; i++) {
    const heldOut = i % 2 === 0;
    const { a, operator, b, result } = drawSum(random, { heldOut });
    assertEquals(isHeldOut(operandKey(a, operator, b)), heldOut);
    assert(result >= 0);
  }
  assert(arithmeticDocument(random).length > 0);
});

Deno.test("calendarDay(), numberInWords(), spelled() and letterCount() know their subject", () => {
  assertEquals(calendarDay(0), { weekday: "Sunday", day: 1, month: "January" });
  assertEquals(calendarDay(365 + 58), { weekday: "Tuesday", day: 28, month: "February" });
  assertEquals(calendarDay(-1), { weekday: "Sunday", day: 31, month: "December" });
  assertEquals([7, 20, 42, 90].map(numberInWords), ["seven", "twenty", "forty-two", "ninety"]);
  assertEquals(spelled("owl"), "o,w,l");
  assertEquals(letterCount("lantern", "n"), 2);
});
