/** Slash commands of the message box, as the reference's page has them; words that are none are answered too. */
import { type ChatSettings, SETTING_RANGES } from "./preferences.ts";

/** A command as the help shows it. */
export interface SlashCommand {
  readonly name: string;
  readonly value: string;
  readonly does: string;
}

/** All commands. */
export const SLASH_COMMANDS: readonly SlashCommand[] = [
  { name: "/temperature", value: "[0 – 2]", does: "show or set how adventurous answers are" },
  { name: "/topk", value: "[0 – 200]", does: "show or set among how many tokens is chosen; 0 = all" },
  { name: "/clear", value: "", does: "start a new chat; this one stays in the list" },
  { name: "/help", value: "", does: "list these commands and the keys" },
];

/** What a command comes to. */
export type CommandResult =
  | { readonly type: "say"; readonly text: string }
  | { readonly type: "set"; readonly change: Partial<ChatSettings>; readonly text: string }
  | { readonly type: "clear" }
  | { readonly type: "help" };

/** Lists the commands that begin like a text; none where it is no command. */
export function suggestCommands(text: string): readonly SlashCommand[] {
  return /^\/\w*$/.test(text) ? SLASH_COMMANDS.filter(({ name }) => name.startsWith(text.toLowerCase())) : [];
}

/** Runs a text that begins with a slash; undefined where it is a message. */
export function runCommand(text: string, settings: ChatSettings): CommandResult | undefined {
  const [name, ...values] = text.trim().split(/\s+/);
  if (!/^\/[a-z]*$/i.test(name)) return undefined;
  const value = values.join(" ");
  switch (name.toLowerCase()) {
    case "/temperature":
      return numberCommand("temperature", { label: "Temperature", value, settings });
    case "/topk":
      return numberCommand("topK", { label: "Top-k", value, settings });
    case "/clear":
      return { type: "clear" };
    case "/help":
      return { type: "help" };
    default: {
      const known = SLASH_COMMANDS.map(({ name }) => name).join(", ");
      return { type: "say", text: `There is no command ${name}. There are ${known}.` };
    }
  }
}

function numberCommand(
  name: "temperature" | "topK",
  { label, value, settings }: { label: string; value: string; settings: ChatSettings },
): CommandResult {
  if (value === "") return { type: "say", text: `${label} is ${settings[name]}.` };
  const { least, most, isWhole } = SETTING_RANGES[name];
  const number = Number(value);
  if (!(number >= least && number <= most) || (isWhole && !Number.isInteger(number))) {
    const kind = isWhole ? "a whole number" : "a number";
    return { type: "say", text: `${label} cannot be ${value}: it is ${kind} from ${least} to ${most}.` };
  }
  return { type: "set", change: { [name]: number }, text: `${label} is ${number} now.` };
}
