/** What tests of the page share: the real page from the real HTTP side with scripted models, in a headless Chromium, watched closely. */
import { assertEquals } from "@std/assert";
import type { MiddlewareHandler } from "hono";
import type { Browser, BrowserContext, BrowserContextOptions, Page } from "playwright-core";
import { findBrowser, startBrowser } from "../../../dev/browser.ts";
import { testApp } from "../app_testing.ts";
import type { ModelService } from "../models.ts";
import { type Script, ScriptedService } from "../models_testing.ts";
import { readPage } from "../page_asset.ts";

const DEADLINE_MS = 60_000;
const STEP_MS = 8_000;

/** What a test works with. */
export interface World<S extends ModelService> {
  readonly page: Page;
  readonly context: BrowserContext;
  readonly url: string;
  readonly service: S;
  /** Opens one more page that is watched too. */
  open(): Promise<Page>;
  /** Writes a message, sends it and waits until the answer is over. */
  say(text: string, page?: Page): Promise<void>;
  /** Stops listening; `start` listens at the same port again. */
  stop(): Promise<void>;
  start(): void;
}

/** How a test's page is opened. */
export interface PageTestOptions<S extends ModelService> {
  /** What scripted models say. */
  readonly script?: Script;
  /** Other models than scripted ones. */
  readonly serve?: () => Promise<{ service: S; close: () => Promise<void> }>;
  readonly middleware?: readonly MiddlewareHandler[];
  readonly browser?: BrowserContextOptions;
  /** Runs in the page before its own script. */
  readonly init?: string;
  /** Lines of the console that are expected: Chromium reports each failed request there. */
  readonly expected?: RegExp;
}

/** One browser for the tests of a file; each has a context of its own, with nothing of the others. */
let browser: Browser | undefined;
const isSkipped = findBrowser() === undefined && Deno.env.get("CI") === undefined;
Deno.test.beforeAll(async () => {
  if (!isSkipped) browser = await startBrowser();
});
Deno.test.afterAll(() => browser?.close());

/** Registers a test of the page. At its end nothing may have reached another host, no dialog opened, no error been reported. */
export function pageTest<S extends ModelService = ScriptedService>(
  name: string,
  options: PageTestOptions<S>,
  body: (world: World<S>) => Promise<void>,
): void {
  Deno.test({ name, ignore: isSkipped, fn: () => runInBrowser(options, body) });
}

async function runInBrowser<S extends ModelService>(
  options: PageTestOptions<S>,
  body: (world: World<S>) => Promise<void>,
): Promise<void> {
  const served = await options.serve?.();
  const service = served?.service ?? new ScriptedService(options.script) as ModelService as S;
  const { app } = testApp(undefined, { service, page: await readPage(), middleware: options.middleware });
  const listen = (port: number) => Deno.serve({ port, hostname: "127.0.0.1", onListen() {} }, app.fetch);
  let server = listen(0);
  const { port } = server.addr;
  const url = `http://127.0.0.1:${port}/`;
  const problems: string[] = [];
  const context = await browser!.newContext({ reducedMotion: "reduce", ...options.browser });
  const timer = setTimeout(() => void context.close(), DEADLINE_MS); // everything that waits for it fails then
  try {
    context.setDefaultTimeout(STEP_MS);
    if (options.init !== undefined) await context.addInitScript(options.init);
    watch(context, { url, problems, expected: options.expected });
    const open = async () => {
      const page = await context.newPage();
      await page.goto(url);
      await page.waitForSelector(".shell.ready");
      return page;
    };
    const page = await open();
    await body({
      ...{ page, context, url, service, open },
      say: async (text, where = page) => {
        await where.fill("#input", text);
        await where.press("#input", "Enter");
        await where.waitForSelector("#send", { state: "visible" });
      },
      stop: async () => await server.shutdown(),
      start: () => void (server = listen(port)),
    });
    assertEquals(problems, []);
  } finally {
    clearTimeout(timer);
    await context.close();
    await server.shutdown();
    await served?.close();
  }
}

/** Waits until an expression holds in the page; its policy forbids what `page.waitForFunction` does. */
export async function until(page: Page, expression: string): Promise<void> {
  const look = `const look = () => ${expression} ? done() : requestAnimationFrame(look); look();`;
  await page.evaluate(`new Promise((done, fail) => {
    ${look}
    setTimeout(() => fail(new Error("never: " + ${JSON.stringify(expression)})), ${STEP_MS});
  })`);
}

function watch(
  context: BrowserContext,
  { url, problems, expected }: { url: string; problems: string[]; expected?: RegExp },
): void {
  context.on("request", (request) => {
    if (!request.url().startsWith(url) && !/^(?:blob|data):/.test(request.url())) {
      problems.push(`asked ${request.url()}`);
    }
  });
  context.on("console", (message) => {
    const text = message.text();
    if (message.type() === "error" && expected?.test(text) !== true) problems.push(text);
  });
  context.on("weberror", (error) => void problems.push(String(error.error())));
  context.on("dialog", (dialog) => {
    problems.push(`dialog "${dialog.message()}"`);
    void dialog.dismiss();
  });
}
