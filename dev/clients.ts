/** The programs of docs/clients.md as tests: a server without a model on a port of its own, and the page's code with that port. */
import { testApp } from "../src/server/app_testing.ts";
import { Listener } from "../src/server/listener.ts";
import type { ScriptedService } from "../src/server/models_testing.ts";
import { readPage } from "./docs.ts";

/** Address of the page's server, which the tests replace. */
const ADDRESS = "http://127.0.0.1:8000";

/** What the server says to everything. */
export const ANSWER = "12 + 34 = 46";

/** A server, and the page's code for it. */
export interface ClientsPage extends AsyncDisposable {
  readonly service: ScriptedService;
  /** Returns the code blocks of a language, with the address of the server. */
  blocks(language: string): string[];
}

/** Starts a server for the programs of the page. */
export async function openClientsPage(): Promise<ClientsPage> {
  const { app, service } = testApp(() => [
    { type: "piece", choice: 0, kind: "python", text: "12+34" },
    { type: "piece", choice: 0, kind: "python_output", text: "46" },
    ANSWER,
  ]);
  const listener = await Listener.open((request) => app.fetch(request), { host: "127.0.0.1", port: 0 });
  const page = readPage("docs/clients.md").replaceAll(ADDRESS, `http://127.0.0.1:${listener.port}`);
  return {
    service,
    blocks: (language) =>
      [...page.matchAll(new RegExp(`^\`\`\`${language}\\n([\\s\\S]*?)^\`\`\`$`, "gm"))].map(([_, code]) => code),
    [Symbol.asyncDispose]: () => listener.close(),
  };
}
