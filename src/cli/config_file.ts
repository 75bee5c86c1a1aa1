/**
 * Config files: `key = value` lines and `#` comments, never executed. Values may be quoted; keys take dashes or underscores.
 *
 *     depth = 4                # whatever a flag takes
 *     run = "with # and space" # "..." is a JSON string, '...' is taken as it stands
 */
import { UsageError } from "./flags.ts";
import { jsonText } from "./printable.ts";

/** One setting of a config file; `key` with dashes. */
export interface ConfigLine {
  readonly key: string;
  readonly text: string;
  /** Counted from 1. */
  readonly line: number;
}

const KEY = /^([A-Za-z][A-Za-z0-9_-]*)\s*=\s*(.*)$/;
const QUOTED = /^("(?:[^"\\]|\\.)*"|'[^']*')\s*(?:#.*)?$/;

function value(raw: string, where: string): string {
  if (!/^["']/.test(raw)) return raw.replace(/(^|\s+)#.*$/, "").trimEnd();
  const quoted = QUOTED.exec(raw)?.[1];
  try {
    if (quoted?.startsWith("'")) return quoted.slice(1, -1);
    if (quoted !== undefined) return JSON.parse(quoted);
  } catch {
    // Falls through to the same message as an unclosed quote.
  }
  throw new UsageError(
    `Cannot read ${where}: ${jsonText(raw)}, expected a closed quote and nothing but a comment after it`,
  );
}

/**
 * Reads the lines of a config file; `file` is only for messages.
 *
 * @throws {UsageError} with file and line for anything that is neither a setting, a comment nor blank, and for a key given twice.
 */
export function parseConfig(content: string, { file }: { file: string }): ConfigLine[] {
  const lines: ConfigLine[] = [];
  const seen = new Map<string, number>();
  for (const [index, raw] of content.replace(/^\uFEFF/, "").split(/\r?\n/).entries()) {
    const text = raw.trim();
    if (text === "" || text.startsWith("#")) continue;
    const line = index + 1;
    const match = KEY.exec(text);
    if (!match) {
      throw new UsageError(`Cannot read ${file}:${line}: ${jsonText(text)}, expected key = value or # comment`);
    }
    const key = match[1].replaceAll("_", "-").toLowerCase();
    const before = seen.get(key);
    if (before !== undefined) {
      throw new UsageError(`Cannot read ${file}:${line}: ${key} was set on line ${before}, expected each key once`);
    }
    seen.set(key, line);
    lines.push({ key, text: value(match[2], `${file}:${line}`), line });
  }
  return lines;
}

/** Writes a value so that `parseConfig` reads the same text back. */
export function formatConfigValue(value: number | string | boolean): string {
  return typeof value === "string" ? jsonText(value) : String(value);
}
