/**
 * Makes the web page: bundles `src/server/page/main.ts` for browsers and puts it, with `page.css`, into `page.html`: one file that loads
 * nothing. `deno task build:page`; `deno task setup` runs it. Done within milliseconds where nothing changed.
 */
import { createHash } from "node:crypto";
import { dirname, join } from "@std/path";
import { assetPath } from "../src/native/installation.ts";
import { runChild } from "./process.ts";

const ROOT = join(import.meta.dirname!, "..");
const SOURCES = join(ROOT, "src", "server", "page");
/** File that git ignores. */
const PAGE = assetPath("page");
const STAMP = `${PAGE}.stamp`;

async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await Deno.readTextFile(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

/** Everything that decides what the page is: its sources, the packages, the bundler. */
async function stampOf(): Promise<string> {
  const names = (await Array.fromAsync(Deno.readDir(SOURCES))).map(({ name }) => name)
    .filter((name) => !/_test(ing)?\.ts$/.test(name)).sort();
  const files = [...names.map((name) => join(SOURCES, name)), join(ROOT, "deno.lock"), import.meta.filename!];
  const hash = createHash("sha256").update(Deno.version.deno);
  for (const file of files) hash.update(`${file.slice(ROOT.length)}\0`).update(await Deno.readFile(file));
  return hash.digest("hex");
}

async function bundle(): Promise<string> {
  const flags = ["--quiet", "--platform=browser", "--minify", "--lock=deno.lock", "--frozen"];
  const args = ["bundle", ...flags, join(SOURCES, "main.ts")];
  const { code, stdout, output } = await runChild({ command: Deno.execPath(), args, cwd: ROOT, deadlineMs: 120_000 });
  if (code !== 0) throw new Error(`Cannot bundle the page: deno ended with ${code}:\n${output.trimEnd()}`);
  // Within a string or a pattern, where alone these stand, the first letter may be written as a number; HTML then sees no end of a script.
  return stdout.trim().replace(/<(?=!--|\/?script)/gi, "\\x3C");
}

/** Takes comments and the blanks between rules away. */
function shorten(css: string): string {
  return css.replace(/\/\*[\s\S]*?\*\//g, "").replace(/\s+/g, " ").replace(/ ?([{};,]) ?/g, "$1").trim();
}

async function build(): Promise<boolean> {
  const stamp = await stampOf();
  if (await readIfThere(STAMP) === stamp && await readIfThere(PAGE) !== undefined) return false;
  const [html, css, script] = await Promise.all([
    Deno.readTextFile(join(SOURCES, "page.html")),
    Deno.readTextFile(join(SOURCES, "page.css")),
    bundle(),
  ]);
  // What is put in may hold signs that `replace` gives a meaning.
  const page = html.replace(/\n\s+/g, "\n")
    .replace("<style></style>", () => `<style>${shorten(css)}</style>`)
    .replace('<script type="module"></script>', () => `<script type="module">${script}</script>`);
  await Deno.mkdir(dirname(PAGE), { recursive: true });
  // A new name first: whoever reads meanwhile gets the whole old page.
  await Deno.writeTextFile(`${PAGE}.tmp`, page);
  await Deno.rename(`${PAGE}.tmp`, PAGE);
  await Deno.writeTextFile(STAMP, stamp);
  return true;
}

if (import.meta.main) {
  const built = await build();
  console.log(built ? `Made ${PAGE}` : `${PAGE} is up to date`);
}
