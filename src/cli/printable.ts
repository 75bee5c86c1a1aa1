/** Makes text safe to show: a model's output, a document or a file name must never steer the terminal. */

// C0 and C1 controls, DEL, line and paragraph separators, and the marks that reorder the text around them.
// deno-lint-ignore no-control-regex
const UNSAFE = /[\u0000-\u001f\u007f-\u009f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;

function symbol(character: string): string {
  const code = character.charCodeAt(0);
  if (code < 0x20) return String.fromCharCode(0x2400 + code); // U+241B is the symbol for escape
  if (code === 0x7f) return "\u2421";
  return `<U+${code.toString(16).toUpperCase().padStart(4, "0")}>`;
}

/** Replaces every control character but line feed and tab by a visible symbol; `oneLine` replaces those two as well. */
export function printable(text: string, { oneLine = false }: { oneLine?: boolean } = {}): string {
  return text.replace(UNSAFE, (character) => {
    const kept = !oneLine && (character === "\n" || character === "\t");
    return kept ? character : symbol(character);
  });
}

/** Writes JSON in which those characters are escapes: it is read back unchanged and may be shown. */
export function jsonText(value: unknown): string {
  return JSON.stringify(value).replace(UNSAFE, (character) => {
    return `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
  });
}
