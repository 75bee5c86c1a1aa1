import { assert, assertEquals, assertMatch } from "@std/assert";
import { GrowingMarkdown, isSafeLink, markdownToHtml } from "./markdown.ts";
import { ATTACKS } from "./attacks_testing.ts";
import { TestRandom, testRuns, testSeed } from "../../../dev/testing.ts";

/** The tags and attributes that the page's style and sanitizer know. */
const TAG =
  /^<\/?(?:p|br|hr|h[1-6]|strong|em|del|code|pre|blockquote|ul|ol|li|a|table|thead|tbody|tr|th|td)(?: (?:href="(?:https?:\/\/|mailto:)[^"<>]*"|target="_blank"|rel="noreferrer noopener"|title="[^"<>]*"|start="\d+"|align="(?:left|right|center)"|data-lang="[\w+#.-]*"))*\s*\/?>$/;

function assertHarmless(html: string, from: string): void {
  for (const [tag] of html.matchAll(/<[^>]*>?/g)) assertMatch(tag, TAG, `${JSON.stringify(from)} gave ${html}`);
}

Deno.test("markdownToHtml() makes no other element of any attack", () => {
  for (const attack of ATTACKS) assertHarmless(markdownToHtml(attack), attack);
});

Deno.test("markdownToHtml() makes no other element of random joins and cuts of attacks", () => {
  const random = new TestRandom(testSeed());
  for (let run = 0; run < testRuns(1500); run++) {
    const part = () => {
      const attack = random.pick(ATTACKS);
      return attack.slice(random.below(attack.length), random.below(attack.length + 1) || undefined);
    };
    const text = Array.from({ length: 1 + random.below(4) }, part).join(
      random.pick(["", "\n", "\n\n", " ", "> ", "`"]),
    );
    assertHarmless(markdownToHtml(text), text);
  }
});

Deno.test("markdownToHtml() shows HTML, images and unsafe links as the text that they are", () => {
  const cases = [
    ["a <b>bold</b> c", "<p>a &lt;b&gt;bold&lt;/b&gt; c</p>\n"],
    ["![x](https://evil.example/a.png)", "<p>![x](https://evil.example/a.png)</p>\n"],
    ["[x](javascript:alert(1))", "<p>[x](javascript:alert(1))</p>\n"],
    ["[x](/v1/models)", "<p>[x](/v1/models)</p>\n"],
    ["- [x] done", "<ul>\n<li>☑ done</li>\n</ul>\n"],
    ["```py x\n<a>\n```", '<pre data-lang="py"><code>&lt;a&gt;</code></pre>\n'],
  ];
  for (const [text, html] of cases) assertEquals(markdownToHtml(text), html);
});

Deno.test("isSafeLink() knows schemes", () => {
  for (const link of ["https://a.b/c?d=e", "http://x", "mailto:a@b.c"]) assert(isSafeLink(link), link);
  const unsafe = [
    "javascript:alert(1)",
    " javascript:x",
    "data:text/html,x",
    "//evil",
    "file:///etc",
    "vbscript:x",
    "x",
    "",
  ];
  for (const link of [...unsafe, "java\nscript:x", "https://[", "blob:https://a"]) assert(!isSafeLink(link), link);
});

const BLOCKS = [
  "A **bold** word and `code`.\n\n",
  "# Head\n\n",
  "- one\n- two\n  - inner\n\n",
  "1. one\n\n   more of it\n\n2. two\n\n",
  "```js\nconst a = 1;\n\nconst b = `x`;\n```\n\n",
  "| a | b |\n| - | -: |\n| 1 | 2 |\n\n",
  "> quoted\n> more\n\n",
  "Setext\n======\n\n",
  "    indented code\n\n",
  "<div>raw</div>\n\n",
  "***\n\n",
  "line one\nline two\n\n",
  "~~~\nno end\n",
];

Deno.test("GrowingMarkdown() ends with what the whole text gives, in whatever pieces it comes", () => {
  const random = new TestRandom(testSeed());
  for (let run = 0; run < testRuns(200); run++) {
    const text = Array.from({ length: 1 + random.below(6) }, () => random.pick(BLOCKS)).join("");
    const growing = new GrowingMarkdown();
    let finished = "";
    let open = "";
    for (let at = 0; at < text.length;) {
      const next = at + 1 + random.below(random.pick([2, 12, 60]));
      growing.push(text.slice(at, next));
      const taken = growing.take();
      finished += taken.finished;
      open = taken.open;
      at = next;
    }
    assertEquals(finished + open, markdownToHtml(text), JSON.stringify(text));
  }
});

Deno.test("GrowingMarkdown() renders a long text once, not once for every piece", () => {
  const growing = new GrowingMarkdown();
  let rendered = 0;
  const paragraph = "Some words of a paragraph.\n\n";
  for (let i = 0; i < 400; i++) {
    growing.push(paragraph);
    const { finished, open } = growing.take();
    rendered += finished.length + open.length;
  }
  assert(rendered < 400 * paragraph.length * 5, `${rendered} letters`);
});
