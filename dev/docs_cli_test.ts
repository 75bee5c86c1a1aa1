/** Runs the shell lines of README.md and `docs/` as users type them; trainings are stopped after their first steps. */
import { pages, runPage } from "./docs.ts";

for (const page of pages()) {
  Deno.test(`the shell lines of ${page} work as typed`, () => runPage(page, { whole: false }));
}
