import { Buffer } from "node:buffer";
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { ServiceError } from "../models.ts";
import { type Script, tokenLogprob } from "../models_testing.ts";
import { pageTest, until } from "./browser_testing.ts";

/** Says the last message back. */
const echo: Script = ({ prompt }) => {
  const last = "messages" in prompt ? prompt.messages.at(-1)!.content : "";
  return String(last).match(/\S+\s*/g)!.map((word) => word.toUpperCase());
};

Deno.test("the page is one small file that names no other host", async () => {
  const { readPage } = await import("../page_asset.ts");
  const { html, policy } = await readPage();
  assert(html.length < 250_000, `${html.length} bytes`);
  // What a browser would load; namespaces and texts are no addresses.
  assertEquals(
    [...html.replace(/<script[\s\S]*/, "").matchAll(/<(?:link|script|img|iframe)\b[^>]*(?:src|href)="([^"]*)"/g)].map((
      [_, to],
    ) => to),
    [
      "/logo.svg",
    ],
  );
  assertMatch(policy, /^default-src 'none'; script-src 'sha256-[\w+/=]{44}'; style-src 'sha256-[\w+/=]{44}';/);
});

{
  const gate = Promise.withResolvers<void>();
  pageTest("an answer streams, is kept, and the settings go with the request", {
    script: () => ["Hel", gate.promise, "lo **you**"],
  }, async ({ page, service }) => {
    await page.fill("#input", "one");
    await page.press("#input", "Shift+Enter");
    await page.keyboard.type("two");
    await page.press("#input", "Enter");
    await page.waitForSelector("text=Hel");
    assertEquals(await page.inputValue("#input"), "");
    assertEquals(await page.isVisible("#stop"), true);
    gate.resolve();
    await page.waitForSelector(".prose strong");
    await page.waitForSelector("#send", { state: "visible" });
    assertEquals(await page.innerText(".prose"), "Hello you");
    const [{ prompt, sampling, maxTokens }] = service.requests;
    assertEquals(prompt, { messages: [{ role: "user", content: "one\ntwo" }] });
    assertEquals([sampling.temperature, sampling.topK, sampling.topP, maxTokens], [0.8, 50, 1, 512]);
    assertStringIncludes(await page.innerText("#figures"), "of 512 tokens of context");
    assertStringIncludes(await page.textContent("#live") ?? "", "Hello");
    await page.reload();
    await page.waitForSelector(".prose strong");
    assertEquals(await page.innerText(".bubble"), "one\ntwo");
    assertEquals(await page.innerText("#list .open"), "one two");
  });
}

pageTest("Stop and Esc end an answer, and the server hears of it", {
  script: () => ["begun", new Promise(() => {})],
}, async ({ page, service }) => {
  for (const [n, stop] of [() => page.click("#stop"), () => page.keyboard.press("Escape")].entries()) {
    await page.fill("#input", "go on");
    await page.press("#input", "Enter");
    await page.waitForSelector(`article.answer >> nth=${n} >> text=begun`);
    await stop();
    await page.waitForSelector("#send", { state: "visible" });
    while (service.cancelled <= n) await new Promise((resolve) => setTimeout(resolve, 5));
    assertStringIncludes(await page.innerText(`article.answer >> nth=${n}`), "stopped");
  }
  assertEquals(await page.evaluate("document.activeElement.id"), "input");
});

pageTest("edit and regenerate stand beside what they replace", { script: echo }, async ({ page, say, service }) => {
  await say("first try");
  await page.hover(".question");
  await page.click("[aria-label='Edit and send again']");
  await page.fill(".editor textarea", "second try");
  await page.press(".editor textarea", "Enter");
  await page.waitForSelector(".prose:has-text('SECOND TRY')");
  await page.waitForSelector("#send", { state: "visible" });
  assertEquals(service.requests.at(-1)?.prompt, { messages: [{ role: "user", content: "second try" }] });
  assertEquals(await page.innerText(".branches"), "2 / 2");
  await page.click("[aria-label='Earlier version']");
  assertEquals(await page.innerText(".prose"), "FIRST TRY");
  await page.click("[aria-label='Answer again']");
  await page.waitForSelector(".answer .branches");
  await page.waitForSelector("#send", { state: "visible" });
  assertEquals(await page.innerText(".answer .branches"), "2 / 2");
  assertEquals(service.requests.length, 3);
  await page.press("#input", "ArrowUp");
  assertEquals(await page.inputValue(".editor textarea"), "first try");
  await page.keyboard.press("Escape");
  assertEquals(await page.innerText(".bubble"), "first try");
});

