/**
 * The exact part of the small world: arithmetic, spelling and letter counts, dates and times. Every statement is true; questions whose key
 * is held out (`isHeldOut`) do not occur.
 */
import { isHeldOut, operandKey, PEOPLE } from "./world_facts.ts";
import { COUNTABLES, MONTH_DAYS, MONTHS, NUMBER_WORDS, SPELLABLE, TENS, WEEKDAYS } from "./world_words.ts";
import type { Random } from "../src/data/random.ts";

/** An arithmetic question with its parts. */
export interface Sum {
  readonly a: number;
  readonly operator: "+" | "-" | "*";
  readonly b: number;
  readonly result: number;
}

/**
 * Draws operands of one or two digits: sums and differences of up to 99, products up to 99 times 12 or, `wide`, for whoever has a
 * calculator, 99 times 99.
 */
export function drawSum(
  random: Random,
  { heldOut = false, wide = false }: { readonly heldOut?: boolean; readonly wide?: boolean } = {},
): Sum {
  for (;;) {
    const operator = random.choice(["+", "+", "-", "-", "*"] as const);
    const small = random.below(3) === 0;
    let a = random.randInt(small ? 1 : 10, small ? 12 : 99);
    let b = operator === "*" && !wide ? random.randInt(2, 12) : random.randInt(1, small ? 12 : 99);
    if (operator === "-" && b > a) [a, b] = [b, a];
    if (isHeldOut(operandKey(a, operator, b)) !== heldOut) continue;
    return { a, operator, b, result: operator === "+" ? a + b : operator === "-" ? a - b : a * b };
  }
}

/** Returns a number below 100 in words: "forty-two". */
export function numberInWords(n: number): string {
  if (n <= 20) return NUMBER_WORDS[n];
  const ones = n % 10;
  return TENS[Math.floor(n / 10) - 1] + (ones === 0 ? "" : `-${NUMBER_WORDS[ones]}`);
}

const OPERATOR_WORDS = { "+": "plus", "-": "minus", "*": "times" } as const;

/** Returns a document of equations and word problems. */
export function arithmeticDocument(random: Random): string {
  const lines: string[] = [];
  const n = random.randInt(4, 9);
  for (let i = 0; i < n; i++) lines.push(arithmeticSentence(random));
  return lines.join(random.below(2) === 0 ? "\n" : " ");
}

function arithmeticSentence(random: Random): string {
  const { a, operator, b, result } = drawSum(random);
  const word = OPERATOR_WORDS[operator];
  const form = random.below(8);
  if (form < 2) return `${a} ${operator} ${b} = ${result}.`;
  if (form === 2) return `What is ${a} ${word} ${b}? It is ${result}.`;
  if (form === 3 && Math.max(a, b, result) < 100) {
    const sentence = `${numberInWords(a)} ${word} ${numberInWords(b)} is ${numberInWords(result)}.`;
    return sentence[0].toUpperCase() + sentence.slice(1);
  }
  const person = random.choice(PEOPLE);
  const other = random.choice(PEOPLE);
  const [one, many] = random.choice(COUNTABLES);
  const things = (count: number): string => `${count} ${count === 1 ? one : many}`;
  const { firstName, pronoun } = person;
  const He = pronoun === "she" ? "She" : "He";
  if (operator === "+") {
    if (form % 2 === 0) {
      return `${firstName} has ${things(a)} and ${
        random.choice(["buys", "finds", "gets"])
      } ${b} more. Now ${pronoun} has ${things(result)}.`;
    }
    return `${firstName} has ${things(a)}, ${other.firstName} has ${b}. Together that makes ${things(result)}.`;
  }
  if (operator === "-") {
    if (form % 2 === 0) {
      return `There were ${things(a)} in the basket. ${firstName} took ${b}. Now ${things(result)} ${
        result === 1 ? "is" : "are"
      } left.`;
    }
    return `${firstName} had ${things(a)}. ${He} gave ${b} to ${other.firstName} and kept ${result}.`;
  }
  if (form % 2 === 0) return `${a} boxes with ${things(b)} each hold ${result} ${many} in all.`;
  return `One of the ${many} costs ${b} coins. ${firstName} pays ${result} coins for ${things(a)}.`;
}

/** Returns the letters of a word joined by commas: "l,a,n,t,e,r,n". */
export function spelled(word: string): string {
  return word.split("").join(",");
}

/** Returns how often a letter occurs in a word. */
export function letterCount(word: string, letter: string): number {
  return word.split(letter).length - 1;
}

const PLACES = ["first", "second", "third", "fourth", "fifth"];

