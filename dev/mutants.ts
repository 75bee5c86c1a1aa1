/**
 * Finds one-operator changes in a TypeScript source with a small tokenizer: comments, strings, templates, regular expressions, imports
 * and type declarations are left alone.
 *
 * Sources are formatted by `deno fmt`, so a binary operator has white space on both sides and a bracket of type arguments has none;
 * that tells `a < b` from `Map<string, number>` without a parser.
 */

/** One change of a source. */
export interface Mutant {
  /** Line of the change, from 1. */
  readonly line: number;
  /** First character that is replaced. */
  readonly start: number;
  /** Behind the last character that is replaced. */
  readonly end: number;
  /** What comes in its place. */
  readonly replacement: string;
  /** The change in words of the source: `a < b` to `a <= b`. */
  readonly change: string;
}

type Kind = "word" | "number" | "text" | "sign";

interface Token {
  readonly kind: Kind;
  readonly text: string;
  readonly start: number;
  readonly end: number;
}

const BLANK = /(?:\s+|\/\/.*|\/\*[^]*?\*\/)+/y;
const WORD = /[#@]?[\p{L}_$][\p{L}\d_$]*/uy;
const NUMBER = /0[xX][\da-fA-F_]+n?|\d[\d_]*(?:\.\d+)?(?:[eE][+-]?\d+)?n?/y;
const STRING = /"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'/y;
const PATTERN = /\/(?:[^/\\\n[]|\\.|\[(?:[^\]\\]|\\.)*\])+\/[a-z]*/y;
const SIGN = />>>=?|\*\*=?|<<=?|>>=?|[=!]==?|=>|[<>+\-*/%&|^]=|(?:&&|\|\||\?\?)=?|\?\.|\+\+|--|\.\.\.|[^]/y;

const SWAPS = new Map([
  ...[["+", "-"], ["*", "/"], ["+=", "-="], ["<", "<="], [">", ">="], ["===", "!=="], ["&&", "||"], ["++", "--"]]
    .flatMap(([a, b]): [string, string][] => [[a, b], [b, a]]),
  ["%", "*"],
  ["**", "*"],
]);
const WORD_SWAPS = new Map([["true", "false"], ["false", "true"]]);
const METHOD_SWAPS = new Map([["min", "max"], ["max", "min"], ["floor", "ceil"], ["ceil", "floor"]]);
/** Words that begin something which is no expression statement. */
const NO_STATEMENT = new Set(
  ("abstract async break case class const continue declare default do else enum export for function get if import interface let new " +
    "override private protected public readonly return set static switch throw try type using var while yield").split(
      " ",
    ),
);
/** Words behind which a value begins, so that a slash opens a pattern and a sign is a prefix. */
const BEFORE_VALUE = new Set(["return", "case", "typeof", "of", "in", "yield", "await", "throw", "else", "void"]);

function match(pattern: RegExp, source: string, at: number): string | undefined {
  pattern.lastIndex = at;
  return pattern.exec(source)?.[0];
}

function endsValue(token: Token | undefined): boolean {
  if (!token) return false;
  return token.kind === "sign" ? /^[)\]}]$/.test(token.text) : !BEFORE_VALUE.has(token.text);
}

/** Finds the end of a template, nested ones included. */
function templateEnd(source: string, start: number): number {
  for (let at = start + 1; at < source.length; at++) {
    if (source[at] === "\\") at++;
    else if (source[at] === "`") return at + 1;
    else if (source.startsWith("${", at)) {
      let depth = 1;
      for (at += 2; depth > 0 && at < source.length; at++) {
        if (source[at] === "`") at = templateEnd(source, at) - 1;
        else if (source[at] === "{") depth++;
        else if (source[at] === "}") depth--;
      }
      at--;
    }
  }
  throw new SyntaxError(`Cannot read the source: the template at character ${start} has no end, expected a closing \``);
}

/** Cuts a source into tokens; blanks and comments are dropped. */
function tokenize(source: string): Token[] {
  const tokens: Token[] = [];
  for (let at = 0; at < source.length;) {
    const blank = match(BLANK, source, at);
    if (blank) {
      at += blank.length;
      continue;
    }
    const push = (kind: Kind, text: string) => {
      tokens.push({ kind, text, start: at, end: at + text.length });
      at += text.length;
    };
    const number = /\d/.test(source[at]) ? match(NUMBER, source, at) : undefined;
    const word = match(WORD, source, at);
    const text = source[at] === "`"
      ? source.slice(at, templateEnd(source, at))
      : match(STRING, source, at) ?? (endsValue(tokens.at(-1)) ? undefined : match(PATTERN, source, at));
    if (number) push("number", number);
    else if (word) push("word", word);
    else if (text) push("text", text);
    else push("sign", match(SIGN, source, at)!);
  }
  return tokens;
}

/** Index of the token that closes the bracket at `open`. */
function closing(tokens: readonly Token[], open: number): number {
  let depth = 0;
  for (let i = open; i < tokens.length; i++) {
    if (tokens[i].kind !== "sign") continue;
    if (/^[([{]$/.test(tokens[i].text)) depth++;
    else if (/^[)\]}]$/.test(tokens[i].text) && --depth === 0) return i;
  }
  return tokens.length - 1;
}

