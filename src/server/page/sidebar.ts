/** The list of conversations: groups by day, search, rename, export and delete. The arrow keys go through it, F2 renames, Delete deletes. */
import { type Conversation, matches } from "./chat.ts";
import { button, byId, make } from "./dom.ts";

/** What a person can do with the list. */
export interface SidebarActions {
  open(conversation: Conversation): void;
  rename(conversation: Conversation, title: string): void;
  remove(conversation: Conversation): void;
  export(conversation: Conversation): void;
}

const DAY_MS = 86_400_000;
const NARROW = matchMedia("(max-width: 800px)");

/** Names the group of a time. */
export function groupOf(time: number, now: number): string {
  const midnight = new Date(now).setHours(0, 0, 0, 0);
  if (time >= midnight) return "Today";
  if (time >= midnight - DAY_MS) return "Yesterday";
  if (time >= midnight - 6 * DAY_MS) return "This week";
  return time >= midnight - 29 * DAY_MS ? "This month" : "Earlier";
}

/** The list, and whether it is shown. */
export class Sidebar {
  readonly #actions: SidebarActions;
  readonly #list = byId("list");
  readonly #search = byId<HTMLInputElement>("search");
  #conversations: readonly Conversation[] = [];
  #currentId: string | undefined;
  #runningIds: ReadonlySet<string> = new Set();
  #renamedId: string | undefined;

