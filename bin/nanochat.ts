/** Entry of the program: hands argv and environment to the table of commands. */
import { COMMANDS } from "../src/cli/commands.ts";
import { main } from "../src/cli/main.ts";

Deno.exit(await main({ commands: COMMANDS, args: Deno.args, env: Deno.env.toObject() }));
