/**
 * Completions for bash, zsh and fish, written from the table of commands. The scripts are complete in themselves: a press of Tab starts
 * nothing. Where a flag takes a text, and for other arguments, they offer file names.
 */
import { allFlags, type Command } from "./command.ts";
import { type Flag, UsageError } from "./flags.ts";

/** What a shell offers for a value: words, the names of files, or nothing. */
interface Choice {
  readonly words: readonly string[];
  readonly files: boolean;
}

function choiceOf({ type, values = [] }: Flag): Choice {
  return { words: values.filter((word) => word !== ""), files: type === "string" };
}

function argumentsOf({ positional }: Command): Choice {
  if (positional === undefined) return { words: [], files: true }; // a config file
  return { words: positional[0]?.words ?? [], files: positional.length > 0 && positional[0].words === undefined };
}

/** The flags of a command in all spellings, with `=` where a value follows. */
function spellings(row: Command): { name: string; flag: Flag; takesValue: boolean }[] {
  return Object.entries(allFlags(row)).flatMap(([name, flag]) =>
    [name, ...(flag.aliases ?? [])].map((each) => ({ name: each, flag, takesValue: flag.type !== "bool" }))
  );
}

/** The words that commands begin with, each with the words that may follow. */
function firstWords(commands: readonly Command[]): Map<string, string[]> {
  const groups = new Map<string, string[]>();
  for (const { name } of commands) {
    const [first, second] = name.split(" ");
    groups.set(first, [...(groups.get(first) ?? []), ...(second === undefined ? [] : [second])]);
  }
  return groups;
}

