/** What the page says in the thread: why there is no answer and what can be done, and what the keys and commands are. */
import { SLASH_COMMANDS } from "./commands.ts";
import { make } from "./dom.ts";
import { note, type NoticeAction } from "./notices.ts";
import type { Problem } from "./stream.ts";

/** What can be done about a problem. */
export interface Remedies {
  again(): void;
  edit(): void;
  chooseModel(): void;
}

/** Makes the message about a problem. */
export function explainProblem(
  { kind, message }: Problem,
  { contextLen, remedies }: { contextLen: number | undefined; remedies: Remedies },
): HTMLElement {
  const again: NoticeAction = { label: "Try again", run: remedies.again };
  const edit: NoticeAction = { label: "Edit the message", run: remedies.edit };
  const choose: NoticeAction = { label: "Choose a model", run: remedies.chooseModel };
  const context = contextLen === undefined ? "context" : `context of ${contextLen} tokens`;
  const texts: Record<Problem["kind"], [string, NoticeAction[]]> = {
    busy: ["The server is still busy: it has more requests than it can take.", [again]],
    closing: ["The server is shutting down or starting anew.", [again]],
    gone: ["The server cannot be reached: it was stopped, or the connection broke.", [again]],
    key: ["This server answers only with its API key.", [again]],
    context: [`This message is longer than the model's ${context}.`, [edit]],
    model: [`${message}.`, [choose, again]],
    refused: [`${message}.`, [edit, again]],
    failed: [`${message}.`, [again]],
  };
  return note(...texts[kind]);
}

/** Makes the message of `/help`. */
export function helpNote(): HTMLElement {
  const keys = [
    ...[["Enter", "send"], ["Shift Enter", "new line"], ["Esc", "stop the answer"], ["↑", "edit the last message"]],
    ...[["Ctrl Shift N", "new chat (Ctrl Shift O where the browser takes it)"], ["Ctrl K", "search conversations"]],
    ...[["↑ ↓ F2 Delete", "in the list: go, rename, delete"]],
  ];
  const commands = SLASH_COMMANDS.map(({ name, value, does }) => [`${name} ${value}`.trim(), does]);
  const rows = [
    ...commands.map(([name, does]) => [make("code", { text: name }), does] as const),
    ...keys.map(([key, does]) => [make("kbd", { text: key }), does] as const),
  ];
  const list = make("dl", {
    class: "help",
    children: rows.flatMap(([name, does]) => [make("dt", { children: [name] }), make("dd", { text: does })]),
  });
  return make("div", { class: "note", attributes: { role: "status" }, children: [list] });
}
