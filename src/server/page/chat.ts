/**
 * A conversation as a tree of turns: an edited question and a regenerated answer stand beside the old ones, so nothing is replaced.
 * `head` is the last turn of the branch that is shown; a parent always comes before its children.
 */
import type { Part } from "../../data/conversation.ts";

/** A token with its probability, and what might have stood at its place, best first. */
export interface TokenChance {
  readonly text: string;
  readonly logprob: number;
  readonly top: readonly { readonly text: string; readonly logprob: number }[];
}

/** What a person wrote. */
export interface Question {
  readonly role: "user";
  readonly id: string;
  readonly parent: string | null;
  /** Unix time in milliseconds. */
  readonly time: number;
  readonly text: string;
}

/** How an answer ended; "running" is one that still comes, or whose page was closed meanwhile. */
export type AnswerEnd = "running" | "stop" | "length" | "stopped" | "failed";

/** What a model answered. It grows while it is "running" and does not change afterwards. */
export interface Answer {
  readonly role: "assistant";
  readonly id: string;
  readonly parent: string | null;
  readonly time: number;
  readonly model: string;
  parts: Part[];
  end: AnswerEnd;
  /** Where the probabilities were asked for. */
  tokens?: TokenChance[];
  /** Tokens of the conversation before it, of itself, and a second. */
  promptTokens?: number;
  completionTokens?: number;
  tokPerSec?: number;
  /** Messages that were left out because the context was full. */
  droppedMessages?: number;
}

/** One turn. */
export type Turn = Question | Answer;

/** A conversation as it is kept. */
export interface Conversation {
  readonly id: string;
  title: string;
  /** Whether a person gave the title. */
  isNamed: boolean;
  readonly created: number;
  updated: number;
  /** Counts the writes: two tabs notice each other by it. */
  version: number;
  turns: Turn[];
  head: string | null;
}

/** A message as the API takes it. */
export interface RequestMessage {
  readonly role: "system" | "user" | "assistant";
  readonly content: string | readonly Part[];
}

const TITLE_LETTERS = 60;

