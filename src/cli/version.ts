/** The program's version, from deno.json. */
import config from "../../deno.json" with { type: "json" };

/** `0.2.0`. */
export const VERSION_NUMBER: string = config.version;

/** `nanochat 0.2.0 (deno 2.9.6, x86_64-unknown-linux-gnu)`. */
export const VERSION = `nanochat ${VERSION_NUMBER} (deno ${Deno.version.deno}, ${Deno.build.target})`;
