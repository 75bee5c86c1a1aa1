/**
 * The small world of `run tiny`: a deterministic writer of training text that needs no network. Takes a seed, a count and a split; gives
 * documents of a few hundred characters: stories, portraits, letters, diaries, questions with answers, arithmetic, spelling, dates.
 *
 * Invariants: the same arguments give the same documents; no document of one split occurs in the other, whatever the seeds, because the
 * split is a hash of the text itself; all statements about people, towns and numbers are true in the world (`world_facts.ts`); questions
 * that are held out occur in neither split.
 */
import { Random } from "../src/data/random.ts";
import {
  type Attribute,
  type Fact,
  FACTS,
  hash32,
  isHeldOut,
  PEOPLE,
  type Person,
  PERSON_ATTRIBUTES,
  personSlots,
  type Town,
  TOWN_ATTRIBUTES,
  TOWN_FACTS,
  townSlots,
} from "./world_facts.ts";
import { capitalise, Scene, withArticle } from "./world_grammar.ts";
import { arithmeticDocument, calendarDay, dateDocument, spellingDocument } from "./world_numbers.ts";
import * as forms from "./world_stories.ts";
import { COUNTABLES, KINDS } from "./world_words.ts";

/** Which part of the world's texts. */
export type WorldSplit = "train" | "val";

/** One text in this many belongs to the validation split. */
const VAL_SHARE = 8;

/** Returns the split that a text belongs to. */
export function worldSplitOf(text: string): WorldSplit {
  return hash32(text) % VAL_SHARE === 0 ? "val" : "train";
}

/** Writes `count` documents of a split, one at a time. */
export function* worldDocuments(
  { seed, count, split }: { seed: number; count: number; split: WorldSplit },
): Generator<string> {
  const random = new Random(2 * seed + (split === "val" ? 1 : 0));
  for (let written = 0; written < count;) {
    const text = writeDocument(random);
    if (worldSplitOf(text) !== split) continue;
    written++;
    yield text;
  }
}

/** The kinds of documents with their shares in percent. */
const WRITERS: readonly (readonly [percent: number, write: (random: Random) => string])[] = [
  [19, storyDocument],
  [15, portraitDocument],
  [13, townDocument],
  [12, questionDocument],
  [5, letterDocument],
  [5, diaryDocument],
  [4, instructionDocument],
  [4, remarkDocument],
  [4, playDocument],
  [3, marketDocument],
  [5, arithmeticDocument],
  [8, spellingDocument],
  [3, dateDocument],
];

function writeDocument(random: Random): string {
  let draw = random.below(100);
  for (const [percent, write] of WRITERS) {
    if (draw < percent) return write(random);
    draw -= percent;
  }
  return storyDocument(random);
}

/** Returns a scene with a hero, a second person (the best friend half of the time) and a town. */
function castScene(random: Random): { scene: Scene; hero: Person; second: Person; town: Town } {
  const hero = random.choice(PEOPLE);
  let second = PEOPLE[hero.friend];
  if (random.below(2) === 0) {
    do second = random.choice(PEOPLE); while (second === hero);
  }
  const town = random.below(2) === 0 ? hero.home : random.choice(TOWN_FACTS);
  const slots2 = Object.fromEntries(Object.entries(personSlots(second)).map(([key, value]) => [`${key}2`, value]));
  const scene = new Scene(random, forms.LISTS, { ...townSlots(town), ...personSlots(hero), ...slots2 });
  return { scene, hero, second, town };
}

function several(random: Random, templates: readonly string[], low: number, high: number): string[] {
  return random.sample(templates, random.randInt(low, high));
}

function storyDocument(random: Random): string {
  const { scene, town } = castScene(random);
  const first = [
    scene.raw(forms.OPENINGS),
    ...several(random, forms.INTRODUCTIONS, 1, 3).map((form) => scene.raw(form)),
  ];
  if (random.below(3) === 0) first.push(townSentence(scene, town));
  const second = [scene.raw(forms.WISHES), scene.raw(forms.TROUBLES)];
  const third = [
    scene.raw(forms.HELPERS),
    ...several(random, forms.DIALOGUES, 1, 2).map((form) => scene.raw(form)),
    ...several(random, forms.ATTEMPTS, 1, 3).map((form) => scene.raw(form)),
  ];
  const last = [scene.raw(forms.RESOLUTIONS), scene.raw(forms.ENDINGS)];
  const paragraphs = [first, second, third, last].map((sentences) => capitalise(sentences.join(" ")));
  if (random.below(3) > 0) return paragraphs.join(random.below(2) === 0 ? "\n" : " ");
  const title = scene.raw([
    "the {quality#1} {thing#1}",
    "{first} and the {thing#1}",
    "{first} and {first2}",
    "a {weekday} in {town}",
  ]);
  return `${capitalise(title)}\n\n${paragraphs.join("\n\n")}`;
}

/** One sentence that states a fact about the town {town} of the scene. */
function townSentence(scene: Scene, town: Town): string {
  const { random } = scene;
  return new Scene(random, forms.LISTS, townSlots(town)).raw(random.choice(TOWN_ATTRIBUTES).statements);
}

function portraitDocument(random: Random): string {
  const person = random.choice(PEOPLE);
  return portrait(random, { slots: personSlots(person), attributes: PERSON_ATTRIBUTES, least: 4 });
}

