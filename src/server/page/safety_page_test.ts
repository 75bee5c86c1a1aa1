import { Buffer } from "node:buffer";
import { assertEquals, assertRejects } from "@std/assert";
import { ATTACKS } from "./attacks_testing.ts";
import { pageTest } from "./browser_testing.ts";
import { addAnswer, addPiece, addQuestion, newConversation } from "./chat.ts";
import { exportText } from "./transfer.ts";

const WATCH = "window.attacked = () => { window.wasAttacked = true; };";
/** Elements that an answer may not bring; the page's own buttons and icons stand outside of it. */
const FOREIGN =
  ".prose :is(script,img,iframe,form,input,style,link,meta,base,object,embed,video,svg:not(.icon svg),math,template)";

pageTest("no attack of a streamed answer or of an imported file runs, loads or sends anything", {
  script: () => ATTACKS.flatMap((attack) => [...attack.match(/[\s\S]{1,7}/g)!, "\n\n"]),
  init: WATCH,
}, async ({ page, say }) => {
  await say("<img src=x onerror=attacked()>");
  assertEquals(await page.innerText(".bubble"), "<img src=x onerror=attacked()>");
  const hostile = newConversation();
  for (const attack of ATTACKS) {
    const question = addQuestion(hostile, { text: attack, parent: hostile.head });
    const answer = addAnswer(hostile, { parent: question.id, model: attack.slice(0, 60) });
    for (const type of ["text", "python", "python_output"] as const) addPiece(answer, { type, text: attack });
    answer.end = "stop";
    answer.tokens = [{ text: attack.slice(0, 99), logprob: -1, top: [] }];
  }
  hostile.title = ATTACKS[2];
  const buffer = Buffer.from(exportText([hostile]));
  await page.setInputFiles("#import-file", { name: "x.json", mimeType: "application/json", buffer });
  for (const [n, title] of ["streamed", "imported"].entries()) {
    if (n === 1) await page.click(`#list .open:has-text('onerror') >> nth=0`);
    await page.waitForSelector(n === 1 ? `.answer >> nth=${ATTACKS.length - 1}` : ".prose");
    assertEquals(await page.locator(FOREIGN).count(), 0, title);
    assertEquals(await page.evaluate("window.wasAttacked"), undefined, title);
    const links = await page.evaluate(`[...document.querySelectorAll(".prose a")].map((a) =>
      [a.protocol, a.rel, a.target, ...a.getAttributeNames().filter((name) => name.startsWith("on"))].join(" "))`);
    assertEquals([...new Set(links as string[])].sort(), ["https: noreferrer noopener _blank"], title);
  }
});

pageTest("the policy of the page stops what would get past the sanitizer", {
  init: WATCH,
  expected: /Content Security Policy|TrustedHTML|TrustedScript|Refused|Fetch API|violates/,
}, async ({ page }) => {
  const tries = [
    "document.body.innerHTML = '<img src=x onerror=attacked()>'",
    "Object.assign(document.createElement('script'), { text: 'attacked()' })",
    "eval('attacked()')",
    "fetch('https://evil.example/')",
  ];
  // A timer runs within the page's own policy; what the test's tool evaluates itself may be exempt.
  for (const code of tries) {
    await assertRejects(
      () =>
        page.evaluate(`new Promise((done, fail) => setTimeout(async () => {
    try { await (${code}); done(); } catch (error) { fail(error); }
  }))`),
      Error,
      undefined,
      code,
    );
  }
  await page.evaluate("document.body.append(Object.assign(new Image(), { src: 'data:text/html,x' }))");
  assertEquals(await page.evaluate("window.wasAttacked"), undefined);
});