/** Quotes a word for a shell. */
function quote(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

/**
 * Writes the script of a shell.
 *
 * @throws {UsageError} for another shell.
 */
export function completions(shell: string, commands: readonly Command[]): string {
  if (shell === "bash") return bash(commands);
  if (shell === "zsh") return zsh(commands);
  if (shell === "fish") return fish(commands);
  throw new UsageError(`Cannot complete for ${JSON.stringify(shell)}: no such shell, expected bash, zsh or fish`);
}

function bash(commands: readonly Command[]): string {
  const groups = firstWords(commands);
  const pairs = commands.filter(({ name }) => name.includes(" ")).map(({ name }) => `"${name}"`).join(" | ");
  const seconds = [...groups].filter(([_, words]) => words.length > 0)
    .map(([first, words]) => `    "${first}") words="${words.join(" ")}" files="" ;;`);
  const offer = ({ words, files }: Choice) =>
    [...(words.length > 0 ? [`words="${words.join(" ")}"`] : []), ...(files ? ["files=1"] : [])].join(" ") || ":";
  const flags = commands.map((row) => {
    const list = spellings(row).map(({ name, takesValue }) => `--${name}${takesValue ? "=" : ""}`).join(" ");
    return `    "${row.name}") flags="${list}"; ${offer(argumentsOf(row))} ;;`;
  });
  const values = commands.flatMap((row) =>
    spellings(row).filter(({ takesValue }) => takesValue)
      .map(({ name, flag }) => `    "${row.name} --${name}") ${offer(choiceOf(flag))} ;;`)
  );
  return `# Completions of nanochat for bash. Written by "nanochat completions bash".
_nanochat() {
  local current="\${COMP_WORDS[COMP_CWORD]}" before="\${COMP_WORDS[COMP_CWORD - 1]}" name="\${COMP_WORDS[1]}"
  local flag="" words="" flags="" files=""
  COMPREPLY=()
  case "$name \${COMP_WORDS[2]}" in
    ${pairs}) (( COMP_CWORD > 2 )) && name="$name \${COMP_WORDS[2]}" ;;
  esac
  # bash takes "--flag=value" for three words.
  if [[ $current == "=" ]]; then flag=$before current=""
  elif [[ $before == "=" ]]; then flag=\${COMP_WORDS[COMP_CWORD - 2]}
  elif [[ $before == --* && $current != -* ]]; then flag=$before
  fi
  if (( COMP_CWORD == 1 )); then
    COMPREPLY=($(compgen -W "${[...groups.keys(), "help", "--help", "--version"].join(" ")}" -- "$current"))
    return
  fi
  case "$name $flag" in
${values.join("\n")}
    *) flag="" ;;
  esac
  if [[ -z $flag ]]; then
    case "$name" in
${flags.map((line) => `  ${line}`).join("\n")}
    esac
    if (( COMP_CWORD == 2 )); then
      case "$name" in
${seconds.map((line) => `  ${line}`).join("\n")}
      esac
    fi
    if [[ $current == -* ]]; then words=$flags files=""; fi
  fi
  COMPREPLY=($(compgen -W "$words" -- "$current"))
  if [[ \${#COMPREPLY[@]} == 1 && \${COMPREPLY[0]} == *= ]]; then compopt -o nospace 2> /dev/null; fi
  if [[ -n $files ]]; then
    compopt -o filenames 2> /dev/null
    local file
    while IFS= read -r file; do COMPREPLY+=("$file"); done < <(compgen -f -- "$current")
  fi
}
complete -F _nanochat nanochat`;
}

function zsh(commands: readonly Command[]): string {
  const groups = firstWords(commands);
  const summaryOf = (word: string) =>
    commands.find(({ name }) => name === word)?.summary ?? groups.get(word)!.join(", ");
  const described = (word: string, text: string) => quote(`${word.replaceAll(":", "\\:")}:${text}`);
  const firsts = [...groups.keys()].map((word) => `    ${described(word, summaryOf(word))}`);
  const seconds = [...groups].filter(([_, words]) => words.length > 0).map(([first, words]) => {
    const list = words.map((word) => `      ${described(word, summaryOf(`${first} ${word}`))}`);
    return `    ${first}) second=(\n${list.join("\n")}\n    ) ;;`;
  });
  const action = ({ words, files }: Choice) => words.length > 0 ? `(${words.join(" ")})` : files ? "_files" : "";
  const plain = (text: string) => text.replace(/[[\]:\\]/g, "\\$&");
  const cases = commands.map((row) => {
    const specs = spellings(row).map(({ name, flag, takesValue }) => {
      const head = `--${name}${takesValue ? "=" : ""}[${plain(flag.help)}]`;
      return quote(takesValue ? `${head}:${name}:${action(choiceOf(flag))}` : head);
    });
    const rest = action(argumentsOf(row));
    if (rest !== "") specs.push(quote(`*:argument:${rest}`));
    return `    ${quote(row.name)}) _arguments ${specs.join(" ")} ;;`;
  });
  const pairs = commands.filter(({ name }) => name.includes(" ")).map(({ name }) => quote(name)).join("|");
  return `#compdef nanochat
# Completions of nanochat for zsh. Written by "nanochat completions zsh".
_nanochat() {
  local -a first second
  local name=$words[2]
  first=(
${firsts.join("\n")}
  )
  if (( CURRENT == 2 )); then
    _describe command first
    return
  fi
  case $name in
${seconds.join("\n")}
  esac
  case "$name $words[3]" in
    ${pairs}) if (( CURRENT > 3 )); then name="$name $words[3]"; shift words; (( CURRENT-- )); fi ;;
  esac
  if (( CURRENT == 3 && $#second > 0 )) && [[ $name != *' '* ]]; then
    _describe action second
    [[ -z $words[3] ]] && return
  fi
  shift words
  (( CURRENT-- ))
  case $name in
${cases.join("\n")}
  esac
}
if [[ $funcstack[1] == _nanochat ]]; then _nanochat "$@"; else compdef _nanochat nanochat; fi`;
}

function fish(commands: readonly Command[]): string {
  const groups = firstWords(commands);
  const fishQuote = (text: string) => `'${text.replace(/['\\]/g, "\\$&")}'`;
  const summaryOf = (word: string) =>
    commands.find(({ name }) => name === word)?.summary ?? groups.get(word)!.join(", ");
  const lines = [...groups.keys()].map((word) => `-n '__nanochat_is ""' -a ${word} -d ${fishQuote(summaryOf(word))}`);
  for (const [first, words] of groups) {
    for (const word of words) {
      lines.push(`-n '__nanochat_is ${first}' -a ${word} -d ${fishQuote(summaryOf(`${first} ${word}`))}`);
    }
  }
  const offer = ({ words, files }: Choice) =>
    `${files ? " -F" : ""}${words.length > 0 ? ` -a ${fishQuote(words.join(" "))}` : ""}`;
  for (const row of commands) {
    const here = `-n ${fishQuote(`__nanochat_is ${row.name}`)}`;
    const rest = argumentsOf(row);
    if (rest.files || rest.words.length > 0) lines.push(`${here}${offer(rest)}`);
    for (const { name, flag, takesValue } of spellings(row)) {
      const choice = choiceOf(flag);
      const value = takesValue ? ` ${choice.files ? "-r" : "-x"}${offer(choice)}` : "";
      lines.push(`${here} -l ${name}${value} -d ${fishQuote(flag.help)}`);
    }
  }
  const pairs = commands.filter(({ name }) => name.includes(" ")).map(({ name }) => fishQuote(name)).join(" ");
  return `# Completions of nanochat for fish. Written by "nanochat completions fish".
function __nanochat_is
  set -l words (commandline -opc | string match -v -- '-*')
  set -l name "$words[2]"
  if contains -- "$words[2] $words[3]" ${pairs}
    set name "$words[2] $words[3]"
  end
  test "$name" = "$argv"
end
complete -c nanochat -f
${lines.map((line) => `complete -c nanochat ${line}`).join("\n")}`;
}
