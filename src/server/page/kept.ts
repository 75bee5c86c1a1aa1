/** Small texts that stay in the browser (settings) or in the tab (key, draft); where it keeps none, they last as long as the page. */

const memory = new Map<string, string>();

/** How long a text is kept: beyond the tab, or with it. */
export type Keeping = "local" | "session";

/** Reads a text. */
export function readKept(keeping: Keeping, name: string): string | null {
  try {
    return memory.get(name) ?? storageOf(keeping).getItem(`nanochat.${name}`);
  } catch {
    return null; // the browser does not let pages keep anything
  }
}

/** Writes a text. Returns whether the browser keeps it. */
export function keep(keeping: Keeping, name: string, text: string): boolean {
  try {
    storageOf(keeping).setItem(`nanochat.${name}`, text);
    memory.delete(name);
    return true;
  } catch {
    memory.set(name, text);
    return false;
  }
}

function storageOf(keeping: Keeping): Storage {
  return keeping === "local" ? localStorage : sessionStorage;
}
