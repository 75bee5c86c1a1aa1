/** What the page knows of its server: the models, the key it asks for, and whether it is there at all. */
import { keep, readKept } from "./kept.ts";
import { toast } from "./notices.ts";
import { askKey } from "./settings.ts";
import { type Model, Problem, Server } from "./stream.ts";

const KEY = "key";
const KNOCK_MS = 3000;

/** What the connection tells the page. */
export interface ConnectionListener {
  /** The models, or what is known of one, changed. */
  models(): void;
  /** `isGone` changed. */
  gone(): void;
}

/** The server as it is now. */
export class Connection {
  readonly server = new Server(() => readKept("session", KEY) ?? undefined);
  readonly #listener: ConnectionListener;
  #models: readonly Model[] = [];
  #keyQuestion: Promise<boolean> | undefined;
  #isGone = false;

  /** Knows nothing before `load`. */
  constructor(listener: ConnectionListener) {
    this.#listener = listener;
  }

  /** The models, the default one first. */
  get models(): readonly Model[] {
    return this.#models;
  }

  /** Whether nobody answered the last time. */
  get isGone(): boolean {
    return this.#isGone;
  }

  /** Gives a model by its id, else the first one. */
  model(id: string | null): Model | undefined {
    return this.#models.find((model) => model.id === id) ?? this.#models[0];
  }

  /** Notes the context of a model as it is run. */
  learnContext(id: string, contextLen: number): void {
    this.#models = this.#models.map((model) => model.id === id ? { ...model, contextLen } : model);
  }

  /** Asks for the list of models. */
  async load(): Promise<void> {
    try {
      this.#models = await this.server.models();
      this.#listener.models();
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      if (error.kind === "key") await this.askKey();
      else if (!this.noticed(error)) toast(`${error.message}.`);
    }
  }

  /** Asks for the key, once, however many requests lack it. Returns whether there is another one now. */
  askKey(): Promise<boolean> {
    this.#keyQuestion ??= (async () => {
      const key = await askKey(readKept("session", KEY) !== null);
      this.#keyQuestion = undefined;
      if (key === undefined) return false;
      keep("session", KEY, key);
      if (this.#models.length === 0) void this.load();
      return true;
    })();
    return this.#keyQuestion;
  }

  /** Hears of a problem; where the server is away, knocks until it is there again. Returns whether it is. */
  noticed({ kind }: Problem): boolean {
    if (kind === "model") void this.load();
    if (kind !== "gone" && kind !== "closing") return false;
    if (!this.#isGone) {
      this.#isGone = true;
      this.#listener.gone();
      setTimeout(() => this.#knock(), KNOCK_MS);
    }
    return true;
  }

  async #knock(): Promise<void> {
    if (document.hidden || !await this.server.isThere()) return void setTimeout(() => this.#knock(), KNOCK_MS);
    this.#isGone = false;
    this.#listener.gone();
    toast("The server is there again.");
    await this.load();
  }
}