pageTest("a call of the calculator is a card, and goes back with the next question", {
  script: ({ prompt }) =>
    "messages" in prompt && prompt.messages.length > 1 ? ["Yes."] : [
      { type: "piece", choice: 0, kind: "python", text: "12 " },
      { type: "piece", choice: 0, kind: "python", text: "+ 34" },
      { type: "piece", choice: 0, kind: "python_output", text: "46" },
      "It is 46.",
    ],
}, async ({ page, say, service }) => {
  await say("12 + 34?");
  assertEquals(await page.innerText(".call-expression"), "12 + 34");
  assertEquals(await page.innerText(".call-result"), "46");
  assertEquals(await page.innerText(".prose"), "It is 46.");
  await say("Sure?");
  const { prompt } = service.requests[1];
  assertEquals("messages" in prompt && prompt.messages[1].content, [
    { type: "python", text: "12 + 34" },
    { type: "python_output", text: "46" },
    { type: "text", text: "It is 46." },
  ]);
});

pageTest("answers and blocks of code are copied; left out messages are told", {
  script: () => [
    { type: "start", promptTokens: 500, cachedTokens: 0, droppedMessages: 3, contextLen: 512 },
    "Try **this**:\n\n```js\nlet a = 1;\nlet b = 2;\n```\n",
  ],
  browser: { permissions: ["clipboard-read", "clipboard-write"] },
}, async ({ page, say }) => {
  await say("code, please");
  assertEquals(await page.innerText(".dropped"), "The context is full: the 3 oldest messages were left out.");
  const copied = async (label: string) => {
    await page.click(`[aria-label='${label}']`);
    await page.waitForSelector("[aria-label='Copied']");
    return await page.evaluate("navigator.clipboard.readText()");
  };
  assertEquals(await copied("Copy code"), "let a = 1;\nlet b = 2;");
  await page.waitForSelector("[aria-label='Copy code']");
  assertEquals(await copied("Copy answer"), "Try **this**:\n\n```js\nlet a = 1;\nlet b = 2;\n```\n");
});

pageTest("conversations are searched, renamed, deleted, brought back, exported and imported", {
  script: echo,
}, async ({ page, say, context, url }) => {
  for (const text of ["about apples", "about pears"]) {
    await page.click("#new");
    await say(text);
  }
  await page.fill("#search", "apples");
  assertEquals(await page.locator("#list .open").allInnerTexts(), ["about apples"]);
  await page.fill("#search", "plums");
  assertEquals(await page.innerText("#list"), "Nothing found.");
  await page.fill("#search", "");
  await page.hover("#list li >> nth=0");
  await page.click("[aria-label='Rename about pears']");
  await page.fill(".rename", "Pears <b>");
  await page.press(".rename", "Enter");
  assertEquals(await page.innerText("#title"), "Pears <b>");
  await page.hover("#list li >> nth=0");
  await page.click("[aria-label='Delete Pears <b>']");
  assertEquals(await page.locator("#list .open").allInnerTexts(), ["about apples"]);
  await page.click(".toast >> text=Undo");
  await page.waitForSelector(".bubble:has-text('about pears')");
  assertEquals(await page.locator("#list .open").allInnerTexts(), ["Pears <b>", "about apples"]);
  const [download] = await Promise.all([page.waitForEvent("download"), page.click("#export")]);
  const file = await download.path();
  const buffer = Buffer.from(await Deno.readFile(file));
  const other = await context.browser()!.newContext();
  try {
    const fresh = await other.newPage();
    await fresh.goto(url);
    const upload = { name: "a.json", mimeType: "application/json", buffer };
    await fresh.setInputFiles("#import-file", upload);
    await fresh.waitForSelector(".toast:has-text('2 conversations imported')");
    assertEquals(await fresh.locator("#list .open").allInnerTexts(), ["Pears <b>", "about apples"]);
    await fresh.setInputFiles("#import-file", {
      ...upload,
      buffer: Buffer.from("{}"),
    });
    await fresh.waitForSelector(".toast:has-text('Cannot import the file')");
    await fresh.reload();
    await fresh.click("#list .open >> nth=1");
    assertEquals(await fresh.innerText(".prose"), "ABOUT APPLES");
  } finally {
    await other.close();
  }
});

pageTest("two tabs see each other's messages", { script: echo }, async ({ page, say, open }) => {
  await say("from the first");
  const second = await open();
  await second.click("#list .open");
  await say("from the second", second);
  await page.waitForSelector(".bubble:has-text('from the second')");
  await say("from the first again");
  await second.waitForSelector(".prose:has-text('FROM THE FIRST AGAIN')");
  await page.reload();
  await page.waitForSelector(".prose:has-text('FROM THE FIRST AGAIN')");
  assertEquals(await page.locator(".bubble").count(), 3);
});

