/** The messages of the conversation that is shown. A growing answer is drawn at most once a frame. */
import { type Answer, type Conversation, pathTo, type Question, siblings, textOf, type Turn } from "./chat.ts";
import { announce, button, byId, copyButton, make } from "./dom.ts";
import { TokenView } from "./probabilities.ts";
import { AnswerBody } from "./render.ts";
import { Follower } from "./scroll.ts";

/** What a person can do with a message. */
export interface ThreadActions {
  edit(question: Question, text: string): void;
  regenerate(answer: Answer): void;
  showBranch(turn: Turn): void;
}

const ENDINGS: Partial<Record<Answer["end"], string>> = {
  length: "stopped at the limit of tokens",
  stopped: "stopped",
  failed: "not finished",
};

/** The list of messages. */
export class Thread {
  readonly #list = byId("thread");
  readonly #actions: ThreadActions;
  readonly #follower = new Follower(byId("scroll"), byId("latest"));
  readonly #answers = new Map<string, AnswerView>();
  readonly #pending = new Set<Answer>();
  #frame = 0;
  /** Whether answers with probabilities begin as their tokens. */
  opensTokens = false;

  constructor(actions: ThreadActions) {
    this.#actions = actions;
  }

  /** Shows a conversation. `isRunning` says which answers still come. */
  show(conversation: Conversation, isRunning: (answer: Answer) => boolean): void {
    this.#answers.clear();
    this.#pending.clear();
    const path = pathTo(conversation);
    const elements = path.map((turn) => {
      const branches = this.#branches(conversation, turn);
      if (turn.role === "user") return this.#question(turn, branches);
      const view = new AnswerView(turn, {
        branches,
        again: () => this.#actions.regenerate(turn),
        opensTokens: this.opensTokens,
      });
      this.#answers.set(turn.id, view);
      view.show();
      if (!isRunning(turn)) view.finish();
      return view.element;
    });
    this.#list.replaceChildren(...elements);
    byId("empty").hidden = path.length > 0;
    this.#follower.toEnd();
  }

  /** An answer grew: it is drawn in the next frame. */
  grew(answer: Answer): void {
    this.#pending.add(answer);
    if (this.#frame !== 0) return;
    this.#frame = requestAnimationFrame(() => {
      this.#frame = 0;
      this.#draw();
    });
  }

  /** An answer is over, however it ended. */
  finish(answer: Answer): void {
    this.#pending.add(answer);
    this.#draw();
    const view = this.#answers.get(answer.id);
    if (view === undefined) return;
    view.finish();
    this.#follower.grew();
    announce(`Answer: ${textOf(answer)}`);
  }

  /** Shows something below an answer, or at the end of the thread; undefined takes it away. */
  attach(element: HTMLElement | undefined, answer?: Answer): void {
    if (answer === undefined) {
      if (element !== undefined) this.#list.append(element);
      byId("empty").hidden ||= element !== undefined;
    } else this.#answers.get(answer.id)?.attach(element);
    this.#follower.grew();
  }

  /** Opens the last question for editing. Returns whether there is one. */
  editLast(): boolean {
    const edit = [...this.#list.querySelectorAll<HTMLButtonElement>("button.edit")].at(-1);
    edit?.click();
    return edit !== undefined;
  }

  #draw(): void {
    for (const answer of this.#pending) this.#answers.get(answer.id)?.show();
    this.#pending.clear();
    this.#follower.grew();
  }

  #branches(conversation: Conversation, turn: Turn): HTMLElement | undefined {
    const all = siblings(conversation, turn);
    if (all.length < 2) return undefined;
    const at = all.indexOf(turn);
    const go = (step: number) => {
      const next = all[at + step];
      if (next !== undefined) this.#actions.showBranch(next);
    };
    const [left, right] = [
      button("Earlier version", { icon: "left", click: () => go(-1) }),
      button("Later version", { icon: "right", click: () => go(1) }),
    ];
    left.disabled = at === 0;
    right.disabled = at === all.length - 1;
    return make("span", {
      class: "branches",
      children: [left, make("span", { text: `${at + 1} / ${all.length}` }), right],
    });
  }

  #question(question: Question, branches: HTMLElement | undefined): HTMLElement {
    const bubble = make("div", { class: "bubble", text: question.text });
    const edit = button("Edit and send again", {
      icon: "edit",
      class: "icon small edit",
      showsLabel: false,
      click: () => open(),
    });
    const tools = make("div", {
      class: "tools",
      children: [branches, copyButton("Copy message", () => question.text), edit],
    });
    const article = make("article", {
      class: "question",
      attributes: { "aria-label": "You" },
      children: [bubble, tools],
    });
    const open = () => {
      const editor = this.#editor(question, () => {
        article.replaceChildren(bubble, tools);
        edit.focus();
      });
      article.replaceChildren(editor);
      editor.querySelector("textarea")!.focus();
    };
    return article;
  }

  #editor(question: Question, cancel: () => void): HTMLElement {
    const box = make("textarea", { attributes: { "aria-label": "Edit the message", rows: "1" } });
    box.value = question.text;
    const send = () => {
      if (box.value.trim() === "") return;
      if (box.value === question.text) cancel();
      else this.#actions.edit(question, box.value);
    };
    box.addEventListener("keydown", (event) => {
      if (event.key === "Escape") {
        event.stopPropagation();
        cancel();
      } else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        send();
      }
    });
    const row = make("div", {
      class: "editor-actions",
      children: [button("Cancel", { click: cancel }), button("Send", { class: "button main", click: send })],
    });
    return make("div", { class: "editor", children: [box, row] });
  }
}

