/** Openings that go with a data set: `prompts.json` beside its shards says what samples continue, in training and at its end. */
import { join } from "@std/path";
import { formatProblem, FORMATS } from "./formats.ts";

/** What samples continue. */
export interface Prompts {
  /** While a model trains: one or two, always the same, so that one sees it learn. */
  readonly training: readonly string[];
  /** When it is measured. */
  readonly final: readonly string[];
}

/** File in the folder of the shards. */
export const PROMPTS_FILE = "prompts.json";

/**
 * Reads the prompts of a data set; undefined where it has none.
 *
 * @throws {SyntaxError} naming a file that holds something else.
 */
export function readPrompts(folder: string): Prompts | undefined {
  const path = join(folder, PROMPTS_FILE);
  let text: string;
  try {
    text = Deno.readTextFileSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
  const expected = 'expected {"training": ["text", ...], "final": ["text", ...]}';
  try {
    const { training, final, ...head } = JSON.parse(text);
    const problem = formatProblem(head, { expected: FORMATS.prompts, lacking: true }); // files written by hand lack it
    if (problem) throw new SyntaxError(problem);
    const isList = (list: unknown) =>
      Array.isArray(list) && list.every((item) => typeof item === "string" && item !== "");
    if (isList(training) && isList(final)) return { training, final };
  } catch (cause) {
    throw new SyntaxError(`Cannot read the prompts at "${path}": ${(cause as Error).message}, ${expected}`, { cause });
  }
  throw new SyntaxError(`Cannot read the prompts at "${path}": they have another form, ${expected}`);
}

/** Writes the prompts of a data set. */
export function writePrompts(folder: string, prompts: Prompts): void {
  Deno.writeTextFileSync(
    join(folder, PROMPTS_FILE),
    JSON.stringify({ ...FORMATS.prompts, ...prompts }, null, 2) + "\n",
  );
}
