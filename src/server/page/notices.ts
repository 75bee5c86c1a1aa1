/** Short messages: a toast with an action for what can be undone, a banner for a state that lasts, a note in the thread. */
import { announce, button, byId, icon, make } from "./dom.ts";

const TOAST_MS = 8000;

/** Something that a notice offers. */
export interface NoticeAction {
  readonly label: string;
  readonly run: () => void;
}

/** Shows a message for a while; longer where the pointer or the focus is on it. */
export function toast(text: string, action?: NoticeAction): void {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const close = () => element.remove();
  const wait = () => {
    clearTimeout(timer);
    timer = setTimeout(close, TOAST_MS);
  };
  const act = action && button(action.label, {
    class: "link",
    click: () => {
      close();
      action.run();
    },
  });
  const element = make("div", {
    class: "toast",
    children: [make("span", { text }), act, button("Dismiss", { icon: "close", click: close })],
  });
  for (const name of ["pointerenter", "focusin"]) element.addEventListener(name, () => clearTimeout(timer));
  for (const name of ["pointerleave", "focusout"]) element.addEventListener(name, wait);
  byId("toasts").append(element);
  announce(action === undefined ? text : `${text} ${action.label} is offered.`);
  wait();
}

/** Shows a state that lasts, until it is told another one; undefined = all is well. */
export function banner(text: string | undefined, actions: readonly NoticeAction[] = []): void {
  const element = byId("banner");
  element.hidden = text === undefined;
  const buttons = actions.map(({ label, run }) => button(label, { class: "link", click: run }));
  element.replaceChildren(...(text === undefined ? [] : [icon("warning"), make("span", { text }), ...buttons]));
}

/** Makes a message that stands in the thread. */
export function note(text: string, actions: readonly NoticeAction[] = []): HTMLElement {
  const buttons = actions.map(({ label, run }) => button(label, { click: run }));
  return make("div", {
    class: "note",
    attributes: { role: "status" },
    children: [
      make("p", { text }),
      buttons.length > 0 ? make("div", { class: "note-actions", children: buttons }) : undefined,
    ],
  });
}
