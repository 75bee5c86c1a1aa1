/**
 * The small world as conversations: who the model is, facts, arithmetic with the calculator, spelling, letter counts. What `run tiny`
 * fine-tunes, reinforces and examines a model with.
 *
 * Invariants: conversation `index` of a task is always the same. Test rows are held out: the wording of a question about the model, the
 * question about a fact, the two operands, the letter of a word occur in no training row and in no pretraining text. Facts are told,
 * all of them, as in the pretraining text (`telling`).
 */
import type { Conversation, Part } from "../src/data/conversation.ts";
import { Random } from "../src/data/random.ts";
import { calculate } from "../src/engine/calculator.ts";
import type { Task } from "./task.ts";
import { portrait } from "./world.ts";
import { FACTS, hash32, isHeldOut, PERSON_ATTRIBUTES, TOWN_ATTRIBUTES } from "./world_facts.ts";
import { Scene } from "./world_grammar.ts";
import { TRAITS } from "./world_identity.ts";
import { drawSum, letterCount, spelled } from "./world_numbers.ts";
import * as forms from "./world_stories.ts";
import { SPELLABLE } from "./world_words.ts";

/** Rows that a model learns from, or rows that it is examined with. */
export type TaskSplit = "train" | "test";

/** Names of the tasks. */
export type WorldTaskName = "identity" | "world" | "telling" | "arithmetic" | "spelling" | "counting" | "dialogue";

/** Conversations of a world task carry what a right answer must hold, the last one where there are several. */
export interface WorldConversation extends Conversation {
  /** Text of a right answer: a name, a number, the letters of a word. */
  readonly value: string;
}

interface Draw {
  readonly random: Random;
  readonly heldOut: boolean;
}

/** Test rows are drawn from seeds that no training row uses. */
const TEST_SEED = 10_000_000;

type Writer = (draw: Draw) => WorldConversation;
const SINGLE: readonly Writer[] = [identity, fact, arithmetic, spelling, counting];
const WRITERS: Readonly<Record<WorldTaskName, Writer>> = {
  identity,
  world: fact,
  telling,
  arithmetic,
  spelling,
  counting,
  dialogue,
};

/** Makes a task of `size` rows of the small world. */
export function worldTask(
  name: WorldTaskName,
  { split, size }: { readonly split: TaskSplit; readonly size: number },
): Task {
  const heldOut = split === "test";
  const write = WRITERS[name];
  return {
    length: size,
    kind: "generative",
    conversation(index) {
      if (!Number.isInteger(index) || index < 0 || index >= size) {
        throw new RangeError(`Cannot find conversation ${index}: expected an index of 0 to ${size - 1}`);
      }
      return write({ random: new Random(heldOut ? TEST_SEED + index : index), heldOut });
    },
    evaluate: (conversation, answer) => isRight(conversation as WorldConversation, answer),
    reward: (conversation, answer) => isRight(conversation as WorldConversation, answer) ? 1 : 0,
  };
}

const MARK = /<\|[a-z_]+\|>/g;

/** The words that follow the last tool call, or all of them where there is none; without special tokens. */
function lastWords(answer: string): string {
  return answer.slice(answer.lastIndexOf("<|output_end|>") + 1).replace(MARK, "").trim();
}

function isRight({ value }: WorldConversation, answer: string): boolean {
  if (!/^\d+$/.test(value)) return lastWords(answer).includes(value);
  // A number counts where it is the last one that is said: "12 + 7 = 19" is the answer 19, not 12.
  return lastWords(answer).match(/\d+/g)?.at(-1) === value;
}

function chat(question: string, answer: string | readonly Part[], value: string): WorldConversation {
  return { messages: [{ role: "user", content: question }, { role: "assistant", content: answer }], value };
}

const say = (random: Random, templates: readonly string[], slots: Readonly<Record<string, string>> = {}): string =>
  new Scene(random, forms.LISTS, slots).say(templates);

function identity({ random, heldOut }: Draw): WorldConversation {
  for (;;) {
    const trait = random.choice(TRAITS);
    const question = say(random, trait.questions);
    if (isHeldOut(casual(question)) !== heldOut) continue;
    return chat(random.below(4) === 0 ? casual(question) : question, say(random, trait.answers), trait.value);
  }
}

/** The same question as many people type it. */
const casual = (question: string): string => question.toLowerCase().replace(/[.?!]$/, "");

const ASKED = FACTS.filter(({ key }) => !isHeldOut(key));
const EXAMINED = FACTS.filter(({ key }) => isHeldOut(key));

