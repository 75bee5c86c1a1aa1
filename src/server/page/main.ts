/** The page: joins the conversations of this browser, the server, the thread, the list, the message box and the settings. */
import {
  addAnswer,
  addQuestion,
  type Answer,
  type Conversation,
  newConversation,
  pathTo,
  type Question,
  requestMessages,
  showBranch,
} from "./chat.ts";
import { runCommand } from "./commands.ts";
import { Composer } from "./composer.ts";
import { Connection } from "./connection.ts";
import { byId } from "./dom.ts";
import { explainProblem, helpNote } from "./explain.ts";
import { exportFile, importFile } from "./files.ts";
import { showGreeting } from "./greeting.ts";
import { keep, readKept } from "./kept.ts";
import { banner, note, type NoticeAction, toast } from "./notices.ts";
import { type ChatSettings, readSettings } from "./preferences.ts";
import { Run } from "./run.ts";
import { openSettings } from "./settings.ts";
import { Sidebar } from "./sidebar.ts";
import { DatabaseShelf, MemoryShelf, type Shelf, Store, tabChannel } from "./store.ts";
import type { Model, Problem } from "./stream.ts";
import { Thread } from "./thread.ts";

const SETTINGS = "settings";
const CURRENT = "current";
const SAVE_EVERY_MS = 1500;

