/** Text as Python sees it, where the data depends on it: `str.strip` and JavaScript's `trim` differ at the edges. */

/** White space of Python's `str.isspace`: JavaScript's without U+FEFF, with U+001C to U+001F and U+0085. */
// deno-lint-ignore no-control-regex -- they are white space in Python
const EDGES = /^(?:[^\S\ufeff]|[\u001c-\u001f\u0085])+|(?:[^\S\ufeff]|[\u001c-\u001f\u0085])+$/g;

/** Removes white space from both ends, as Python's `str.strip()`. */
export function pythonStrip(text: string): string {
  return text.replace(EDGES, "");
}
