/** Runs the shell lines of README.md to their ends, trainings included. */
import { runPage } from "./docs.ts";

Deno.test("the shell lines of README.md work as typed, to the end", () => runPage("README.md", { whole: true }));
