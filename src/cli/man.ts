/** The man page, in the roff of man(7), from the table of commands. */
import { type Command, COMMON_FLAGS } from "./command.ts";
import type { Flag, FlagTable } from "./flags.ts";
import { flagHead, flagText, usageLine } from "./help.ts";
import { EXIT } from "./signals.ts";
import config from "../../deno.json" with { type: "json" };

/** Escapes text: a backslash, a hyphen that is to stay one, and a line that would be taken for a request. */
function roff(text: string): string {
  return text.replaceAll("\\", "\\e").replaceAll("-", "\\-").replace(/^[.']/gm, "\\&$&");
}

function flagRows(flags: FlagTable): string {
  return Object.entries(flags).map(([name, flag]: [string, Flag]) =>
    `.TP\n.B ${roff(flagHead(name, flag))}\n${roff(flagText(flag))}`
  ).join("\n");
}

function commandSection(row: Command): string {
  const positional = row.positional?.map(({ name, help }) => `.TP\n.I ${roff(name)}\n${roff(help)}`) ?? [];
  return [
    `.SS ${roff(`nanochat ${row.name}`)}`,
    `.B ${roff(usageLine(row))}`,
    `.PP\n${roff(row.summary[0].toUpperCase() + row.summary.slice(1))}.`,
    ...(row.details ? [`.PP\n.nf\n${roff(row.details)}\n.fi`] : []),
    ...positional,
    flagRows(row.flags),
  ].filter((part) => part !== "").join("\n");
}

const EXITS: Readonly<Record<keyof typeof EXIT, string>> = {
  DONE: "done",
  FAILED: "failed",
  USAGE: "wrong usage",
  REFUSED: "refused for safety",
  STOPPED: "stopped by a signal, with a checkpoint written",
  STOPPED_AT_ONCE: "stopped at once",
  KILLED: "a chat was ended by SIGTERM or SIGHUP",
};

/** Writes the page. */
export function manPage(commands: readonly Command[]): string {
  const exits = Object.entries(EXITS).map(([name, text]) => `.TP\n.B ${EXIT[name as keyof typeof EXIT]}\n${text}`);
  return `.TH NANOCHAT 1 "" "nanochat ${roff(config.version)}" "User Commands"
.SH NAME
nanochat \\- trains a language model from raw text and talks to it
.SH SYNOPSIS
.B nanochat
.I COMMAND
.RI [ \\-\\-flag=VALUE ...]
.SH DESCRIPTION
One program from raw text to a language model of your own: make shards, train a tokenizer, pretrain a GPT, teach it
conversations, measure it, talk to it. Without arguments it looks at what exists and names the next sensible command.
With \\-\\-version it tells its version; \\-\\-version \\-\\-json adds commit, interface and file formats.
.SH COMMANDS
${commands.map(commandSection).join("\n")}
.SH COMMON FLAGS
${flagRows(COMMON_FLAGS)}
.PP
Underscores are accepted for dashes.
.SH ENVIRONMENT
.TP
.B NANOCHAT_BASE_DIR
folder of data, tokenizers, checkpoints and runs
.TP
.B NANOCHAT_<FLAG>
sets a flag, in capitals with underscores; order: defaults, config files, environment, flags, later ones win
.TP
.B NANOCHAT_CACHE
folder into which the single file unpacks itself
.TP
.B NC_PROFILE
1: training ends with the time by operation
.TP
.B NO_COLOR
no colours
.SH FILES
.TP
.I ~/.cache/nanochat
the base folder, where nothing else is said
.SH EXIT STATUS
${exits.join("\n")}`;
}
