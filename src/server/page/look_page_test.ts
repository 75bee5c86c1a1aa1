import { assert, assertEquals } from "@std/assert";
import type { Page } from "playwright-core";
import type { Script } from "../models_testing.ts";
import { pageTest } from "./browser_testing.ts";

const LONG_LINE = "x".repeat(300);
const script: Script = () => [
  `# Head\n\nSome \`code\` and a [link](https://a.example/${LONG_LINE}).\n\n> quote\n\n`,
  `\`\`\`py\nprint("${LONG_LINE}")\n\`\`\`\n\n`,
  `| ${Array.from({ length: 12 }, (_, i) => `column ${i}`).join(" | ")} |\n|${" --- |".repeat(12)}\n`,
  `|${" 12345 |".repeat(12)}\n\n${LONG_LINE}\n\n`,
  { type: "piece", choice: 0, kind: "python", text: "1".repeat(200) },
  { type: "piece", choice: 0, kind: "python_output", text: "2".repeat(200) },
];

/** Texts whose contrast to their ground is under WCAG's AA: 4.5, for large ones 3. Runs in the page. */
const LOW_CONTRAST = `(() => {
  const canvas = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d", { willReadFrequently: true });
  const rgba = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b].map((v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = rgba(getComputedStyle(at).backgroundColor);
      if (color[3] > 250) return color;
    }
    return rgba("white");
  };
  const low = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (walker.currentNode.textContent.trim() === "" || !element.checkVisibility({ visibilityProperty: true })) continue;
    if (["SCRIPT", "STYLE"].includes(element.tagName)) continue;
    const style = getComputedStyle(element);
    const [a, b] = [light(rgba(style.color)), light(ground(element))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    const isLarge = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.6 && style.fontWeight >= 700);
    if (ratio < (isLarge ? 3 : 4.5)) low.push(walker.currentNode.textContent.slice(0, 30) + " " + ratio.toFixed(2));
  }
  return low;
})()`;

/** Controls without a name for those who hear the page. */
const NAMELESS =
  `[...document.querySelectorAll("button, input, textarea, select, a[href], [tabindex='0'], dialog")].filter((e) =>
  e.checkVisibility({ visibilityProperty: true }) && !(e.getAttribute("aria-label") || e.getAttribute("aria-labelledby") ||
  e.textContent.trim() || e.labels?.length)).map((e) => e.outerHTML.slice(0, 80))`;

async function assertFits(page: Page, where: string): Promise<void> {
  const wide = await page.evaluate(
    "[document.documentElement.scrollWidth, document.querySelector('.scroll').scrollWidth, innerWidth]",
  );
  const [whole, thread, window] = wide as number[];
  assert(whole <= window && thread <= window, `${where}: ${wide}`);
  assertEquals(await page.evaluate(LOW_CONTRAST), [], `${where}: contrast`);
  assertEquals(await page.evaluate(NAMELESS), [], `${where}: names`);
}

for (const [width, height] of [[375, 700], [1440, 900]]) {
  for (const colorScheme of ["light", "dark"] as const) {
    pageTest(`${width} px wide, ${colorScheme}: all fits, can be read and has a name`, {
      script,
      browser: { viewport: { width, height }, colorScheme, hasTouch: width < 800 },
    }, async ({ page, say }) => {
      await page.waitForSelector("#model:not([hidden])");
      await assertFits(page, "start");
      await say("How long is it?");
      await assertFits(page, "answer");
      await page.fill("#input", "/help");
      await page.press("#input", "Enter");
      await page.fill("#input", "/");
      await assertFits(page, "commands");
      await page.fill("#input", "");
      await page.click("#settings-open");
      await assertFits(page, "settings");
      await page.keyboard.press("Escape");
      if (width < 800) {
        await page.click("#side-open");
        await page.waitForSelector("#side-close:focus");
        await assertFits(page, "list");
        await page.keyboard.press("Escape");
        await page.waitForSelector("#side-open:focus");
      }
    });
  }
}

pageTest("everything is done by the keyboard alone", { script: () => ["Fine."] }, async ({ page, service }) => {
  const focused = () => page.evaluate("document.activeElement.id || document.activeElement.className");
  assertEquals(await focused(), "input");
  for (const text of ["one", "two"]) {
    await page.keyboard.type(text);
    await page.keyboard.press("Enter");
    await page.waitForSelector(".answer:not(.running)");
    await page.keyboard.press("Control+Shift+KeyN");
    assertEquals([await focused(), await page.locator(".bubble").count()], ["input", 0]);
  }
  assertEquals(service.requests.length, 2);
  await page.keyboard.press("Control+KeyK");
  assertEquals(await focused(), "search");
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("Enter");
  assertEquals(await page.innerText(".bubble"), "one");
  await page.keyboard.press("F2");
  await page.keyboard.type("renamed");
  await page.keyboard.press("Enter");
  assertEquals(await page.innerText("#title"), "renamed");
  await page.keyboard.press("Delete");
  assertEquals(await page.locator("#list .open").allInnerTexts(), ["two"]);
  assertEquals(await focused(), "open");
  // From the top: the list, the head, the thread, the box.
  await page.evaluate("document.querySelector('.skip').focus()");
  const order: unknown[] = [];
  for (let i = 0; i < 18; i++) {
    await page.keyboard.press("Tab");
    order.push(await focused());
  }
  const expected = [
    "new",
    "search",
    "open",
    "import",
    "export",
    "side-open",
    "model",
    "settings-open",
    "input",
  ];
  assertEquals(order.filter((name) => expected.includes(name as string)), expected);
});

pageTest("the first paint comes within a second", { script }, async ({ page }) => {
  await page.reload();
  const ms = await page.evaluate(`new Promise((done) => new PerformanceObserver((list) =>
    list.getEntriesByName("first-contentful-paint").forEach(({ startTime }) => done(startTime))
  ).observe({ type: "paint", buffered: true }))`) as number;
  assert(ms < 1000, `${ms} ms`);
});
