/**
 * The facts of the small world: 64 people and 32 towns with their attributes, always the same, whatever seed the texts are written with.
 * Pretraining text states every fact in many forms; questions about a fact may be held out (`isHeldOut`), so that an answer to such a
 * question shows that the model knows the fact and not the question.
 */
import { Random } from "../src/data/random.ts";
import {
  COLOURS,
  FIRST_NAMES,
  FOODS,
  HOBBIES,
  JOBS,
  LANDMARKS,
  LAST_NAMES,
  MONTH_DAYS,
  MONTHS,
  PET_KINDS,
  PET_NAMES,
  PRODUCTS,
  REGIONS,
  RIVERS,
  TOWNS,
  WORKPLACES,
} from "./world_words.ts";

/** A town. Names are unique, products too. */
export interface Town {
  readonly name: string;
  readonly region: string;
  readonly river: string;
  readonly product: string;
  readonly landmark: string;
  /** Year of the foundation, different for each town. */
  readonly founded: number;
}

/** Somebody who lives in the world. First names and family names are unique. */
export interface Person {
  readonly index: number;
  readonly firstName: string;
  readonly lastName: string;
  /** First name and family name. */
  readonly name: string;
  readonly pronoun: "she" | "he";
  readonly age: number;
  readonly job: string;
  readonly workplace: string;
  readonly home: Town;
  readonly petKind: string;
  readonly petName: string;
  readonly food: string;
  readonly hobby: string;
  readonly colour: string;
  readonly birthMonth: string;
  readonly birthDay: number;
  /** Index of the best friend; friendship goes both ways. */
  readonly friend: number;
}

// The facts are drawn once from a seed of their own: part of the world, not of a corpus.
const draw = new Random(19091);

function dealt<T>(items: readonly T[], n: number): T[] {
  const result: T[] = [];
  while (result.length < n) {
    const round = [...items];
    draw.shuffle(round);
    result.push(...round);
  }
  return result.slice(0, n);
}

/** The 32 towns. */
export const TOWN_FACTS: readonly Town[] = (() => {
  const regions = dealt(REGIONS, TOWNS.length);
  const rivers = dealt(RIVERS, TOWNS.length);
  const products = dealt(PRODUCTS, TOWNS.length);
  const landmarks = dealt(LANDMARKS, TOWNS.length);
  const years = draw.sample(Array.from({ length: 800 }, (_, i) => 1100 + i), TOWNS.length);
  return TOWNS.map((name, i) => ({
    name,
    region: regions[i],
    river: rivers[i],
    product: products[i],
    landmark: landmarks[i],
    founded: years[i],
  }));
})();

/** The 64 people. */
export const PEOPLE: readonly Person[] = (() => {
  const n = FIRST_NAMES.length;
  const homes = dealt(TOWN_FACTS, n);
  const jobs = dealt(JOBS.map((_, i) => i), n);
  const lastNames = dealt(LAST_NAMES, n);
  const petKinds = dealt(PET_KINDS, n);
  const petNames = dealt(PET_NAMES, n);
  const foods = dealt(FOODS, n);
  const hobbies = dealt(HOBBIES, n);
  const colours = dealt(COLOURS, n);
  const months = dealt(MONTHS.map((_, i) => i), n);
  const pairs = dealt(FIRST_NAMES.map((_, i) => i), n);
  const friends = new Map<number, number>();
  for (let i = 0; i < n; i += 2) {
    friends.set(pairs[i], pairs[i + 1]);
    friends.set(pairs[i + 1], pairs[i]);
  }
  return FIRST_NAMES.map((firstName, i) => ({
    index: i,
    firstName,
    lastName: lastNames[i],
    name: `${firstName} ${lastNames[i]}`,
    pronoun: i % 2 === 0 ? "she" as const : "he" as const,
    age: draw.randInt(19, 80),
    job: JOBS[jobs[i]],
    workplace: WORKPLACES[jobs[i]],
    home: homes[i],
    petKind: petKinds[i],
    petName: petNames[i],
    food: foods[i],
    hobby: hobbies[i],
    colour: colours[i],
    birthMonth: MONTHS[months[i]],
    birthDay: draw.randInt(1, MONTH_DAYS[months[i]]),
    friend: friends.get(i)!,
  }));
})();

/** One attribute of a kind of subject: how it is said, asked and answered. Templates are those of `world_grammar.ts`. */
export interface Attribute {
  readonly key: string;
  /** Sentences that state the fact about the full name {who}. */
  readonly statements: readonly string[];
  /** Sentences that state it about a subject that was already named. */
  readonly continuations: readonly string[];
  readonly questions: readonly string[];
  /** Complete answers; each contains `value`. */
  readonly answers: readonly string[];
}

