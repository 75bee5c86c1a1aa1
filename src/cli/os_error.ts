/** Messages of the operating system, as Deno hands them on, in the words of this program. */

/** What was tried, by the name that Deno gives it. */
const DOING: Readonly<Record<string, string>> = {
  open: "open",
  readfile: "read",
  writefile: "write",
  mkdir: "make the folder",
  readdir: "list the folder",
  stat: "find",
  lstat: "find",
  remove: "remove",
  rename: "rename",
  copy: "copy",
};

const FROM_OS = /([A-Z][^:"]*?) \(os error \d+\)(?:: (\w+) '(.*?)'(?: -> '(.*?)')?)?(?=$|[;\n])/;

/**
 * Rewrites "Not a directory (os error 20): readdir '/a/b'": alone as a sentence of ours, `Cannot list the folder "/a/b": not a directory`,
 * inside another sentence as the reason alone, with the path where the sentence does not name it.
 */
export function plainOsError(message: string): string {
  const [whole, reason, call, path] = FROM_OS.exec(message) ?? [];
  if (whole === undefined) return message;
  const why = reason[0].toLowerCase() + reason.slice(1);
  if (message.startsWith(whole) && path !== undefined) {
    return message.replace(whole, () => `Cannot ${DOING[call] ?? call} "${path}": ${why}`);
  }
  const where = path !== undefined && !message.includes(`"${path}"`) ? ` ("${path}")` : "";
  return message.replace(whole, () => why + where);
}
