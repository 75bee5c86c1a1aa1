/**
 * Conversations as a file, out and in. A file that comes in may be anybody's: every value is checked and copied by name, what is unknown
 * is left out, and one wrong value refuses the whole file.
 */
import type { Part } from "../../data/conversation.ts";
import type { Answer, AnswerEnd, Conversation, TokenChance, Turn } from "./chat.ts";

const FORMAT = "nanochat conversations";
const VERSION = 1;
/** Bytes of a file that is read at all. */
export const MAX_IMPORT_BYTES = 64 << 20;
const MAX_TEXT = 1_000_000;
const MAX_TITLE = 200;
const ENDS: readonly AnswerEnd[] = ["running", "stop", "length", "stopped", "failed"];
const PARTS: readonly Part["type"][] = ["text", "python", "python_output"];

/** Writes conversations as the text of a file. */
export function exportText(conversations: readonly Conversation[]): string {
  const plain = conversations.map((conversation) => ({ ...conversation, version: 0 }));
  return JSON.stringify({ format: FORMAT, version: VERSION, conversations: plain }, null, 1);
}

/**
 * Reads the text of a file.
 *
 * @throws {SyntaxError} naming the first thing that is not as it should be.
 */
export function importText(text: string): Conversation[] {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new SyntaxError("Cannot import the file: it is not JSON", { cause });
  }
  const file = record(value, "the file");
  if (file.format !== FORMAT) throw refuse("the file", "is something else", `an export of this page`);
  if (file.version !== VERSION) throw refuse("the file", `has version ${shown(file.version)}`, `version ${VERSION}`);
  return list(file.conversations, "its conversations").map((each, i) =>
    readConversation(each, `conversation ${i + 1}`)
  );
}

/**
 * Reads a conversation that was kept or exported.
 *
 * @throws {SyntaxError} as {@link importText}.
 */
export function readConversation(value: unknown, where: string): Conversation {
  const from = record(value, where);
  const turns: Turn[] = [];
  const known = new Map<string, Turn["role"]>();
  for (const [i, each] of list(from.turns, `${where}, turns`).entries()) {
    const turn = readTurn(each, `${where}, turn ${i + 1}`);
    if (known.has(turn.id)) throw refuse(`${where}, turn ${i + 1}`, "has the id of another turn", "one of its own");
    const parent = turn.parent === null ? "assistant" : known.get(turn.parent);
    if (parent === undefined) throw refuse(`${where}, turn ${i + 1}`, "follows no earlier turn", "its id");
    if (turn.role === "assistant" && parent !== "user") {
      throw refuse(`${where}, turn ${i + 1}`, "is an answer to no question", "a question before it");
    }
    known.set(turn.id, turn.role);
    turns.push(turn);
  }
  const head = from.head === null ? null : id(from.head, `${where}, head`);
  if (head !== null && !known.has(head)) throw refuse(`${where}, head`, "is no turn", "the id of a turn");
  return {
    ...{ id: id(from.id, `${where}, id`), title: string(from.title, `${where}, title`, MAX_TITLE) },
    ...{ isNamed: from.isNamed === true, created: time(from.created, where), updated: time(from.updated, where) },
    ...{ version: count(from.version, `${where}, version`), turns, head },
  };
}

function readTurn(value: unknown, where: string): Turn {
  const from = record(value, where);
  const common = {
    id: id(from.id, `${where}, id`),
    parent: from.parent === null ? null : id(from.parent, `${where}, parent`),
    time: time(from.time, where),
  };
  if (from.role === "user") return { role: "user", ...common, text: string(from.text, `${where}, text`) };
  if (from.role !== "assistant") throw refuse(`${where}, role`, `is ${shown(from.role)}`, "user or assistant");
  if (!ENDS.includes(from.end as AnswerEnd)) throw refuse(`${where}, end`, `is ${shown(from.end)}`, ENDS.join(", "));
  const answer: Answer = {
    ...{ role: "assistant", ...common, model: string(from.model, `${where}, model`, MAX_TITLE) },
    parts: list(from.parts, `${where}, parts`).map((part) => readPart(part, `${where}, part`)),
    end: from.end as AnswerEnd,
  };
  for (const name of ["promptTokens", "completionTokens", "tokPerSec", "droppedMessages"] as const) {
    if (from[name] !== undefined) answer[name] = count(from[name], `${where}, ${name}`);
  }
  if (from.tokens !== undefined) {
    answer.tokens = list(from.tokens, `${where}, tokens`).map((token) => readToken(token, `${where}, token`));
  }
  return answer;
}

function readPart(value: unknown, where: string): Part {
  const { type, text } = record(value, where);
  if (!PARTS.includes(type as Part["type"])) throw refuse(where, `has type ${shown(type)}`, PARTS.join(", "));
  return { type: type as Part["type"], text: string(text, `${where}, text`) };
}

function readToken(value: unknown, where: string): TokenChance {
  const one = (value: unknown) => {
    const { text, logprob } = record(value, where);
    if (typeof logprob !== "number" || !(logprob <= 0)) {
      throw refuse(where, "has no log-probability", "a number up to 0");
    }
    return { text: string(text, where, MAX_TITLE), logprob };
  };
  return { ...one(value), top: list(record(value, where).top, `${where}, top`).map(one) };
}

function record(value: unknown, where: string): Record<string, unknown> {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  throw refuse(where, `is ${shown(value)}`, "an object");
}

function list(value: unknown, where: string): unknown[] {
  if (Array.isArray(value)) return value;
  throw refuse(where, `is ${shown(value)}`, "a list");
}

function string(value: unknown, where: string, most = MAX_TEXT): string {
  if (typeof value !== "string") throw refuse(where, `is ${shown(value)}`, "text");
  if (value.length > most) throw refuse(where, `has ${value.length} letters`, `at most ${most}`);
  return value;
}

function id(value: unknown, where: string): string {
  if (typeof value === "string" && /^[a-z0-9]{8,64}$/.test(value)) return value;
  throw refuse(where, `is ${shown(value)}`, "8 to 64 small letters and digits");
}

function count(value: unknown, where: string): number {
  if (typeof value === "number" && value >= 0 && value < 1e15) return value;
  throw refuse(where, `is ${shown(value)}`, "a number of 0 or more");
}

function time(value: unknown, where: string): number {
  const ms = count(value, `${where}, time`);
  if (ms < 8.64e15) return ms;
  throw refuse(`${where}, time`, `is ${ms}`, "milliseconds since 1970");
}

function shown(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length <= 40 ? text : `${text.slice(0, 40)}…`;
}

function refuse(where: string, what: string, expected: string): SyntaxError {
  return new SyntaxError(`Cannot import the file: ${where} ${what}, expected ${expected}`);
}
