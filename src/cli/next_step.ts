/** What `nanochat` without arguments says: it looks at what exists and names the one sensible next command. */

/** Returns one line, or a few, that end with the command to type. */
export function nextStep(_env: Readonly<Record<string, string>>): string {
  return "";
}
