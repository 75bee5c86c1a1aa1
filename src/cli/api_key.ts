/** The key that a server asks for: from the environment or a file, never from the command line, and never shown. */
import { readText } from "../data/text_file.ts";
import { UsageError } from "./flags.ts";

/** Reads the key from its file, else from the environment; undefined where none is set. @throws {UsageError} where it cannot be one. */
export async function readApiKey(
  { apiKey, apiKeyFile }: { readonly apiKey?: string; readonly apiKeyFile?: string },
): Promise<string | undefined> {
  if (!apiKeyFile) return checkKey(apiKey, "NANOCHAT_API_KEY");
  return checkKey((await readText(apiKeyFile)).trim(), `"${apiKeyFile}"`);
}

function checkKey(key: string | undefined, where: string): string | undefined {
  if (key === undefined || /^[\x21-\x7e]+$/.test(key)) return key;
  throw new UsageError(`Cannot use the key in ${where}: it is empty, or has blanks or invisible characters inside`);
}