pageTest("without room the conversation stays, and the page says so", {
  script: echo,
  init: `IDBObjectStore.prototype.put = () => { throw new DOMException("full", "QuotaExceededError"); };`,
}, async ({ page, say }) => {
  await say("keep me");
  await page.waitForSelector("#banner:has-text('no room left')");
  const [download] = await Promise.all([page.waitForEvent("download"), page.click("#banner >> text=Export all")]);
  assertStringIncludes(await Deno.readTextFile(await download.path()), "keep me");
});

pageTest("without a database the page works and says what that means", {
  script: echo,
  init: `IDBFactory.prototype.open = () => { throw new DOMException("no", "SecurityError"); };`,
}, async ({ page, say }) => {
  await page.waitForSelector(".toast:has-text('keeps no conversations')");
  await say("hello");
  assertEquals(await page.innerText(".prose"), "HELLO");
});

pageTest(
  "slash commands are answered, settings hold and are kept",
  { script: echo },
  async ({ page, say, service }) => {
    await page.fill("#input", "/te");
    assertEquals(await page.locator("#suggestions li").count(), 1);
    await page.press("#input", "Tab");
    await page.keyboard.type("0.25");
    await page.press("#input", "Enter");
    await page.waitForSelector(".note:has-text('Temperature is 0.25 now.')");
    for (
      const [text, answer] of [["/topk", "Top-k is 50."], ["/nonsense", "no command /nonsense"], ["/help", "Ctrl K"]]
    ) {
      await page.fill("#input", text);
      await page.press("#input", "Enter");
      await page.waitForSelector(`.note:has-text("${answer}")`);
    }
    await page.click("#settings-open");
    await page.fill("#set-seed", "7");
    await page.fill("#set-system", "Be brief.");
    await page.fill("#set-topK", "999");
    assertEquals(await page.getAttribute("#set-topK", "aria-invalid"), "true");
    await page.check("#theme-dark", { force: true });
    await page.keyboard.press("Escape");
    assertEquals(await page.evaluate("document.activeElement.id"), "settings-open");
    await say("hi");
    const [{ prompt, sampling }] = service.requests;
    assertEquals("messages" in prompt && prompt.messages[0], { role: "system", content: "Be brief." });
    assertEquals([sampling.temperature, sampling.topK, sampling.seed], [0.25, 50, 7]);
    await page.reload();
    await page.waitForSelector(".prose");
    assertEquals(await page.getAttribute("html", "data-theme"), "dark");
    await page.fill("#input", "/clear");
    await page.press("#input", "Enter");
    assertEquals([await page.locator(".bubble").count(), await page.locator("#list .open").count()], [0, 1]);
  },
);

pageTest("a base model is told", { script: echo }, async ({ page, say, service }) => {
  await page.click("#model");
  await page.selectOption("#set-model", "base/d4");
  await page.keyboard.press("Escape");
  assertStringIncludes(await page.innerText("#empty"), "base/d4 is a base model");
  assertEquals(await page.innerText("#model"), "base/d4 · base");
  await say("Once");
  assertEquals(service.requests[0].model, "base/d4");
});

pageTest("probabilities are shown at the pointer and by the arrow keys", {
  script: ({ topLogprobs }) => {
    assertEquals(topLogprobs, 5);
    const tokens = [tokenLogprob("Hi", Math.log(0.75), { Hi: Math.log(0.75), Ho: Math.log(0.2) })];
    const next = [tokenLogprob("!", -5, { "?": -0.1 })];
    return [
      { type: "piece", choice: 0, kind: "text", text: "Hi", tokens },
      { type: "piece", choice: 0, kind: "text", text: "!", tokens: next },
    ];
  },
}, async ({ page, say }) => {
  await page.click("#settings-open");
  await page.check("#set-probabilities");
  await page.keyboard.press("Escape");
  await say("hello");
  await page.hover(".token >> nth=0");
  assertEquals((await page.innerText("#tip")).replace(/\s+/g, " "), "Hi 75.0 % Ho 20.0 %");
  await page.focus(".tokens");
  await page.keyboard.press("ArrowRight");
  assertStringIncludes(await page.innerText("#tip"), "0.7 %");
  await page.reload();
  await page.click("[aria-label='Probabilities']");
  assertEquals(await page.innerText(".prose"), "Hi!");
});

