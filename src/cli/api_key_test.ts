import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { join } from "@std/path";
import { temporaryFolder } from "../../dev/testing.ts";
import { readApiKey } from "./api_key.ts";
import { API_KEY } from "./flag_sets.ts";
import { UsageError } from "./flags.ts";
import { parse } from "./parse.ts";

Deno.test("readApiKey() takes the key of the file, else of the environment, and shows none that is wrong", async () => {
  using folder = temporaryFolder();
  const apiKeyFile = join(folder.path, "key");
  Deno.writeTextFileSync(apiKeyFile, "  sesame\r\n");
  assertEquals(await readApiKey({ apiKey: "other", apiKeyFile }), "sesame");
  assertEquals([await readApiKey({ apiKey: "other" }), await readApiKey({})], ["other", undefined]);
  for (const apiKey of ["", "two words", "line\nbreak", "clé", "nul\0"]) {
    const { message } = await assertRejects(() => readApiKey({ apiKey }), UsageError, "NANOCHAT_API_KEY");
    assert(apiKey === "" || !message.includes(apiKey), message);
  }
  Deno.writeTextFileSync(apiKeyFile, "\n");
  await assertRejects(() => readApiKey({ apiKeyFile }), UsageError, apiKeyFile);
  await assertRejects(() => readApiKey({ apiKeyFile: join(folder.path, "none") }), Deno.errors.NotFound);
});

Deno.test("parse() takes a secret from the environment, never from the command line, and does not repeat it", () => {
  const sources = { flags: API_KEY, env: {}, takesPositional: false, readFile: () => "" };
  const { settings } = parse({ ...sources, args: [], env: { NANOCHAT_API_KEY: "sesame" } });
  assertEquals(settings.get("api-key"), { value: "sesame", origin: "NANOCHAT_API_KEY" });
  for (const args of [["--api-key=sesame"], ["--api_key", "sesame"], ["--api-key"]]) {
    const { message } = assertThrows(() => parse({ ...sources, args }), UsageError, "from the command line");
    assert(!message.includes("sesame"), message);
  }
});
