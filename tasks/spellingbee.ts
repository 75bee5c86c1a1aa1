/**
 * Spelling: count a letter in a word (by hand, then with Python), and the simpler task of spelling the word.
 *
 * Rows are drawn from a word list with Python's Random(row), from 10,000,000 on for the test split: every draw depends on the exact
 * list. The templates, their order and the wording of the answers are data of the reference, read off its recorded examples.
 */
import type { Conversation } from "../src/data/conversation.ts";
import { pythonStrip } from "../src/data/python_text.ts";
import { Random } from "../src/data/random.ts";
import { readText } from "../src/data/text_file.ts";
import { sameNumber } from "./gsm8k.ts";
import { checkIndex, type Task } from "./task.ts";

/** Part of the endless rows. */
export interface SpellingOptions {
  /** Rows; default 1000. */
  readonly size?: number;
  /** Split: the seeds of the test rows lie far from the training rows'. */
  readonly split: "train" | "test";
}

const TEST_SEED = 10_000_000;
const LETTERS = "abcdefghijklmnopqrstuvwxyz";
const QUOTES = ["", "'", '"'];

/** Questions in seven languages; {letter} and {word} are filled in, with or without quotes. */
export const TEMPLATES: readonly string[] = [
  "How many {letter} are in the word {word}",
  "How many {letter} are in {word}",
  "Count the number of {letter} in {word}",
  "How many times does {letter} appear in {word}",
  "What's the count of {letter} in {word}",
  "In the word {word}, how many {letter} are there",
  "How many letter {letter} are in the word {word}",
  "Count how many {letter} appear in {word}",
  "Tell me the number of {letter} in {word}",
  "How many occurrences of {letter} are in {word}",
  "Find the count of {letter} in {word}",
  "Can you count the {letter} letters in {word}",
  "What is the frequency of {letter} in {word}",
  "How many {letter}s are in {word}",
  "How many {letter}'s are in {word}",
  "Count all the {letter} in {word}",
  "How many times is {letter} in {word}",
  "Number of {letter} in {word}",
  "Total count of {letter} in {word}",
  "How many {letter} does {word} have",
  "How many {letter} does {word} contain",
  "What's the number of {letter} in {word}",
  "{word} has how many {letter}",
  "In {word}, count the {letter}",
  "How many {letter} appear in {word}",
  "Count the {letter} in {word}",
  "Give me the count of {letter} in {word}",
  "How many instances of {letter} in {word}",
  "Show me how many {letter} are in {word}",
  "Calculate the number of {letter} in {word}",
  "¿Cuántas {letter} hay en {word}?",
  "¿Cuántas veces aparece {letter} en {word}?",
  "Cuenta las {letter} en {word}",
  "¿Cuántas letras {letter} tiene {word}?",
  "{word}中有多少个{letter}",
  "{word}里有几个{letter}",
  "数一下{word}中的{letter}",
  "{word}这个词里有多少{letter}",
  "{word}에 {letter}가 몇 개 있나요",
  "{word}에서 {letter}의 개수는",
  "{word}에 {letter}가 몇 번 나오나요",
  "{word}라는 단어에 {letter}가 몇 개",
  "Combien de {letter} dans {word}",
  "Combien de fois {letter} apparaît dans {word}",
  "Compte les {letter} dans {word}",
  "Wie viele {letter} sind in {word}",
  "Wie oft kommt {letter} in {word} vor",
  "Zähle die {letter} in {word}",
  "{word}に{letter}は何個ありますか",
  "{word}の中に{letter}がいくつ",
  "{word}に{letter}が何回出てくる",
];

/**
 * Reads a word list: one word a line.
 *
 * @throws {Error} where the file is missing, empty or has an empty line.
 */
export async function readWords(path: string): Promise<string[]> {
  let text: string;
  try {
    text = await readText(path);
  } catch (cause) {
    if (!(cause instanceof Deno.errors.NotFound)) throw cause;
    const repair = 'run "nanochat data fetch words"';
    throw new Error(`Cannot read "${path}": it is missing, expected a list of words; ${repair}`, { cause });
  }
  const words = text.replace(/\n$/, "").split("\n").map(pythonStrip);
  const empty = words.indexOf("");
  if (empty >= 0) throw new SyntaxError(`Cannot read "${path}", line ${empty + 1}: it is empty, expected a word`);
  return words;
}

/** Makes the task of counting a letter in a word. */
export function spellingBee(words: readonly string[], { size = 1000, split }: SpellingOptions): Task {
  return {
    kind: "generative",
    length: size,
    conversation: (index) => countingConversation(words, seedOf(checkIndex(index, size), split)),
    evaluate: sameNumber,
    reward: (conversation, answer) => Number(sameNumber(conversation, answer)),
  };
}

/** Makes the task of spelling a word. */
export function simpleSpelling(words: readonly string[], { size = 1000, split }: SpellingOptions): Task {
  const shuffled = [...words];
  new Random(42).shuffle(shuffled);
  return {
    length: size,
    conversation: (index) => {
      const word = new Random(seedOf(checkIndex(index, size), split)).choice(shuffled);
      return {
        messages: [
          { role: "user", content: `Spell the word: ${word}` },
          { role: "assistant", content: spelled(word) },
        ],
      };
    },
  };
}

function seedOf(index: number, split: "train" | "test"): number {
  return split === "train" ? index : TEST_SEED + index;
}

function spelled(word: string): string {
  return `${word}:${Array.from(word).join(",")}`;
}

function countingConversation(words: readonly string[], seed: number): Conversation {
  const random = new Random(seed);
  const word = random.choice(words);
  const letter = random.random() < 0.9 ? random.choice(Array.from(word)) : random.choice(LETTERS);
  const template = random.choice(TEMPLATES);
  const cased = random.random() < 0.3 ? template.toLowerCase() : template;
  const [letterQuote, wordQuote] = [random.choice(QUOTES), random.choice(QUOTES)];
  const values = { letter: letterQuote + letter + letterQuote, word: wordQuote + word + wordQuote };
  const question = cased.replace(/\{(letter|word)\}/g, (_, name: "letter" | "word") => values[name]);
  const content = random.random() < 0.5 ? `${question}?` : question;
  return { messages: [{ role: "user", content }, { role: "assistant", content: countingAnswer(word, letter) }] };
}

function countingAnswer(word: string, letter: string): Exclude<Conversation["messages"][number]["content"], string> {
  let count = 0;
  const lines = Array.from(word, (character, i) => {
    const hit = character === letter ? ` hit! count=${++count}` : "";
    return `${i + 1}:${character}${hit}\n`;
  });
  const manual = `We are asked to find the number '${letter}' in the word '${word}'. Let me try a manual approach first.

First spell the word out:
${spelled(word)}

Then count the occurrences of '${letter}':
${lines.join("")}
This gives us ${count}.`;
  return [
    { type: "text", text: manual },
    { type: "text", text: "\n\nLet me double check this using Python:\n\n" },
    { type: "python", text: `'${word}'.count('${letter}')` },
    { type: "python_output", text: `${count}` },
    { type: "text", text: `\n\nPython gives us ${count}.\n\nMy final answer is:\n\n#### ${count}` },
  ];
}