/** One answer: its body, or its tokens, and a row of tools. */
class AnswerView {
  readonly element: HTMLElement;
  readonly #answer: Answer;
  readonly #body = new AnswerBody();
  readonly #waiting = make("div", {
    class: "waiting",
    attributes: { role: "img", "aria-label": "The model is at work" },
    children: [make("i"), make("i"), make("i")],
  });
  readonly #dropped = make("p", { class: "dropped" });
  readonly #attached = make("div", { class: "attached" });
  readonly #tools = make("div", { class: "tools" });
  readonly #branches: HTMLElement | undefined;
  readonly #again: () => void;
  readonly #opensTokens: boolean;
  #tokens: TokenView | undefined;
  #wasToggled = false;

  constructor(
    answer: Answer,
    { branches, again, opensTokens }: { branches?: HTMLElement; again: () => void; opensTokens: boolean },
  ) {
    this.#answer = answer;
    this.#branches = branches;
    this.#again = again;
    this.#opensTokens = opensTokens;
    this.element = make("article", {
      class: "answer running",
      attributes: { "aria-label": answer.model },
      children: [this.#dropped, this.#waiting, this.#body.element, this.#attached, this.#tools],
    });
  }

  show(): void {
    const { parts, tokens, droppedMessages = 0 } = this.#answer;
    this.#dropped.hidden = droppedMessages === 0;
    const what = droppedMessages === 1 ? "the oldest message was" : `the ${droppedMessages} oldest messages were`;
    this.#dropped.textContent = `The context is full: ${what} left out.`;
    this.#waiting.hidden = parts.length > 0;
    this.#body.show(parts);
    if (tokens !== undefined && this.#opensTokens && !this.#wasToggled) this.#showTokens(true);
    this.#tokens?.show(tokens ?? []);
  }

  finish(): void {
    this.#body.finish();
    this.#waiting.hidden = true;
    this.element.classList.remove("running");
    const copy = copyButton("Copy answer", () => textOf(this.#answer));
    const again = button("Answer again", { icon: "again", click: this.#again });
    const chances = this.#answer.tokens && this.#chancesButton();
    const facts = make("span", { class: "facts", text: factsOf(this.#answer) });
    this.#tools.replaceChildren(...[this.#branches, copy, again, chances, facts].filter((each) => each !== undefined));
  }

  attach(element: HTMLElement | undefined): void {
    this.#attached.replaceChildren(...(element === undefined ? [] : [element]));
    if (element !== undefined) this.#waiting.hidden = true;
  }

  #showTokens(isShown: boolean): void {
    if (isShown === (this.#tokens !== undefined)) return;
    const tokens = isShown ? new TokenView() : undefined;
    (this.#tokens ?? this.#body).element.replaceWith((tokens ?? this.#body).element);
    this.#tokens = tokens;
    tokens?.show(this.#answer.tokens ?? []);
  }

  #chancesButton(): HTMLButtonElement {
    const element = button("Probabilities", {
      icon: "chances",
      click: () => {
        this.#wasToggled = true;
        this.#showTokens(this.#tokens === undefined);
        element.setAttribute("aria-pressed", String(this.#tokens !== undefined));
      },
    });
    element.setAttribute("aria-pressed", String(this.#tokens !== undefined));
    return element;
  }
}

function factsOf({ completionTokens, tokPerSec, end, model }: Answer): string {
  return [
    model,
    completionTokens === undefined ? undefined : `${completionTokens} tokens`,
    tokPerSec === undefined ? undefined : `${tokPerSec.toFixed(tokPerSec < 10 ? 1 : 0)} tok/s`,
    ENDINGS[end],
  ].filter((each) => each !== undefined).join(" · ");
}