/** Returns a document about the letters of words. */
export function spellingDocument(random: Random): string {
  const lines: string[] = [];
  const n = random.randInt(4, 8);
  while (lines.length < n) {
    const word = random.choice(SPELLABLE);
    const form = random.below(6);
    if (form === 0) lines.push(`${word}:${spelled(word)}`);
    else if (form === 1) {
      lines.push(`The word ${word} is spelled ${word.split("").join("-")}. It has ${word.length} letters.`);
    } else if (form === 2) lines.push(`Spell the word: ${word}\n${word}:${spelled(word)}`);
    else if (form === 3) {
      const place = random.below(Math.min(word.length, PLACES.length));
      lines.push(`The ${PLACES[place]} letter of ${word} is ${word[place]}, and the last one is ${word.at(-1)}.`);
    } else {
      const letter = random.choice(word);
      if (isHeldOut(`${word}/${letter}`)) continue;
      const count = letterCount(word, letter);
      const times = count === 1 ? "once" : count === 2 ? "twice" : `${count} times`;
      if (form === 4) lines.push(`The letter ${letter} occurs ${times} in ${word}.`);
      else {
        let hits = 0;
        const steps = word.split("").map((c, i) => `${i + 1}:${c}${c === letter ? ` hit! count=${++hits}` : ""}`);
        lines.push(
          `How many ${letter} are in ${word}?\n${word}:${spelled(word)}\n${steps.join("\n")}\nThe answer is ${count}.`,
        );
      }
    }
  }
  return lines.join("\n");
}

/** A day of the year 2023, which begins on a Sunday; the calendar of the world. */
export interface Day {
  readonly weekday: string;
  readonly day: number;
  readonly month: string;
}

const YEAR_START = 6; // index of Sunday in WEEKDAYS: 1 January of the world's calendar

/** Returns day `index` (0 to 364, wrapping around) of the calendar. */
export function calendarDay(index: number): Day {
  let day = ((index % 365) + 365) % 365;
  const weekday = WEEKDAYS[(YEAR_START + day) % 7];
  let month = 0;
  while (day >= MONTH_DAYS[month]) day -= MONTH_DAYS[month++];
  return { weekday, day: day + 1, month: MONTHS[month] };
}

function clock(minutes: number): string {
  return `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, "0")}`;
}

/** Returns a document about days, months and hours. */
export function dateDocument(random: Random): string {
  const lines: string[] = [];
  const n = random.randInt(4, 8);
  for (let i = 0; i < n; i++) lines.push(dateSentence(random));
  return lines.join(random.below(3) === 0 ? "\n" : " ");
}

function dateSentence(random: Random): string {
  const at = random.below(365);
  const day = calendarDay(at);
  const form = random.below(9);
  const steps = random.randInt(2, 6);
  const weekday = random.below(7);
  switch (form) {
    case 0: {
      const next = calendarDay(at + 1);
      return `The day after ${day.day} ${day.month} is ${next.day} ${next.month}.`;
    }
    case 1: {
      const before = calendarDay(at - 1);
      return `The day before ${day.day} ${day.month} is ${before.day} ${before.month}.`;
    }
    case 2:
      return `If today is ${WEEKDAYS[weekday]}, in ${steps} days it will be ${WEEKDAYS[(weekday + steps) % 7]}.`;
    case 3:
      return `If today is ${WEEKDAYS[weekday]}, ${steps} days ago it was ${WEEKDAYS[(weekday + 7 - steps) % 7]}.`;
    case 4: {
      const month = random.below(12);
      return `${MONTHS[month]} has ${MONTH_DAYS[month]} days, and after ${MONTHS[month]} comes ${
        MONTHS[(month + 1) % 12]
      }.`;
    }
    case 5: {
      const person = random.choice(PEOPLE);
      return `${person.name} was born on ${person.birthDay} ${person.birthMonth}.`;
    }
    case 6: {
      const later = calendarDay(at + 7);
      return `A week after ${day.weekday}, ${day.day} ${day.month}, comes ${later.weekday}, ${later.day} ${later.month}.`;
    }
    case 7: {
      const person = random.choice(PEOPLE);
      return `In ${steps} years, ${person.name} will be ${person.age + steps} years old, since now ${
        person.pronoun === "she" ? "she" : "he"
      } is ${person.age}.`;
    }
    default: {
      const start = 5 * random.randInt(60, 250);
      const length = 5 * random.randInt(2, 18);
      return `The boat leaves at ${clock(start)} and arrives at ${clock(start + length)}, after ${length} minutes.`;
    }
  }
}