  constructor(actions: SidebarActions) {
    this.#actions = actions;
    this.#search.addEventListener("input", () => this.#draw());
    this.#search.addEventListener("keydown", (event) => {
      if (event.key === "ArrowDown") this.#focusRow(0, event);
      if (event.key === "Enter") this.#rows()[0]?.click();
      if (event.key === "Escape" && this.#search.value !== "") {
        event.stopPropagation();
        this.#search.value = "";
        this.#draw();
      }
    });
    this.#list.addEventListener("keydown", (event) => this.#pressed(event));
    byId("side-open").addEventListener("click", () => this.toggle(!this.#isOpen()));
    for (const id of ["side-close", "veil"]) byId(id).addEventListener("click", () => this.toggle(false));
    byId("side").addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !NARROW.matches) return;
      event.stopPropagation();
      this.toggle(false);
    });
    NARROW.addEventListener("change", () => this.toggle(!NARROW.matches));
    this.toggle(!NARROW.matches);
  }

  /** Shows the conversations as they are now. */
  show(
    conversations: readonly Conversation[],
    { currentId, runningIds }: { currentId: string | undefined; runningIds: ReadonlySet<string> },
  ): void {
    this.#conversations = conversations;
    this.#currentId = currentId;
    this.#runningIds = runningIds;
    this.#draw();
  }

  /** Opens or closes the list; on a phone it lies over the page. */
  toggle(isOpen: boolean): void {
    const { classList } = byId("shell");
    classList.toggle("with-side", isOpen);
    byId("side").inert = !isOpen;
    document.querySelector<HTMLElement>(".main")!.inert = isOpen && NARROW.matches;
    byId("side-open").setAttribute("aria-expanded", String(isOpen));
    if (!NARROW.matches) return;
    if (isOpen) byId("side-close").focus();
    else if (classList.contains("ready")) byId("side-open").focus();
  }

  /** Closes it where it lies over the page. */
  closeIfNarrow(): void {
    if (NARROW.matches && this.#isOpen()) this.toggle(false);
  }

  /** Puts the cursor into the search. */
  focusSearch(): void {
    this.toggle(true);
    this.#search.focus();
    this.#search.select();
  }

  #isOpen(): boolean {
    return byId("shell").classList.contains("with-side");
  }

  #draw(): void {
    if (this.#renamedId !== undefined) return; // the title that is being typed stays
    const focused = (document.activeElement as HTMLElement | null)?.dataset?.id;
    const found = this.#conversations.filter((each) => matches(each, this.#search.value));
    const now = Date.now();
    const groups = Map.groupBy(found, ({ updated }) => groupOf(updated, now));
    const sections = [...groups].map(([name, rows]) =>
      make("section", {
        children: [
          make("h2", { text: name }),
          make("ul", { attributes: { role: "list" }, children: rows.map((row) => this.#row(row)) }),
        ],
      })
    );
    const nothing = this.#search.value === "" ? "Conversations appear here." : "Nothing found.";
    this.#list.replaceChildren(...(found.length > 0 ? sections : [make("p", { class: "nothing", text: nothing })]));
    this.#reach(Math.max(found.findIndex(({ id }) => id === (focused ?? this.#currentId)), 0));
    if (focused !== undefined) this.#rows().find(({ dataset }) => dataset.id === focused)?.focus();
  }

  #row(conversation: Conversation): HTMLLIElement {
    const { id, title } = conversation;
    const isCurrent = id === this.#currentId;
    const open = make("button", {
      class: "open",
      attributes: { type: "button", "data-id": id, ...(isCurrent ? { "aria-current": "true" } : {}) },
      title,
      children: [
        make("span", { text: title }),
        this.#runningIds.has(id)
          ? make("i", { class: "pulse", attributes: { role: "img", "aria-label": "answering" } })
          : undefined,
      ],
    });
    open.addEventListener("click", () => this.#actions.open(conversation));
    const tools = make("span", {
      class: "row-tools",
      children: [
        button(`Rename ${title}`, { icon: "edit", click: () => this.#rename(conversation) }),
        button(`Export ${title}`, { icon: "export", click: () => this.#actions.export(conversation) }),
        button(`Delete ${title}`, { icon: "trash", click: () => this.#remove(conversation) }),
      ],
    });
    return make("li", { class: isCurrent ? "current" : "", attributes: { "data-row": id }, children: [open, tools] });
  }

  #rows(): HTMLButtonElement[] {
    return [...this.#list.querySelectorAll<HTMLButtonElement>("button.open")];
  }

  /** Puts one row into the order of the Tab key: the arrow keys lead to the others. */
  #reach(index: number): void {
    for (const [i, row] of [...this.#list.querySelectorAll("li")].entries()) {
      for (const element of row.querySelectorAll("button")) element.tabIndex = i === index ? 0 : -1;
    }
  }

  #focusRow(index: number, event: Event): void {
    event.preventDefault();
    const rows = this.#rows();
    if (index < 0 || rows.length === 0) return this.#search.focus();
    const at = Math.min(index, rows.length - 1);
    this.#reach(at);
    rows[at].focus();
  }

  #pressed(event: KeyboardEvent): void {
    const rows = this.#rows();
    const at = rows.indexOf(event.target as HTMLButtonElement);
    const conversation = this.#conversations.find(({ id }) => id === rows[at]?.dataset.id);
    if (conversation === undefined) return;
    if (event.key === "ArrowDown") this.#focusRow(at + 1, event);
    else if (event.key === "ArrowUp") this.#focusRow(at - 1, event);
    else if (event.key === "F2") this.#rename(conversation);
    else if (event.key === "Delete") this.#remove(conversation);
  }

  #remove(conversation: Conversation): void {
    const at = this.#rows().findIndex(({ dataset }) => dataset.id === conversation.id);
    this.#actions.remove(conversation);
    const rows = this.#rows();
    (rows[Math.min(at, rows.length - 1)] ?? this.#search).focus();
  }

  #rename(conversation: Conversation): void {
    const row = this.#list.querySelector(`[data-row="${conversation.id}"]`)!;
    const box = make("input", { class: "rename", attributes: { "aria-label": "Title", maxlength: "200" } });
    box.value = conversation.title;
    this.#renamedId = conversation.id;
    const end = (isKept: boolean) => {
      if (this.#renamedId === undefined) return;
      this.#renamedId = undefined;
      const title = box.value.trim();
      if (isKept && title !== "" && title !== conversation.title) this.#actions.rename(conversation, title);
      else this.#draw();
      this.#rows().find(({ dataset }) => dataset.id === conversation.id)?.focus();
    };
    box.addEventListener("keydown", (event) => {
      event.stopPropagation();
      if (event.key === "Enter") end(true);
      else if (event.key === "Escape") end(false);
    });
    box.addEventListener("blur", () => end(true));
    row.replaceChildren(box);
    box.select();
  }
}