/** Makes a random id; `crypto.randomUUID` is missing where the page comes over plain http from another machine. */
export function newId(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Makes an empty conversation. */
export function newConversation(now: number = Date.now()): Conversation {
  return {
    ...{ id: newId(), title: "New chat", isNamed: false, created: now, updated: now },
    ...{ version: 0, turns: [], head: null },
  };
}

/** Lists the turns from the first one to a turn, by default the head. */
export function pathTo(conversation: Conversation, id: string | null = conversation.head): Turn[] {
  const byId = new Map(conversation.turns.map((turn) => [turn.id, turn]));
  const path: Turn[] = [];
  for (let at = id; at !== null;) {
    const turn = byId.get(at);
    if (turn === undefined) break;
    path.push(turn);
    at = turn.parent;
  }
  return path.reverse();
}

/** Adds a question behind a turn and shows its branch; the first one of a conversation names it. */
export function addQuestion(
  conversation: Conversation,
  { text, parent, now = Date.now() }: { text: string; parent: string | null; now?: number },
): Question {
  const question: Question = { role: "user", id: newId(), parent, time: now, text };
  conversation.turns.push(question);
  conversation.head = question.id;
  conversation.updated = now;
  if (!conversation.isNamed && parent === null) conversation.title = titleOf(text);
  return question;
}

/** Adds an empty answer behind a question and shows its branch. */
export function addAnswer(
  conversation: Conversation,
  { parent, model, now = Date.now() }: { parent: string; model: string; now?: number },
): Answer {
  const answer: Answer = { role: "assistant", id: newId(), parent, time: now, model, parts: [], end: "running" };
  conversation.turns.push(answer);
  conversation.head = answer.id;
  conversation.updated = now;
  return answer;
}

/** Lists the turns that stand at the place of a turn, in the order in which they came. */
export function siblings(conversation: Conversation, turn: Turn): Turn[] {
  return conversation.turns.filter((other) => other.parent === turn.parent && other.role === turn.role);
}

/** Shows the branch that goes through a turn, to its newest end. */
export function showBranch(conversation: Conversation, turn: Turn): void {
  let last = turn;
  for (;;) {
    const next = conversation.turns.findLast(({ parent }) => parent === last.id);
    if (next === undefined) break;
    last = next;
  }
  conversation.head = last.id;
}

/** Gives the words of a turn, without what a tool was asked and said. */
export function textOf(turn: Turn): string {
  if (turn.role === "user") return turn.text;
  return turn.parts.filter(({ type }) => type === "text").map(({ text }) => text).join("");
}

/** Adds a piece to an answer; pieces of one kind in a row belong together. */
export function addPiece(answer: Answer, { type, text }: Part): void {
  const last = answer.parts.at(-1);
  if (last?.type === type) answer.parts[answer.parts.length - 1] = { type, text: last.text + text };
  else answer.parts.push({ type, text });
}

/** Makes the messages of a request for an answer behind a turn: answers that never came are left out, and turns alternate. */
export function requestMessages(
  conversation: Conversation,
  { until, system }: { until: string; system: string },
): RequestMessage[] {
  const messages: RequestMessage[] = system.trim() === "" ? [] : [{ role: "system", content: system }];
  for (const turn of pathTo(conversation, until)) {
    const last = messages.at(-1);
    if (turn.role === "assistant") {
      const isPlain = turn.parts.every(({ type }) => type === "text");
      if (turn.parts.length === 0) continue;
      messages.push({ role: "assistant", content: isPlain ? textOf(turn) : turn.parts });
    } else if (last?.role === "user") {
      messages[messages.length - 1] = { role: "user", content: `${last.content}\n\n${turn.text}` };
    } else messages.push({ role: "user", content: turn.text });
  }
  return messages;
}

/** Makes a title of the first words of a question. */
export function titleOf(text: string): string {
  const line = text.trim().replace(/\s+/g, " ");
  const letters = [...line];
  return letters.length <= TITLE_LETTERS ? line : `${letters.slice(0, TITLE_LETTERS - 1).join("").trimEnd()}…`;
}

/** Whether every word that is looked for occurs in the title or in a turn. */
export function matches(conversation: Conversation, query: string): boolean {
  const words = query.toLowerCase().split(/\s+/).filter((word) => word !== "");
  if (words.length === 0) return true;
  const text = [conversation.title, ...conversation.turns.map(textOf)].join("\n").toLowerCase();
  return words.every((word) => text.includes(word));
}

/**
 * Joins two states of one conversation that parted, as two tabs make them: the turns of both, of a turn that both have the one that is
 * further. What is shown stays as in `mine`, or goes on where the other side went on behind it.
 */
export function mergeConversations(mine: Conversation, other: Conversation): Conversation {
  const further = (a: Turn, b: Turn) => {
    if (a.role === "user" || b.role === "user") return a;
    if ((a.end === "running") !== (b.end === "running")) return a.end === "running" ? b : a;
    return textOf(b).length > textOf(a).length ? b : a;
  };
  const ours = new Map(mine.turns.map((turn) => [turn.id, turn]));
  const theirs = new Set(other.turns.map(({ id }) => id));
  const shared = other.turns.map((turn) => ours.has(turn.id) ? further(ours.get(turn.id)!, turn) : turn);
  const turns = [...shared, ...mine.turns.filter(({ id }) => !theirs.has(id))];
  const goesOn = pathTo({ ...other, turns }, other.head).some(({ id }) => id === mine.head);
  const newer = other.updated > mine.updated ? other : mine;
  const named = newer.isNamed ? newer : other.isNamed ? other : mine;
  return {
    ...mine,
    title: named.title,
    isNamed: named.isNamed,
    updated: newer.updated,
    version: Math.max(mine.version, other.version),
    turns,
    head: goesOn ? other.head : mine.head,
  };
}