function fact({ random, heldOut }: Draw): WorldConversation {
  const { attribute, slots, value } = random.choice(heldOut ? EXAMINED : ASKED);
  return chat(say(random, attribute.questions, slots), say(random, attribute.answers, slots), value);
}

const TELLING_QUESTIONS = [
  "[Tell me|Please tell me] [about|more about|something about] {name}.",
  "What do you know about {name}?",
  "What can you tell me about {name}?",
] as const;

/** What is known about somebody or some place: keeps alive what nobody asks. */
function telling({ random, heldOut }: Draw): WorldConversation {
  for (;;) {
    const { slots } = random.choice(FACTS);
    const name = slots.who ?? slots.town;
    if (isHeldOut(`${name}/about`) !== heldOut) continue;
    const attributes = slots.who ? PERSON_ATTRIBUTES : TOWN_ATTRIBUTES;
    const text = portrait(random, { slots, attributes, least: 2, most: 4 });
    return chat(say(random, TELLING_QUESTIONS, { name }), text, slots.first ?? name);
  }
}

const OPERATOR_WORDS = { "+": "plus", "-": "minus", "*": "times" } as const;
const SUM_QUESTIONS = [
  "what is {a} {operator} {b}?",
  "what is {a} {word} {b}?",
  "how much is {a} {operator} {b}?",
  "can you [compute|calculate|work out] {a} {operator} {b}?",
  "{a} {operator} {b} = ?",
  "[calculate|compute|work out] {a} {word} {b}.",
] as const;

function arithmetic({ random, heldOut }: Draw): WorldConversation {
  const { a, operator, b, result } = drawSum(random, { heldOut, wide: true });
  const slots = { a: `${a}`, b: `${b}`, operator, word: OPERATOR_WORDS[operator] };
  return chat(say(random, SUM_QUESTIONS, slots), [
    { type: "python", text: `${a}${operator}${b}` },
    { type: "python_output", text: `${result}` },
    { type: "text", text: `${a} ${operator} ${b} = ${result}` },
  ], `${result}`);
}

const SPELLING_QUESTIONS = [
  "Spell the word: {word}",
  "How is {word} spelled?",
  "[Please spell|Spell] {word}.",
] as const;

/** Words whose spelling is asked in test rows only; pretraining text may spell them. */
const isTestWord = (word: string): boolean => hash32(`spell ${word}`) % 6 === 0;
const SPELLED = SPELLABLE.filter((word) => !isTestWord(word));
const SPELLED_IN_TEST = SPELLABLE.filter(isTestWord);

function spelling({ random, heldOut }: Draw): WorldConversation {
  const word = random.choice(heldOut ? SPELLED_IN_TEST : SPELLED);
  const letters = `${word}:${spelled(word)}`;
  return chat(new Scene(random, {}, { word }).raw(SPELLING_QUESTIONS), letters, letters);
}

const COUNTING_QUESTIONS = [
  "How many {letter} are in {word}?",
  "How many times does {letter} occur in {word}?",
  "How often does the letter {letter} occur in {word}?",
  "Count the letter {letter} in {word}.",
  "How many {letter} are there in the word {word}?",
] as const;

/** Words that the calculator takes: it refuses those that hold a word like "open" or "dir". */
const COUNTED = SPELLABLE.filter((word) => calculate(`'${word}'.count('a')`) !== null);

/** A letter count in the manner of nanochat's SpellingBee: by hand, letter by letter, then checked with Python. */
function counting({ random, heldOut }: Draw): WorldConversation {
  let word: string, letter: string;
  do {
    word = random.choice(COUNTED);
    letter = random.choice(word);
  } while (isHeldOut(`${word}/${letter}`) !== heldOut);
  let hits = 0;
  const steps = word.split("").map((c, i) => `${i + 1}:${c}${c === letter ? ` hit! count=${++hits}` : ""}`);
  const count = `${letterCount(word, letter)}`;
  return chat(new Scene(random, {}, { word, letter }).raw(COUNTING_QUESTIONS), [
    { type: "text", text: `${word}:${spelled(word)}\n${steps.join("\n")}\n` },
    { type: "python", text: `'${word}'.count('${letter}')` },
    { type: "python_output", text: count },
    { type: "text", text: `The answer is ${count}` },
  ], count);
}

/** Two to four questions of any kind, one behind the other. */
function dialogue(draw: Draw): WorldConversation {
  const { random } = draw;
  const rows = Array.from({ length: random.randInt(2, 4) }, () => random.choice(SINGLE)(draw));
  return { messages: rows.flatMap(({ messages }) => messages), value: rows.at(-1)!.value };
}