/** Index of the last token of an import, a re-export, an interface or a type alias that begins at `i`; `i - 1` for anything else. */
function declarationEnd(tokens: readonly Token[], i: number): number {
  const before = tokens[i - 1];
  if (before && !/^[;}]$/.test(before.text)) return i - 1;
  const first = tokens[i].text === "export" ? i + 1 : i;
  const { text } = tokens[first] ?? tokens[i];
  if (text === "interface") {
    const open = tokens.findIndex((token, j) => j > first && token.text === "{");
    return closing(tokens, open);
  }
  const isList = first > i && (text === "*" || text === "{");
  if (text !== "import" && !(text === "type" && tokens[first + 1]?.kind === "word") && !isList) return i - 1;
  let end = first;
  while (end < tokens.length - 1 && tokens[end].text !== ";") {
    end = /^[([{]$/.test(tokens[end].text) ? closing(tokens, end) + 1 : end + 1;
  }
  return end;
}

/** Index of the semicolon of a call or an assignment that begins at `i` and can be left out; undefined for anything else. */
function statementEnd(tokens: readonly Token[], i: number): number | undefined {
  const { kind, text } = tokens[i];
  const before = tokens[i - 1];
  if (kind !== "word" || text.startsWith("#") || text.startsWith("@") || NO_STATEMENT.has(text)) return undefined;
  if (!before || !/^[;{})]$/.test(before.text)) return undefined;
  // Fields are set in a constructor; TypeScript refuses one that leaves them out.
  if (text === "this" && tokens[i + 3]?.text === "=") return undefined;
  let acts = false;
  for (let j = i; j < tokens.length; j++) {
    const sign = tokens[j].text;
    if (sign === ";") return acts ? j : undefined;
    if (/^[)\]},]$/.test(sign) || sign === ":" || sign === "=>") return undefined;
    if (sign === "{" && !/^[=]/.test(tokens[j - 1].text)) return undefined;
    acts ||= sign === "(" || /^(?:[-+*/%&|^]|<<|>>>?)?=$/.test(sign) || sign === "++" || sign === "--";
    if (/^[([{]$/.test(sign)) j = closing(tokens, j);
  }
  return undefined;
}

/** Replacement of an operator, a number or a word; undefined where there is none. */
function swap(source: string, tokens: readonly Token[], i: number): string | undefined {
  const { kind, text, start, end } = tokens[i];
  const [before, after] = [tokens[i - 1], tokens[i + 1]];
  if (kind === "number") {
    if (/^0x/i.test(text) || /^[\d_]+n?$/.test(text)) {
      return `${BigInt(text.replaceAll(/[_n]/g, "")) + 1n}${text.endsWith("n") ? "n" : ""}`;
    }
    return undefined;
  }
  if (kind === "word") {
    if (before?.text === "." && tokens[i - 2]?.text === "Math") return METHOD_SWAPS.get(text);
    // A word with a colon behind it is a key, one behind a colon may be a type.
    return before?.text === "." || before?.text === ":" && after?.text !== "," || after?.text === ":"
      ? undefined
      : WORD_SWAPS.get(text);
  }
  if (kind !== "sign") return undefined;
  if (text === "!") return endsValue(before) && before.end === start ? undefined : "";
  if (text === "++" || text === "--") return SWAPS.get(text);
  const isBinary = endsValue(before) && /\s/.test(source[start - 1]) && /\s/.test(source[end] ?? "");
  if (!isBinary || (text === "+" && (before.kind === "text" || after?.kind === "text"))) return undefined;
  return SWAPS.get(text);
}

/** Lists every change of a source, in order. */
export function findMutants(source: string): Mutant[] {
  const tokens = tokenize(source);
  const mutants: Mutant[] = [];
  const add = (from: number, to: number, replacement: string | undefined) => {
    const [start, end] = [tokens[from].start, tokens[to].end];
    const oneLine = (text: string) => text.trim().replaceAll(/\s+/g, " ");
    const old = oneLine(source.slice(start, end));
    const rest = source.slice(source.lastIndexOf("\n", start) + 1, start) + replacement +
      source.slice(end).split("\n")[0];
    const change = replacement === undefined
      ? `without \`${old}\``
      : `\`${old}\` to \`${replacement}\`: ${oneLine(rest)}`;
    mutants.push({
      line: source.slice(0, start).split("\n").length,
      start,
      end,
      replacement: replacement ?? "",
      change,
    });
  };
  for (let i = 0; i < tokens.length; i++) {
    const end = declarationEnd(tokens, i);
    if (end >= i) {
      i = end;
      continue;
    }
    const semicolon = statementEnd(tokens, i);
    // Behind a condition or a loop the semicolon stays, as an empty statement.
    if (semicolon !== undefined) add(i, tokens[i - 1].text === ")" ? semicolon - 1 : semicolon, undefined);
    const replacement = swap(source, tokens, i);
    if (replacement !== undefined) add(i, i, replacement);
  }
  return mutants;
}

/** Applies a change. */
export function applyMutant(source: string, { start, end, replacement }: Mutant): string {
  return source.slice(0, start) + replacement + source.slice(end);
}