{
  const gate = Promise.withResolvers<void>();
  const more = Promise.withResolvers<void>();
  const lines = Array.from({ length: 120 }, (_, i) => `line ${i}\n\n`);
  pageTest("the thread follows the answer until the reader scrolls away", {
    script: () => [...lines, gate.promise, ...lines, more.promise, "the end"],
  }, async ({ page }) => {
    const gap = "(({scrollHeight, scrollTop, clientHeight}) => scrollHeight - scrollTop - clientHeight)(scroll)";
    await page.evaluate("window.scroll = document.getElementById('scroll')");
    await page.fill("#input", "long");
    await page.press("#input", "Enter");
    await page.waitForSelector("text=line 119");
    await until(page, `${gap} < 2`);
    await page.hover("#thread");
    await page.mouse.wheel(0, -900);
    await until(page, `${gap} > 500`);
    const top = await page.evaluate("scroll.scrollTop");
    gate.resolve();
    await until(page, "document.querySelectorAll('.prose p').length > 200");
    assertEquals(await page.evaluate("scroll.scrollTop"), top);
    await page.click("#latest");
    await until(page, `${gap} < 2`);
    more.resolve();
    await page.waitForSelector("text=the end");
    await until(page, `${gap} < 2`);
    assertEquals(await page.isVisible("#latest"), false);
  });
}

{
  let tries = 0;
  pageTest("a busy server is asked again by itself, and at once where that is wished", {
    script: () =>
      ++tries < 3 ? [new ServiceError("busy", "Full", { retryAfterSec: tries === 1 ? 1 : 600 })] : ["at last"],
    expected: /429/,
  }, async ({ page }) => {
    await page.fill("#input", "hello");
    await page.press("#input", "Enter");
    await page.waitForSelector(".note:has-text('Asking again in 1 s')");
    await page.waitForSelector(".note:has-text('Asking again in 600 s')");
    await page.click("text=Ask now");
    await page.waitForSelector(".prose:has-text('at last')");
    assertEquals(await page.locator(".note").count(), 0);
    assertEquals(tries, 3);
  });
}

pageTest("a server that goes is told, waited for, and asked again; the answer so far stays", {
  script: ({ prompt }) => {
    const last = "messages" in prompt ? prompt.messages.at(-1)!.content : "";
    if (last === "fail") return ["so far", new ServiceError("failed", "The worker ended")];
    if (last === "long") return [new ServiceError("context_length_exceeded", "Too long")];
    return ["fine"];
  },
  expected: /ERR_CONNECTION_REFUSED|400|503/,
}, async ({ page, say, stop, start, service }) => {
  await say("fail");
  await page.waitForSelector(".note:has-text('The worker ended')");
  assertEquals(await page.innerText(".prose"), "so far");
  await page.reload();
  await page.waitForSelector(".note:has-text('This answer was not finished')");
  await say("long");
  await page.waitForSelector(".note:has-text('longer than the model')");
  await stop();
  await say("anybody?");
  await page.waitForSelector(".note:has-text('cannot be reached')");
  await page.waitForSelector("#banner:has-text('Waiting for it')");
  start();
  await page.waitForSelector(".toast:has-text('there again')");
  assertEquals(await page.isVisible("#banner"), false);
  await page.click(".note >> text=Try again");
  await page.waitForSelector(".prose:has-text('fine')");
  assertEquals(await page.locator(".note").count(), 0);
  await service.close(0);
  await say("more");
  await page.waitForSelector(".note:has-text('shutting down')");
});

pageTest("the key is asked for once, again where it is wrong, and stays in the tab", {
  script: echo,
  middleware: [async (c, next) => {
    if (!c.req.path.startsWith("/v1/") || c.req.header("authorization") === "Bearer right") return await next();
    return c.json({ error: { message: "Wrong key", code: "invalid_api_key" } }, 401);
  }],
  expected: /401/,
}, async ({ page, say, context }) => {
  await page.fill("#key-box", "wrong");
  await page.press("#key-box", "Enter");
  await page.waitForSelector("#key h2:has-text('That key is not right')");
  await page.fill("#key-box", "right");
  await page.press("#key-box", "Enter");
  await page.waitForSelector("#model:not([hidden])");
  await say("hello");
  assertEquals(await page.innerText(".prose"), "HELLO");
  await page.reload();
  await page.waitForSelector("#model:not([hidden])");
  const { cookies, origins } = await context.storageState({ indexedDB: true });
  assert(!JSON.stringify([cookies, origins]).includes("right"), "the key is kept beyond the tab");
});
