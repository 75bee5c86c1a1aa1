/**
 * The commands of a chat: one table, from which `/help`, completion and docs/chat.md come. A command whose wish cannot be met throws a
 * ChatError or a UsageError, and the chat goes on.
 */
import { format as formatDuration } from "@std/fmt/duration";
import type { Message } from "../data/conversation.ts";
import { conversationFile, expandHome, loadConversation } from "./chat_file.ts";
import type { ChatInput } from "./chat_input.ts";
import { type AnswerSettings, ChatError } from "./chat_partner.ts";
import type { Conversation } from "./conversation.ts";
import { convertFlag, type Flag } from "./flags.ts";
import { wrap } from "./help.ts";
import { SAMPLING } from "./model_flags.ts";
import { plainOsError } from "./os_error.ts";
import { nearest } from "./parse.ts";
import type { Terminal } from "./progress.ts";

/** What a chat works with. */
export interface ChatOptions {
  readonly conversation: Conversation;
  readonly terminal: Terminal;
  readonly input: ChatInput;
}

/** What follows a command: the next line, an answer to the last question, or the end of the chat. */
export type Next = "line" | "answer" | "end";

/** A row of the table. */
export interface ChatCommand {
  readonly name: string;
  /** What may stand behind it: "FILE", "[NAME]". */
  readonly argument?: string;
  readonly help: string;
  run(argument: string, chat: ChatOptions): Next | void | Promise<Next | void>;
}

const DEFAULT_FILE = "chat.jsonl";

/** All commands, in the order of the help. */
export const CHAT_COMMANDS: readonly ChatCommand[] = [
  {
    name: "/help",
    help: "lists these commands",
    run: (_, { terminal }) => terminal.tell(helpText(terminal.screen?.columns())),
  },
  { name: "/model", argument: "[NAME]", help: "lists the models, or lets another one go on", run: model },
  {
    name: "/temperature",
    argument: "[NUMBER]",
    help: "variety of the next answers; 0 = always the most probable token",
    run: setting("temperature", SAMPLING.temperature),
  },
  {
    name: "/topk",
    argument: "[NUMBER]",
    help: "chooses among this many tokens; 0 = all",
    run: setting("topK", SAMPLING["top-k"]),
  },
  {
    name: "/topp",
    argument: "[NUMBER]",
    help: "chooses among the tokens that together have this probability",
    run: setting("topP", SAMPLING["top-p"]),
  },
  {
    name: "/seed",
    argument: "[NUMBER]",
    help: "the same draws for each answer; without a number every answer draws anew",
    run: seed,
  },
  {
    name: "/system",
    argument: "[TEXT]",
    help: "tells the model what holds for the whole conversation; without a text nothing",
    run: system,
  },
  { name: "/undo", help: "forgets the last question with its answer", run: undo },
  { name: "/retry", help: "asks the last question again; the new answer takes the place of the old one", run: retry },
  {
    name: "/save",
    argument: "[FILE]",
    help: `writes the conversation as a line of JSON, as training data has it (${DEFAULT_FILE}), or as .txt or .md`,
    run: save,
  },
  {
    name: "/load",
    argument: "[FILE]",
    help: `goes on with a conversation that was saved (${DEFAULT_FILE})`,
    run: load,
  },
  { name: "/stats", help: "what the context holds, how fast the last answer was, how answers are drawn", run: stats },
  { name: "/clear", help: "forgets the conversation; the system message stays", run: clear },
  { name: "/quit", help: "leaves; so do quit, exit and Ctrl-D; Ctrl-C stops an answer", run: () => "end" },
];

const ALIASES: Readonly<Record<string, string>> = { quit: "/quit", exit: "/quit", "/exit": "/quit", clear: "/clear" };

/** Tells whether a message is a command: a word with one slash in front, or one of the words that need none. */
export function isCommand(text: string): boolean {
  return text in ALIASES || /^\/[^\s/]*(\s|$)/.test(text);
}

