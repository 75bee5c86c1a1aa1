/** The box in which messages are written: grows with its text, keeps a draft, offers slash commands. */
import { suggestCommands } from "./commands.ts";
import { byId, make } from "./dom.ts";
import { keep, readKept } from "./kept.ts";

/** What the box asks for. */
export interface ComposerActions {
  /** Returns whether the text was taken. */
  send(text: string): boolean;
  stop(): void;
  /** The arrow key upwards in the empty box. */
  editLast(): void;
}

const DRAFT = "draft";

/** The message box with its buttons. */
export class Composer {
  readonly #actions: ComposerActions;
  readonly #input = byId<HTMLTextAreaElement>("input");
  readonly #suggestions = byId("suggestions");

  constructor(actions: ComposerActions) {
    this.#actions = actions;
    byId("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send();
    });
    byId("stop").addEventListener("click", () => {
      actions.stop();
      this.focus();
    });
    this.#input.addEventListener("input", () => this.#changed());
    this.#input.addEventListener("keydown", (event) => this.#pressed(event));
    this.#input.value = readKept("session", DRAFT) ?? "";
    this.#changed();
  }

  /** Puts the cursor into the box. */
  focus(): void {
    this.#input.focus();
  }

  /** Puts text into the box. */
  fill(text: string): void {
    this.#input.value = text;
    this.#changed();
    this.focus();
  }

  /** Shows the button that can be used: to send, or to stop. */
  setRunning(isRunning: boolean): void {
    const [send, stop] = [byId("send"), byId("stop")];
    const hadFocus = document.activeElement === send || document.activeElement === stop;
    send.hidden = isRunning;
    stop.hidden = !isRunning;
    if (hadFocus) this.focus();
  }

  /** Says what is to be written. */
  setPlaceholder(text: string): void {
    this.#input.placeholder = text;
  }

  #send(): void {
    const text = this.#input.value;
    if (text.trim() !== "" && this.#actions.send(text)) this.fill("");
  }

  #pressed(event: KeyboardEvent): void {
    if (event.isComposing) return; // Enter ends a word of an input method
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      this.#send();
    } else if (event.key === "Tab" && !event.shiftKey && !this.#suggestions.hidden) {
      const [first] = suggestCommands(this.#input.value);
      event.preventDefault();
      this.fill(`${first.name} `);
    } else if (event.key === "ArrowUp" && this.#input.value === "") {
      event.preventDefault();
      this.#actions.editLast();
    }
  }

  #changed(): void {
    const { style } = this.#input;
    style.setProperty("height", "auto");
    style.setProperty("height", `${this.#input.scrollHeight}px`);
    byId<HTMLButtonElement>("send").disabled = this.#input.value.trim() === "";
    keep("session", DRAFT, this.#input.value);
    const commands = suggestCommands(this.#input.value);
    this.#suggestions.hidden = commands.length === 0;
    this.#suggestions.replaceChildren(...commands.map(({ name, value, does }) => {
      const choose = make("button", {
        attributes: { type: "button", tabindex: "-1" },
        children: [make("code", { text: `${name} ${value}`.trim() }), make("span", { text: does })],
      });
      choose.addEventListener("click", () => this.fill(value === "" ? name : `${name} `));
      return make("li", { children: [choose] });
    }));
  }
}