/** What is known about a person. */
export const PERSON_ATTRIBUTES: readonly Attribute[] = [
  {
    key: "job",
    statements: [
      "{who} works as {a:job}.",
      "{who} is {a:job} at the {workplace}.",
      "{who} is the {job} of {home}.",
      "By trade, {who} is {a:job}.",
    ],
    continuations: ["{he} works as {a:job} at the {workplace}.", "{he} is {a:job}.", "{his} job is that of {a:job}."],
    questions: ["What is {who}'s job?", "What does {who} do for a living?", "What kind of work does {who} do?"],
    answers: ["{who} is {a:job}.", "{who} works as {a:job}."],
  },
  {
    key: "home",
    statements: ["{who} lives in {home}.", "The home of {who} is in {home}.", "{home} is where {who} lives."],
    continuations: ["{he} lives in {home}.", "{his} house stands in {home}."],
    questions: ["Where does {who} live?", "In which town does {who} live?", "What town is {who} from?"],
    answers: ["{who} lives in {home}."],
  },
  {
    key: "pet",
    statements: [
      "{who} has {a:petKind} called {petName}.",
      "{who} keeps {a:petKind} named {petName}.",
      "{petName} is the {petKind} of {who}.",
    ],
    continuations: ["{he} has {a:petKind} called {petName}.", "{his} {petKind} is called {petName}."],
    questions: ["What is the name of {who}'s {petKind}?", "What is {who}'s {petKind} called?"],
    answers: ["{who}'s {petKind} is called {petName}."],
  },
  {
    key: "petKind",
    statements: ["The pet of {who} is {a:petKind}.", "{who} owns {a:petKind}."],
    continuations: ["{his} pet is {a:petKind}.", "At home {he} keeps {a:petKind}."],
    questions: ["What kind of pet does {who} have?", "Which animal does {who} keep?"],
    answers: ["{who} has {a:petKind}."],
  },
  {
    key: "age",
    statements: ["{who} is {age} years old.", "This year {who} turned {age}."],
    continuations: ["{he} is {age} years old.", "{he} is {age}."],
    questions: ["How old is {who}?", "What is the age of {who}?"],
    answers: ["{who} is {age} years old."],
  },
  {
    key: "food",
    statements: ["{who} likes {food} best of all.", "The favourite food of {who} is {food}."],
    continuations: ["{his} favourite food is {food}.", "{he} likes to eat {food}."],
    questions: ["What is {who}'s favourite food?", "What does {who} like to eat most?"],
    answers: ["{who}'s favourite food is {food}."],
  },
  {
    key: "hobby",
    statements: ["{who} loves {hobby}.", "The hobby of {who} is {hobby}.", "In the evening {who} likes {hobby}."],
    continuations: ["In {his} free time {he} likes {hobby}.", "{his} hobby is {hobby}."],
    questions: ["What is {who}'s hobby?", "What does {who} like to do in {his} free time?"],
    answers: ["{who}'s hobby is {hobby}."],
  },
  {
    key: "colour",
    statements: ["The favourite colour of {who} is {colour}.", "{who} likes the colour {colour} best."],
    continuations: ["{his} favourite colour is {colour}.", "{he} always wears something {colour}."],
    questions: ["What is {who}'s favourite colour?", "Which colour does {who} like best?"],
    answers: ["{who}'s favourite colour is {colour}."],
  },
  {
    key: "birthday",
    statements: ["{who} was born in {birthMonth}.", "The birthday of {who} is on {birthDay} {birthMonth}."],
    continuations: ["{his} birthday is on {birthDay} {birthMonth}.", "{he} was born in {birthMonth}."],
    questions: ["In which month was {who} born?", "In what month is {who}'s birthday?"],
    answers: ["{who} was born in {birthMonth}."],
  },
  {
    key: "friend",
    statements: ["The best friend of {who} is {friend}.", "{who} and {friend} are best friends."],
    continuations: ["{his} best friend is {friend}.", "{he} often meets {his} best friend, {friend}."],
    questions: ["Who is {who}'s best friend?", "What is the name of {who}'s best friend?"],
    answers: ["{who}'s best friend is {friend}."],
  },
];

