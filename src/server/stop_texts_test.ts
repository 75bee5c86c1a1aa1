import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { testSeed } from "../../dev/testing.ts";
import { StopTexts } from "./stop_texts.ts";

/** What comes out of pieces, each at its push, then the rest. */
function run(stop: readonly string[], pieces: readonly string[]): { out: string[]; rest: string; isFound: boolean } {
  const texts = new StopTexts(stop);
  const out = pieces.map((piece) => texts.push(piece));
  return { out, rest: texts.end(), isFound: texts.isFound };
}

Deno.test("StopTexts holds back what may begin a stop text, and no more", () => {
  assertEquals(run(["END"], ["one E", "N", "ter", " EN"]), {
    out: ["one ", "", "ENter", " "],
    rest: "EN",
    isFound: false,
  });
  assertEquals(run(["aab"], ["aaa", "b"]), { out: ["a", ""], rest: "", isFound: true });
  assertEquals(run(["\n\n"], ["a\n", "b\n", "\nc"]), { out: ["a", "\nb", ""], rest: "", isFound: true });
});

Deno.test("StopTexts gives nothing behind a stop text", () => {
  assertEquals(run(["."], ["a. b", " c. d"]), { out: ["a", ""], rest: "", isFound: true });
});

Deno.test("StopTexts looks for no empty text, and for none where none is given", () => {
  assertEquals(run([""], ["ab"]), { out: ["ab"], rest: "", isFound: false });
  assertEquals(run([], ["ab", ""]), { out: ["ab", ""], rest: "", isFound: false });
});

Deno.test("StopTexts takes the text that is complete first, the longest of several", () => {
  assertEquals(run(["abcd", "bc"], ["abcd"]).out, ["a"]);
  assertEquals(run(["bc", "abc"], ["xabc"]).out, ["x"]);
});

Deno.test("StopTexts forgets what it held at another kind of content", () => {
  const texts = new StopTexts(["abc"]);
  assertEquals([texts.push("ab"), texts.end(), texts.push("c")], ["", "ab", "c"]);
});

Deno.test("StopTexts.another() watches another answer for the same texts", () => {
  const texts = new StopTexts(["abc"]);
  assertEquals(texts.push("xab"), "x");
  const other = texts.another();
  assertEquals([other.push("c"), texts.push("c")], ["c", ""]);
  assertEquals([other.isFound, texts.isFound], [false, true]);
  assertEquals([other.push("ab"), other.push("c"), other.isFound], ["", "", true]);
});

Deno.test("StopTexts never cuts a character in two", () => {
  assertEquals(run(["\ude00"], ["\u{1f600}!"]), { out: ["\u{1f600}!"], rest: "", isFound: false });
  assertEquals(run(["\u{1f600}"], ["a\u{1f601}", "\u{1f600}b"]).out, ["a\u{1f601}", ""]);
});

Deno.test("StopTexts gives the same answer for any cut, that of a plain search", () => {
  const text = fc.string({ unit: fc.constantFrom("a", "b", "é"), maxLength: 30 });
  const stops = fc.array(fc.string({ unit: fc.constantFrom("a", "b", "é"), minLength: 1, maxLength: 4 }), {
    maxLength: 3,
  });
  fc.assert(
    fc.property(fc.array(text, { maxLength: 5 }), stops, (pieces, stop) => {
      const { out, rest, isFound } = run(stop, pieces);
      const whole = pieces.join("");
      const ends = stop.flatMap((each) => whole.includes(each) ? [{ at: whole.indexOf(each), each }] : [])
        .sort((a, b) => a.at + a.each.length - b.at - b.each.length || a.at - b.at);
      assertEquals([out.join("") + rest, isFound], [
        ends.length > 0 ? whole.slice(0, ends[0].at) : whole,
        ends.length > 0,
      ]);
    }),
    { seed: testSeed(), numRuns: 500 },
  );
});

Deno.test("StopTexts takes time in proportion to the text, however alike the stop text is", () => {
  const start = performance.now();
  run(["a".repeat(20_000) + "b"], Array.from({ length: 100 }, () => "a".repeat(1000)));
  assert(performance.now() - start < 5000);
});
