/** What tests of the chat share: partners that say what scripts say, lines that are typed, and what was shown. */
import { Engine } from "../engine/engine.ts";
import { bytes, byteTokenizer, ScriptedModel, special } from "../engine/engine_testing.ts";
import { type ChatInput, Interrupted, type ReadOptions } from "./chat_input.ts";
import type { AnswerOptions, ChatPartner, Heard } from "./chat_partner.ts";
import { Conversation } from "./conversation.ts";
import { LocalPartner, type OpenModel } from "./local_partner.ts";
import type { Message } from "../data/conversation.ts";
import { Terminal } from "./progress.ts";

/** The token that ends an answer. */
export const END = special("<|assistant_end|>");

/** Returns the tokens of a whole answer. */
export const said = (text: string) => [...bytes(text), END];

/** Makes an open model that says what scripts say. */
export function openModel(
  name: string,
  { answers = [] as number[][], contextLen = 200, completes = false, verified = Promise.resolve() } = {},
) {
  const model = new ScriptedModel(answers, { contextLen });
  let isOpen = true;
  return {
    ...{ name, completes, verified, tokenizer: byteTokenizer, engine: new Engine(model, byteTokenizer) },
    prompts: model.prompts,
    get isOpen() {
      return isOpen;
    },
    [Symbol.dispose]: () => void (isOpen = false),
  } satisfies OpenModel & Record<string, unknown>;
}

/** Makes a partner with one local model. */
export function localPartner(model: OpenModel, others: Record<string, OpenModel> = {}): LocalPartner {
  return new LocalPartner(model, {
    names: () => [model.name, ...Object.keys(others)],
    open: (name) =>
      name in others ? Promise.resolve(others[name]) : Promise.reject(new Error(`Cannot find model "${name}"`)),
  });
}

/** One step of an answer: words, any piece, a promise to wait for, or an error. */
export type Step = string | Heard | Promise<unknown> | Error;

/** A partner that says what scripts say, one for each answer, and remembers what it was asked. */
export class ScriptedPartner implements ChatPartner {
  model = "first";
  readonly completes = false;
  readonly asked: (AnswerOptions["settings"] & { readonly messages: readonly Message[] })[] = [];

  constructor(readonly scripts: readonly (readonly Step[])[]) {}

  async *answer(messages: readonly Message[], { settings, signal }: AnswerOptions): AsyncGenerator<Heard, void, void> {
    const script = this.scripts[this.asked.length] ?? [];
    this.asked.push({ ...settings, messages: [...messages] });
    for (const step of script) {
      await step;
      if (signal?.aborted) return;
      if (step instanceof Error) throw step;
      if (typeof step === "string") yield { kind: "text", text: step };
      else if (!(step instanceof Promise)) yield step;
    }
  }

  models(): Promise<readonly string[]> {
    return Promise.resolve(["first", "second"]);
  }

  use(model: string): Promise<void> {
    this.model = model;
    return Promise.resolve();
  }
}

/** A chat whose lines are typed by a script (an Error among them is Ctrl-C), with everything that was shown. */
export function scriptedChat(
  lines: readonly (string | Interrupted)[],
  partner: ChatPartner,
  { json = false, quiet = false, isTerminal = true } = {},
) {
  let out = "";
  let err = "";
  const prompts: string[] = [];
  const forgotten: string[] = [];
  const sink = (write: (text: string) => void) => ({ write, isTerminal: () => false, columns: () => 80 });
  const terminal = new Terminal({
    ...{ json, quiet, verbose: false },
    out: sink((text) => void (out += text)),
    err: sink((text) => void (err += text)),
  });
  const rest = [...lines];
  let answering: AbortController | undefined;
  const input: ChatInput = {
    isTerminal,
    readLine(prompt, { forget = false }: ReadOptions = {}) {
      prompts.push(prompt);
      const line = rest.shift();
      if (forget) forgotten.push(String(line));
      return line instanceof Interrupted ? Promise.reject(line) : Promise.resolve(line ?? null);
    },
    interruptible() {
      answering = new AbortController();
      return { signal: answering.signal, [Symbol.dispose]() {} };
    },
  };
  const conversation = new Conversation(partner, { maxTokens: 40 });
  const seen = () => ({ out, err, prompts, forgotten });
  return { options: { conversation, terminal, input }, conversation, seen, abort: () => answering?.abort() };
}