class Page {
  readonly #connection = new Connection({
    models: () => {
      this.#showGreeting();
      this.#showFigures();
    },
    gone: () => this.#showBanner(),
  });
  readonly #store: Store;
  /** Answers on their way, by conversation. */
  readonly #runs = new Map<string, Run>();
  readonly #thread: Thread;
  readonly #composer: Composer;
  readonly #sidebar: Sidebar;
  #settings: ChatSettings = readSettings(readKept("local", SETTINGS));
  #current: Conversation = newConversation();
  #unsavedReason = "";
  #figuresFrame = 0;

  constructor(shelf: Shelf) {
    this.#thread = new Thread({
      edit: (question, text) => this.#ask(this.#current, { text, parent: question.parent }),
      regenerate: (answer) => answer.parent !== null && this.#answer(this.#current, answer.parent),
      showBranch: (turn) => {
        showBranch(this.#current, turn);
        void this.#store.save(this.#current);
        this.#show();
      },
    });
    this.#composer = new Composer({
      send: (text) => this.#send(text),
      stop: () => this.#runs.get(this.#current.id)?.stop(),
      editLast: () => this.#thread.editLast(),
    });
    this.#sidebar = new Sidebar({
      open: (conversation) => this.#open(conversation),
      rename: (conversation, title) => this.#rename(conversation, title),
      remove: (conversation) => this.#remove(conversation),
      export: (conversation) => exportFile([conversation]),
    });
    this.#store = new Store(shelf, {
      channel: tabChannel(),
      listener: { changed: (id) => this.#changed(id), unsaved: (reason) => this.#unsaved(reason) },
    });
    this.#apply();
    this.#listen();
  }

  /** Reads what was kept and asks for the models. */
  async start(): Promise<void> {
    const lastId = readKept("session", CURRENT) ?? "";
    this.#show();
    byId("shell").classList.add("ready");
    if (matchMedia("(hover: hover)").matches) this.#composer.focus(); // on a phone the keyboard would cover the page
    void this.#connection.load();
    const unreadable = await this.#store.load();
    if (unreadable > 0) toast(`${unreadable} conversations are of another version of this page and are not shown.`);
    const last = this.#store.get(lastId);
    if (last !== undefined && this.#current.turns.length === 0) this.#current = last;
    this.#show();
  }

  #listen(): void {
    byId("new").addEventListener("click", () => this.#new());
    byId("settings-open").addEventListener("click", () => this.#openSettings());
    byId("model").addEventListener("click", () => this.#openSettings());
    byId("export").addEventListener("click", () => exportFile(this.#store.list()));
    const file = byId<HTMLInputElement>("import-file");
    byId("import").addEventListener("click", () => file.click());
    file.addEventListener("change", () => {
      const [chosen] = file.files ?? [];
      if (chosen !== undefined) void importFile(chosen, this.#store).then(() => this.#showList());
      file.value = "";
    });
    document.addEventListener("keydown", (event) => this.#pressed(event));
    addEventListener("beforeunload", (event) => this.#store.unsavedCount > 0 && event.preventDefault());
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) return;
      for (const id of this.#runs.keys()) void this.#store.save(this.#store.get(id)!);
    });
  }

  #pressed(event: KeyboardEvent): void {
    const hasCommand = event.ctrlKey || event.metaKey;
    // Chrome keeps Ctrl+Shift+N for itself in a window with tabs: O does the same there.
    if (hasCommand && event.shiftKey && ["KeyN", "KeyO"].includes(event.code)) this.#new();
    else if (hasCommand && !event.shiftKey && event.code === "KeyK") this.#sidebar.focusSearch();
    else if (event.key === "Escape" && document.querySelector("dialog[open]") === null) {
      const run = this.#runs.get(this.#current.id);
      if (run === undefined) return;
      run.stop();
      this.#composer.focus();
    } else return;
    event.preventDefault();
  }

  // What is shown

  #show(): void {
    const runs = new Set([...this.#runs.values()].map(({ answer }) => answer));
    this.#thread.opensTokens = this.#settings.withProbabilities;
    this.#thread.show(this.#current, (answer) => runs.has(answer));
    const last = pathTo(this.#current).at(-1);
    if (last?.role === "assistant" && !runs.has(last)) this.#explainEnd(last);
    byId("title").textContent = this.#current.title;
    document.title = this.#current.turns.length > 0 ? `${this.#current.title} – nanochat` : "nanochat";
    keep("session", CURRENT, this.#current.id);
    this.#composer.setRunning(this.#runs.has(this.#current.id));
    this.#showList();
    this.#showFigures();
    this.#showGreeting();
  }

  #showList(): void {
    const runningIds = new Set(this.#runs.keys());
    this.#sidebar.show(this.#store.list(), { currentId: this.#current.id, runningIds });
  }

  #showFigures(): void {
    const answer = pathTo(this.#current).findLast((turn): turn is Answer => turn.role === "assistant");
    const run = this.#runs.get(this.#current.id);
    const speed = run === undefined ? answer?.tokPerSec : run.tokPerSec;
    const used = answer?.promptTokens === undefined
      ? undefined
      : answer.promptTokens + (run?.tokens ?? answer.completionTokens ?? 0);
    const { contextLen } = this.#model() ?? {};
    const figures = [
      speed === undefined ? undefined : `${speed.toFixed(speed < 10 ? 1 : 0)} tok/s`,
      used === undefined || contextLen === undefined ? undefined : `${used} of ${contextLen} tokens of context`,
    ];
    byId("figures").textContent = figures.filter((each) => each !== undefined).join(" · ");
  }

  #showGreeting(): void {
    const model = this.#model();
    this.#composer.setPlaceholder(model?.completes ? "Write the beginning of a text" : "Write a message");
    showGreeting(model, (idea) => this.#send(idea));
  }

  #apply(): void {
    const { theme } = this.#settings;
    if (theme === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
  }

  // Conversations

  #new(): void {
    if (this.#current.turns.length > 0) this.#current = newConversation();
    this.#show();
    this.#sidebar.closeIfNarrow();
    this.#composer.focus();
  }

  #open(conversation: Conversation): void {
    this.#current = conversation;
    this.#show();
    if (matchMedia("(max-width: 800px)").matches) this.#sidebar.closeIfNarrow();
  }

  #rename(conversation: Conversation, title: string): void {
    conversation.title = title;
    conversation.isNamed = true;
    void this.#store.save(conversation);
    this.#showList();
    if (conversation === this.#current) byId("title").textContent = title;
  }

  #remove(conversation: Conversation): void {
    this.#runs.get(conversation.id)?.stop();
    void this.#store.remove(conversation.id);
    const wasCurrent = conversation === this.#current;
    if (wasCurrent) this.#current = newConversation();
    this.#show();
    toast(`“${conversation.title}” was deleted.`, {
      label: "Undo",
      run: () => {
        void this.#store.save(conversation);
        if (wasCurrent && this.#current.turns.length === 0) this.#current = conversation;
        this.#show();
      },
    });
  }

  /** Another tab changed a conversation, or it got turns of another tab. */
  #changed(id: string): void {
    if (id !== this.#current.id) return this.#showList();
    const isEdited = document.querySelector(".editor") !== null;
    if (this.#store.get(id) === undefined && this.#current.turns.length > 0) this.#current = newConversation();
    if (isEdited || this.#runs.has(id)) this.#showList();
    else this.#show();
  }

  #unsaved(reason: string): void {
    this.#unsavedReason = reason;
    this.#showBanner();
  }

  /** Shows the state that lasts and matters most. */
  #showBanner(): void {
    const count = this.#store.unsavedCount;
    if (count === 0) {
      return banner(this.#connection.isGone ? "The server cannot be reached. Waiting for it to come back." : undefined);
    }
    const what = count === 1 ? "One conversation is" : `${count} conversations are`;
    banner(`${what} kept only until this tab is closed: ${this.#unsavedReason}.`, [
      { label: "Try again", run: () => void this.#store.retry() },
      { label: "Export all", run: () => exportFile(this.#store.list()) },
    ]);
  }

  // Questions and answers

  /** Takes a text of the message box; false where it has to wait. */
  #send(text: string): boolean {
    const command = runCommand(text, this.#settings);
    if (command !== undefined) {
      if (command.type === "clear") this.#new();
      else if (command.type === "help") this.#thread.attach(helpNote());
      else {
        if (command.type === "set") this.#change(command.change);
        this.#thread.attach(note(command.text));
      }
      return true;
    }
    if (this.#runs.has(this.#current.id)) {
      toast("The answer is not finished. Esc stops it.");
      return false;
    }
    this.#ask(this.#current, { text, parent: this.#current.head });
    return true;
  }

  #ask(conversation: Conversation, { text, parent }: { text: string; parent: string | null }): void {
    this.#runs.get(conversation.id)?.stop();
    const question: Question = addQuestion(conversation, { text, parent });
    this.#answer(conversation, question.id);
  }

  #answer(conversation: Conversation, questionId: string): void {
    this.#runs.get(conversation.id)?.stop();
    const settings = this.#settings;
    const model = this.#model()?.id ?? settings.model ?? "";
    const messages = requestMessages(conversation, { until: questionId, system: settings.systemPrompt });
    const answer = addAnswer(conversation, { parent: questionId, model });
    const { temperature, topK, topP, withProbabilities } = settings;
    const [seed, maxTokens] = [settings.seed ?? undefined, settings.maxTokens ?? undefined];
    const request = { model, messages, temperature, topK, topP, seed, maxTokens, withProbabilities };
    void this.#make(
      conversation,
      new Run(answer, {
        server: this.#connection.server,
        request,
        listener: {
          grew: () => this.#grew(conversation, answer),
          waits: (seconds) => this.#waits(conversation, seconds),
          needsKey: () => this.#connection.askKey(),
          context: (contextLen) => this.#connection.learnContext(model, contextLen),
        },
      }),
    );
  }

  async #make(conversation: Conversation, run: Run): Promise<void> {
    const { answer } = run;
    this.#runs.set(conversation.id, run);
    const saving = setInterval(() => void this.#store.save(conversation), SAVE_EVERY_MS);
    void this.#store.save(conversation).then(keepForGood);
    this.#show();
    const problem = await run.finish();
    clearInterval(saving);
    if (this.#runs.get(conversation.id) === run) this.#runs.delete(conversation.id);
    conversation.updated = Date.now();
    if (this.#store.get(conversation.id) !== undefined) void this.#store.save(conversation);
    this.#showList();
    if (conversation.id !== this.#current.id) return;
    this.#composer.setRunning(this.#runs.has(conversation.id));
    this.#thread.finish(answer);
    this.#showFigures();
    if (problem !== undefined) this.#explain(answer, problem);
  }

  #grew(conversation: Conversation, answer: Answer): void {
    if (conversation.id !== this.#current.id) return;
    this.#thread.grew(answer);
    this.#figuresFrame ||= requestAnimationFrame(() => {
      this.#figuresFrame = 0;
      this.#showFigures();
    });
  }

  #waits(conversation: Conversation, seconds: number): void {
    const run = this.#runs.get(conversation.id);
    if (run === undefined || conversation.id !== this.#current.id) return;
    const wait = note(`The server is busy. Asking again in ${seconds} s.`, [
      { label: "Ask now", run: () => run.retryNow() },
      { label: "Stop", run: () => run.stop() },
    ]);
    this.#thread.attach(seconds > 0 ? wait : undefined, run.answer);
  }

  /** Says below an answer why there is no more of it, and what can be done. */
  #explain(answer: Answer, problem: Problem): void {
    const remedies = {
      again: () => this.#again(answer),
      edit: () => void this.#thread.editLast(),
      chooseModel: () => this.#openSettings(),
    };
    this.#thread.attach(explainProblem(problem, { contextLen: this.#model()?.contextLen, remedies }), answer);
    this.#connection.noticed(problem);
  }

  /** The same for an answer of an earlier visit. */
  #explainEnd(answer: Answer): void {
    const again: NoticeAction = { label: "Try again", run: () => this.#again(answer) };
    if (answer.end === "failed") this.#thread.attach(note("This answer was not finished.", [again]), answer);
    else if (answer.end === "running") {
      this.#thread.attach(note("This answer is made in another tab, or its tab was closed.", [again]), answer);
    }
  }

  #again(answer: Answer): void {
    if (answer.parent === null) return;
    const conversation = this.#current;
    if (answer.parts.length === 0) conversation.turns = conversation.turns.filter((turn) => turn !== answer);
    this.#answer(conversation, answer.parent);
  }

  // Settings, models, the server

  #change(change: Partial<ChatSettings>): void {
    this.#settings = { ...this.#settings, ...change };
    if (!keep("local", SETTINGS, JSON.stringify(this.#settings))) {
      toast("This browser does not keep the settings: they hold until this tab is closed.");
    }
    this.#apply();
    this.#showGreeting();
    this.#showFigures();
    this.#thread.opensTokens = this.#settings.withProbabilities;
  }

  #openSettings(): void {
    openSettings(this.#settings, {
      models: this.#connection.models,
      modelId: this.#model()?.id,
      change: (change) => this.#change(change),
    });
  }

  #model(): Model | undefined {
    return this.#connection.model(this.#settings.model);
  }
}

/** Asks the browser not to clear what is kept when it needs room; missing where the page comes over plain http. */
function keepForGood(): void {
  navigator.storage?.persist?.().catch(() => {});
}

async function openShelf(): Promise<Shelf> {
  try {
    return await DatabaseShelf.open();
  } catch {
    toast("This browser keeps no conversations here: they last until the tab is closed.");
    return new MemoryShelf();
  }
}

await new Page(await openShelf()).start();