/** Runs a command. @throws {ChatError} {UsageError} where it is unknown or its wish cannot be met. */
export async function runCommand(text: string, chat: ChatOptions): Promise<Next> {
  const [_, word, argument] = /^(\S+)\s*([^]*)$/.exec(text)!;
  const name = ALIASES[word] ?? word;
  const row = CHAT_COMMANDS.find((row) => row.name === name);
  if (row === undefined) {
    const [longer] = name.length > 1 ? completeCommand(name) : [];
    const near = longer ? `; did you mean "${longer}"?` : nearest(name, CHAT_COMMANDS.map(({ name }) => name));
    throw new ChatError(`Cannot run ${JSON.stringify(name)}: there is no such command${near || "; /help lists them"}`);
  }
  if (argument !== "" && row.argument === undefined) {
    throw new ChatError(`Cannot run ${name}: ${JSON.stringify(argument)} follows it, expected nothing`);
  }
  return await row.run(argument, chat) ?? "line";
}

/** Lists the commands and names that the beginning of a line may go on to. */
export function completeCommand(line: string): string[] {
  return line.startsWith("/") ? CHAT_COMMANDS.map(({ name }) => name).filter((name) => name.startsWith(line)) : [];
}

function helpText(columns = Infinity): string {
  const rows = CHAT_COMMANDS.map(({ name, argument, help }) => [`${name}${argument ? ` ${argument}` : ""}`, help]);
  const indent = 2 + Math.max(...rows.map(([use]) => use.length));
  const width = Math.min(Math.max(columns, indent + 20), 100);
  return [
    ...rows.map(([use, help]) => use.padEnd(indent) + wrap(help, indent, { width })),
    wrap('A line that ends in \\ goes on in the next one; between """ and """ all lines belong together.', 0, {
      width,
    }),
  ].join("\n");
}

/** Writes the table of docs/chat.md. */
export function chatCommandTable(): string {
  const rows = CHAT_COMMANDS.map(({ name, argument, help }) =>
    `| \`${name}${argument ? ` ${argument}` : ""}\` | ${help} |`
  );
  return ["| command | does |", "| --- | --- |", ...rows].join("\n");
}

async function model(name: string, { conversation: { partner }, terminal }: ChatOptions): Promise<void> {
  if (name === "") {
    const models = await partner.models();
    return terminal.tell(models.map((each) => `${each === partner.model ? "*" : " "} ${each}`).join("\n"));
  }
  await partner.use(name);
  terminal.tell(
    `${partner.model} goes on from here${partner.completes ? "; it is a base model and continues text" : ""}`,
  );
}

/** Makes a command that sets or shows a number of the settings, which is checked as the flag is. */
function setting(key: "temperature" | "topK" | "topP", flag: Flag) {
  return (text: string, { conversation, terminal }: ChatOptions) => {
    if (text !== "") {
      const value = convertFlag(flag, text, { where: commandOf(key) }) as number;
      conversation.settings = { ...conversation.settings, [key]: value };
    }
    terminal.tell(settingText(conversation.settings, key));
  };
}

function seed(text: string, { conversation, terminal }: ChatOptions): void {
  const { seed: _, ...others } = conversation.settings;
  conversation.settings = text === ""
    ? others
    : { ...others, seed: convertFlag(SAMPLING.seed, text, { where: "/seed" }) as number };
  terminal.tell(settingText(conversation.settings, "seed"));
}

function settingText(settings: AnswerSettings, key: "temperature" | "topK" | "topP" | "seed"): string {
  const value = settings[key];
  if (value !== undefined) return `${commandOf(key).slice(1)} ${value}`;
  return key === "seed" ? "every answer draws anew" : `${commandOf(key).slice(1)} as the server has it`;
}

function commandOf(key: string): string {
  return `/${key.toLowerCase()}`;
}

function system(text: string, { conversation, terminal }: ChatOptions): void {
  if (text !== "" && conversation.partner.completes) {
    throw new ChatError("Cannot set a system message: a base model continues text and knows none");
  }
  conversation.system = text;
  terminal.tell(text === "" ? "No system message" : "The system message holds from the next answer on");
}

function undo(_: string, { conversation, terminal }: ChatOptions): void {
  const question = conversation.undo();
  if (question === undefined) throw new ChatError("Cannot undo: nothing was said yet");
  terminal.tell(`Forgotten: ${oneLine(question)}`);
}