/** What is known about a town. */
export const TOWN_ATTRIBUTES: readonly Attribute[] = [
  {
    key: "region",
    statements: ["{town} lies in {region}.", "{town} is a town in {region}."],
    continuations: ["It lies in {region}.", "The town is part of {region}."],
    questions: ["In which region is {town}?", "What region does {town} lie in?"],
    answers: ["{town} lies in {region}."],
  },
  {
    key: "river",
    statements: ["{town} stands on the river {river}.", "The river {river} flows through {town}."],
    continuations: ["The river {river} flows through it.", "It stands on the river {river}."],
    questions: ["Which river flows through {town}?", "On which river does {town} stand?"],
    answers: ["{town} stands on the river {river}."],
  },
  {
    key: "product",
    statements: ["{town} is known for its {product}.", "People come to {town} for its {product}."],
    continuations: ["It is known for its {product}.", "Everybody in {region} knows its {product}."],
    questions: ["What is {town} known for?", "For what is {town} famous?"],
    answers: ["{town} is known for its {product}."],
  },
  {
    key: "landmark",
    statements: ["In the middle of {town} stands {a:landmark}.", "{town} has {a:landmark}."],
    continuations: ["In its middle stands {a:landmark}.", "Visitors always want to see the {landmark}."],
    questions: ["What stands in the middle of {town}?", "What can visitors see in the middle of {town}?"],
    answers: ["In the middle of {town} stands {a:landmark}."],
  },
  {
    key: "founded",
    statements: ["{town} was founded in {founded}.", "The town of {town} was founded in the year {founded}."],
    continuations: ["It was founded in {founded}.", "The first houses were built in {founded}."],
    questions: ["When was {town} founded?", "In which year was {town} founded?"],
    answers: ["{town} was founded in {founded}."],
  },
];

/** Returns the words that the templates of PERSON_ATTRIBUTES need. */
export function personSlots(person: Person): Record<string, string> {
  const she = person.pronoun === "she";
  return {
    who: person.name,
    first: person.firstName,
    he: person.pronoun,
    him: she ? "her" : "him",
    his: she ? "her" : "his",
    job: person.job,
    workplace: person.workplace,
    home: person.home.name,
    petKind: person.petKind,
    petName: person.petName,
    age: String(person.age),
    food: person.food,
    hobby: person.hobby,
    colour: person.colour,
    birthMonth: person.birthMonth,
    birthDay: String(person.birthDay),
    friend: PEOPLE[person.friend].name,
  };
}

/** Returns the words that the templates of TOWN_ATTRIBUTES need. */
export function townSlots(town: Town): Record<string, string> {
  return {
    town: town.name,
    region: town.region,
    river: town.river,
    product: town.product,
    landmark: town.landmark,
    founded: String(town.founded),
  };
}

/** A fact that can be asked about. */
export interface Fact {
  /** "Mira Holt/job": the name under which it may be held out. */
  readonly key: string;
  readonly attribute: Attribute;
  readonly slots: Readonly<Record<string, string>>;
  /** What a right answer contains. */
  readonly value: string;
}

/** Every fact of the world. */
export const FACTS: readonly Fact[] = [
  ...PEOPLE.flatMap((person) => {
    const slots = personSlots(person);
    const value = { ...slots, pet: slots.petName, birthday: slots.birthMonth } as Record<string, string>;
    return PERSON_ATTRIBUTES.map((attribute) => ({
      key: `${person.name}/${attribute.key}`,
      attribute,
      slots,
      value: value[attribute.key],
    }));
  }),
  ...TOWN_FACTS.flatMap((town) => {
    const slots = townSlots(town);
    return TOWN_ATTRIBUTES.map((attribute) => ({
      key: `${town.name}/${attribute.key}`,
      attribute,
      slots,
      value: slots[attribute.key],
    }));
  }),
];

/** Returns the 32-bit FNV-1a hash of a text's UTF-16 units: the coin that splits texts and questions, equal on every machine. */
export function hash32(text: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  // FNV's low bits are weak for short texts; one more mix spreads the high ones down (murmur3's finaliser).
  hash ^= hash >>> 16;
  hash = Math.imul(hash, 0x85ebca6b);
  hash ^= hash >>> 13;
  hash = Math.imul(hash, 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

/**
 * Says whether a question is kept for evaluation: one key in six. Keys are "Mira Holt/job" for facts, "12+7" for operands (either order),
 * "lantern/n" for letter counts. No training text or conversation contains the question; facts themselves are always stated.
 */
export function isHeldOut(key: string): boolean {
  return hash32(key) % 6 === 0;
}

/** Returns the key of an arithmetic question; sums and products have one key for both orders. */
export function operandKey(a: number, operator: "+" | "-" | "*", b: number): string {
  return operator === "-" || a <= b ? `${a}${operator}${b}` : `${b}${operator}${a}`;
}
