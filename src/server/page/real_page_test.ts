import { assert, assertEquals } from "@std/assert";
import { pageTest } from "./browser_testing.ts";
import { ModelPool } from "../pool.ts";
import { ToyPlace } from "../toy_testing.ts";

pageTest("a real model answers, is stopped, and is free again", {
  serve: async () => {
    const place = new ToyPlace();
    const service = new ModelPool([await place.add({ stage: "sft", tag: "d2", sequenceLen: 8192 })], {
      threads: 1,
      rows: 1,
    });
    return {
      service,
      close: async () => {
        await service.close(0);
        place[Symbol.dispose]();
      },
    };
  },
}, async ({ page, say, service }) => {
  await page.waitForSelector("#model:has-text('d2')");
  await page.click("#settings-open");
  await page.fill("#set-maxTokens", "12");
  await page.fill("#set-temperature", "0"); // the toy then says one thing for ever
  await page.check("#set-probabilities");
  await page.keyboard.press("Escape");
  await say("Hello");
  assertEquals(await page.locator(".note").count(), 0);
  assert(await page.locator(".token").count() > 0);
  await page.click("#settings-open");
  await page.fill("#set-maxTokens", "4096");
  await page.keyboard.press("Escape");
  await page.fill("#input", "Go on");
  await page.press("#input", "Enter");
  await page.waitForSelector(".answer >> nth=1 >> .token");
  await page.keyboard.press("Escape");
  await page.waitForSelector(".answer >> nth=1 >> text=stopped");
  while (service.stats().activeRows > 0) await new Promise((resolve) => setTimeout(resolve, 5));
});