function retry(_: string, { conversation, terminal }: ChatOptions): Next {
  if (conversation.questions === 0) throw new ChatError("Cannot retry: nothing was asked yet");
  const { seed } = conversation.settings;
  if (conversation.isRepeatable) {
    terminal.tell(`The answer will be the same: ${seed === undefined ? "the temperature is 0" : `/seed is ${seed}`}`);
  }
  return "answer";
}

/** Writes the conversation; asks before a file is replaced. */
async function save(given: string, { conversation, terminal, input }: ChatOptions): Promise<void> {
  if (conversation.questions === 0) throw new ChatError("Cannot save: nothing was said yet");
  const path = expandHome(given || DEFAULT_FILE);
  const text = conversationFile(path, conversation.messages);
  try {
    Deno.writeTextFileSync(path, text, { createNew: true });
  } catch (error) {
    if (!(error instanceof Deno.errors.AlreadyExists)) throw cannotSave(path, error);
    const agreed = await input.readLine(`${JSON.stringify(path)} exists. Replace it? [y/N] `, { forget: true });
    if (!/^y(es)?$/i.test(agreed?.trim() ?? "")) return terminal.tell("Not saved");
    try {
      Deno.writeTextFileSync(path, text);
    } catch (error) {
      throw cannotSave(path, error);
    }
  }
  terminal.tell(`Saved to "${path}"`);
}

function cannotSave(path: string, error: unknown): ChatError {
  return new ChatError(plainOsError(`Cannot save "${path}": ${(error as Error).message}`), { cause: error });
}

function load(given: string, { conversation, terminal }: ChatOptions): void {
  const messages: Message[] = loadConversation(expandHome(given || DEFAULT_FILE));
  conversation.load(messages);
  const last = messages.findLast(({ role }) => role === "user")!.content as string;
  terminal.tell(`${count(conversation.questions, "question")}, the last one: ${oneLine(last)}`);
}

function clear(_: string, { conversation, terminal }: ChatOptions): void {
  conversation.clear();
  terminal.tell("Forgotten");
}

function stats(_: string, { conversation, terminal }: ChatOptions): void {
  const { partner, questions, last, settings, system } = conversation;
  const { promptTokens, cachedTokens, answerTokens, contextLen, droppedMessages = 0, firstMs = 0, restMs = 0 } = last ??
    {};
  const lines = [
    `${partner.model}, ${count(questions, "question")}${system && `, system message: ${oneLine(system)}`}`,
  ];
  if (promptTokens !== undefined) {
    const used = promptTokens + (answerTokens ?? 0);
    lines.push(
      `context: ${used}${contextLen === undefined ? "" : ` of ${contextLen}`} tokens, ${promptTokens} of them prompt` +
        `${cachedTokens === undefined ? "" : ` (${cachedTokens} from the cache)`}` +
        `${droppedMessages === 0 ? "" : `; the oldest ${count(droppedMessages, "message")} left out`}`,
    );
  }
  if (answerTokens) {
    const first = formatDuration(Math.round(firstMs), { ignoreZero: true }) || "0ms";
    const speed = restMs > 0 ? 1000 * (answerTokens - 1) / restMs : 0;
    lines.push(
      `last answer: ${count(answerTokens, "token")}, the first after ${first}, then ${speed.toFixed(1)} a second`,
    );
  }
  const keys = (["temperature", "topK", "topP"] as const).filter((key) => settings[key] !== undefined);
  const drawn = keys.map((key) => settingText(settings, key));
  if (drawn.length < 3) drawn.push("the rest as the server has it");
  terminal.tell([...lines, [...drawn, settingText(settings, "seed")].join(", ")].join("\n"));
}

function count(n: number, noun: string): string {
  return `${n} ${noun}${n === 1 ? "" : "s"}`;
}

function oneLine(text: string): string {
  const line = text.replace(/\s+/g, " ").trim();
  return [...line].length > 60 ? `${[...line].slice(0, 60).join("")}...` : line;
}
