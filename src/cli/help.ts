/** Help texts and the tables of the README, all from the table of commands. */
import { type Command, COMMON_FLAGS, type Positional } from "./command.ts";
import type { Flag, FlagTable } from "./flags.ts";

const WIDTH = 100;
const KIND: Record<Flag["type"], string> = {
  int: "INT",
  float: "NUMBER",
  bool: "",
  string: "TEXT",
  enum: "WORD",
  duration: "TIME",
};

/** Breaks a text between words where a line would be wider than `width`; all lines but the first are indented. */
export function wrap(text: string, indent: number, { width = WIDTH } = {}): string {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    if (line !== "" && indent + line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else {
      line = line === "" ? word : `${line} ${word}`;
    }
  }
  return [...lines, line].join("\n" + " ".repeat(indent));
}

/** Shows a default as it would be typed: `20`, `""`, `none`. */
export function formatDefault(flag: Flag): string {
  if (flag.default === undefined) return "none";
  return typeof flag.default === "string" && flag.type === "string"
    ? JSON.stringify(flag.default)
    : String(flag.default);
}

/** A flag as it is typed: all spellings, and the kind of value. */
export function flagHead(name: string, flag: Flag): string {
  const spellings = [
    ...(flag.short ? [`-${flag.short}`] : []),
    `--${name}`,
    ...(flag.aliases ?? []).map((alias) => `--${alias}`),
  ];
  const kind = flag.type === "enum" ? flag.values!.filter((word) => word !== "").join("|") : KIND[flag.type];
  return spellings.join(", ") + (kind && (flag.bare === undefined ? `=${kind}` : `[=${kind}]`));
}

/** What a flag does, with unit and default. */
export function flagText(flag: Flag): string {
  const unit = flag.unit ? ` [${flag.unit}]` : "";
  const isPlain = flag.default === undefined || flag.default === false || flag.default === "";
  const shown = isPlain ? "" : ` (default ${formatDefault(flag)})`;
  const env = flag.env ? ` (also ${flag.env.join(", ")})` : "";
  return `${flag.help}${unit}${shown}${env}`;
}

function flagLines(flags: FlagTable): string {
  return Object.entries(flags).map(([name, flag]) => {
    const head = `  ${flagHead(name, flag)}`;
    const gap = head.length < 34 ? head.padEnd(36) : `${head}\n${" ".repeat(36)}`;
    return gap + wrap(flagText(flag), 36);
  }).join("\n");
}

function positionalText({ name, optional, many }: Positional): string {
  const shown = many ? `${name}...` : name;
  return optional ? `[${shown}]` : shown;
}

/** The line that shows how a command is typed. */
export function usageLine(row: Command): string {
  const positional = row.positional?.map(positionalText).join(" ") ?? "[CONFIG...]";
  return `nanochat ${row.name} ${positional} [--flag=VALUE...]`;
}

/** The help of one command. */
export function commandHelp(row: Command): string {
  const sections = [
    `${usageLine(row)}\n\n${wrap(row.summary[0].toUpperCase() + row.summary.slice(1), 0)}${
      row.details ? `\n\n${row.details}` : ""
    }`,
  ];
  if (row.positional) {
    sections.push(row.positional.map(({ name, help }) => `  ${name.padEnd(34)}${wrap(help, 36)}`).join("\n"));
  }
  if (Object.keys(row.flags).length > 0) sections.push(`Flags\n${flagLines(row.flags)}`);
  sections.push(`Common flags\n${flagLines(COMMON_FLAGS)}`);
  sections.push(
    wrap(
      "Underscores are accepted for dashes. NANOCHAT_<FLAG> in the environment sets a flag too; order: defaults, config " +
        "files, environment, flags, later ones win.",
      0,
    ),
  );
  return sections.join("\n\n");
}

/** The help of the program. */
export function programHelp(commands: readonly Command[]): string {
  const rows = commands.map(({ name, summary }) => `  ${name.padEnd(20)}${wrap(summary, 22)}`).join("\n");
  return `nanochat COMMAND [--flag=VALUE...]

Trains a language model from raw text and talks to it.

${rows}

  nanochat COMMAND --help shows a command's flags; nanochat without arguments names the next sensible command.
  nanochat --version tells the version; with --json also commit, interface and file formats.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 refused for safety, 75 stopped by a signal with a checkpoint
written, 130 stopped at once.`;
}

/** Escapes what would end a cell of a Markdown table. */
function cell(text: string): string {
  return text.replaceAll("|", "\\|");
}

/** The commands as a Markdown table. */
export function commandTable(commands: readonly Command[]): string {
  const rows = commands.map(({ name, summary }) => `| \`nanochat ${name}\` | ${cell(summary)} |`);
  return ["| command | does |", "| --- | --- |", ...rows].join("\n");
}

/** A command's own flags as a Markdown table. */
export function flagTable(row: Command): string {
  const rows = Object.entries(row.flags).map(([name, flag]) => {
    const also = (flag.aliases ?? []).map((alias) => `, \`--${alias}\``).join("");
    const unit = flag.unit ? ` (${flag.unit})` : "";
    return `| \`--${name}\`${also} | ${cell(formatDefault(flag))} | ${cell(flag.help)}${unit} |`;
  });
  return ["| flag | default | meaning |", "| --- | --- | --- |", ...rows].join("\n");
}