/** States some facts of one subject, the first with its name. */
export function portrait(
  random: Random,
  { slots, attributes, least, most = attributes.length }: {
    readonly slots: Readonly<Record<string, string>>;
    readonly attributes: readonly Attribute[];
    readonly least: number;
    readonly most?: number;
  },
): string {
  const scene = new Scene(random, forms.LISTS, slots);
  const chosen = random.sample(attributes, random.randInt(least, most));
  const sentences = chosen.map((attribute, i) => {
    const named = i === 0 || random.below(4) === 0;
    return scene.raw(named ? attribute.statements : attribute.continuations);
  });
  return capitalise(sentences.join(" "));
}

function townDocument(random: Random): string {
  const town = random.choice(TOWN_FACTS);
  const text = [portrait(random, { slots: townSlots(town), attributes: TOWN_ATTRIBUTES, least: 3 })];
  for (const person of PEOPLE.filter((one) => one.home === town && random.below(3) > 0)) {
    const scene = new Scene(random, forms.LISTS, personSlots(person));
    text.push(scene.say(random.sample(PERSON_ATTRIBUTES, 2).flatMap((attribute) => attribute.statements)));
  }
  const scene = new Scene(random, forms.LISTS, townSlots(town));
  text.push(scene.say(forms.REMARKS));
  return text.join(random.below(3) === 0 ? "\n" : " ");
}

/** Facts whose questions may be asked in training. */
const ASKED: readonly Fact[] = FACTS.filter((fact) => !isHeldOut(fact.key));
/** Marks before question and answer. */
const QUESTION_MARKS = [["Question: ", "Answer: "], ["Q: ", "A: "], ["", ""], ['"', '"']] as const;

function questionDocument(random: Random): string {
  const [before, after] = random.choice(QUESTION_MARKS);
  const close = before === '"' ? '"' : "";
  const lines: string[] = [];
  for (const fact of random.sample(ASKED, random.randInt(3, 6))) {
    const scene = new Scene(random, forms.LISTS, fact.slots);
    lines.push(`${before}${scene.say(fact.attribute.questions)}${close}`);
    lines.push(`${after}${scene.say(fact.attribute.answers)}${close}`);
  }
  return lines.join("\n");
}

function letterDocument(random: Random): string {
  const { scene, hero, second } = castScene(random);
  const day = calendarDay(random.below(365));
  const lines = several(random, forms.LETTER_LINES, 3, 6).map((form) => scene.raw(form));
  const close = scene.raw(["Yours, {first}", "With love from {first}", "Your friend {first}", "Best wishes, {who}"]);
  return `${hero.home.name}, ${day.weekday}, ${day.day} ${day.month}\n\nDear ${second.firstName},\n${
    capitalise(lines.join(" "))
  }\n${close}`;
}

function diaryDocument(random: Random): string {
  const { scene, hero } = castScene(random);
  const start = random.below(365);
  const entries = Array.from({ length: random.randInt(2, 4) }, (_, i) => {
    const day = calendarDay(start + i);
    const lines = several(random, forms.DIARY_LINES, 2, 4).map((form) => scene.raw(form));
    return `${day.weekday}, ${day.day} ${day.month}. ${capitalise(lines.join(" "))}`;
  });
  return `From the diary of ${hero.name}, ${hero.job} in ${hero.home.name}\n${entries.join("\n")}`;
}

function instructionDocument(random: Random): string {
  const { scene, hero } = castScene(random);
  const title = scene.say([
    "how to make {a:quality} {thing#1}",
    "how to {handle} {a:quality} {thing#1}",
    "how {first} makes {food}",
  ]);
  const steps = several(random, forms.STEPS, 4, 7);
  const lines = steps.map((form, i) => `${i + 1}. ${scene.say(form)}.`);
  return `${title}\n${lines.join("\n")}\n${
    capitalise(`${hero.firstName} learned this ${random.randInt(2, 20)} years ago.`)
  }`;
}

function remarkDocument(random: Random): string {
  const { scene } = castScene(random);
  const sentences: string[] = [];
  for (let i = random.randInt(5, 9); i > 0; i--) {
    if (random.below(3) === 0) sentences.push(scene.raw(forms.REMARKS));
    else {
      const [kind, members] = random.choice(KINDS);
      scene.set({ kind, member: random.choice(members) });
      sentences.push(scene.raw(forms.DEFINITIONS));
    }
  }
  return capitalise(sentences.join(" "));
}

function playDocument(random: Random): string {
  const { scene, hero, second } = castScene(random);
  const lines = several(random, forms.LINES, 5, 9).map((form, i) => {
    const speaker = i % 2 === 0 ? hero : second;
    return `${speaker.firstName}: ${scene.say(form)}`;
  });
  return `${hero.name} and ${second.name} sit in ${
    withArticle(scene.raw("{quality} {building}"))
  } in ${hero.home.name}.\n${lines.join("\n")}`;
}

/** A bill from the market: amounts, prices and their true sum. */
function marketDocument(random: Random): string {
  const { scene, hero, town } = castScene(random);
  const goods = random.sample(COUNTABLES, random.randInt(2, 5));
  let total = 0;
  const lines = goods.map(([one, many]) => {
    const count = random.randInt(1, 9);
    const price = random.randInt(1, 9);
    total += count * price;
    return `${count} ${count === 1 ? one : many}, ${price} ${price === 1 ? "coin" : "coins"} each: ${count * price}`;
  });
  const opening = scene.say(
    "{who} went to the market of {town} on {weekday} and [bought|brought home|paid for] these things.",
  );
  const close = random.below(2) === 0 ? `\n${capitalise(townSentence(scene, town))}` : "";
  return `${opening}\n${lines.join("\n")}\nIn all: ${total}\n${
    scene.say("{first} {handled} {a:quality} basket and went home to {home}.")
  }${hero.home === town ? "" : close}`;
}
