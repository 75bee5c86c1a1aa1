import { assertEquals } from "@std/assert";
import { answerLimit, makeNonce, readAnswer } from "./frame.ts";

const nonce = "0123456789abcdef0123456789abcdef";
const bytes = (text: string) => new TextEncoder().encode(text);

/** An answer as child.js writes it. */
function answer(head: string, sections: readonly string[]): Uint8Array {
  const parts = sections.map(bytes).flatMap((part) => [
    new Uint8Array(Uint32Array.of(part.length).buffer),
    part,
  ]);
  return Uint8Array.from([bytes(head), ...parts].flatMap((part) => [...part]));
}

Deno.test("readAnswer() reads each verdict with what came along", () => {
  for (const [letter, kind] of Object.entries({ O: "ok", A: "assertion", D: "denied", M: "memory", E: "error" })) {
    const whole = answer(nonce + letter, ["out é\n", "", "E: x"]);
    assertEquals(readAnswer(whole, nonce), { kind, stdout: "out é\n", stderr: "", error: "E: x" });
  }
});

Deno.test("readAnswer() takes nothing but one whole answer with its nonce", () => {
  const good = answer(`${nonce}O`, ["a", "b", "c"]);
  for (let length = 0; length < good.length; length++) {
    assertEquals(readAnswer(good.subarray(0, length), nonce), undefined);
  }
  const cases = {
    "another nonce": answer(`${makeNonce()}O`, ["", "", ""]),
    "another letter": answer(`${nonce}T`, ["", "", ""]),
    "a byte before": Uint8Array.from([10, ...good]),
    "a byte behind": Uint8Array.from([...good, 10]),
    "two answers": Uint8Array.from([...good, ...good]),
    "a length beyond the end": Uint8Array.from([...bytes(`${nonce}O`), 255, 255, 255, 255, 1, 2]),
  };
  for (const [name, wrong] of Object.entries(cases)) assertEquals(readAnswer(wrong, nonce), undefined, name);
});

Deno.test("readAnswer() reads an answer inside a larger buffer", () => {
  const good = answer(`${nonce}O`, ["a", "b", "c"]);
  const large = new Uint8Array(good.length + 20);
  large.set(good, 7);
  assertEquals(readAnswer(large.subarray(7, 7 + good.length), nonce)?.stdout, "a");
});

Deno.test("answerLimit() holds the longest answer", () => {
  assertEquals(answer(`${nonce}O`, ["x".repeat(100), "y".repeat(100), "z".repeat(1024)]).length, answerLimit(100));
});

Deno.test("makeNonce() gives another nonce each time", () => {
  const nonces = Array.from({ length: 100 }, makeNonce);
  assertEquals(new Set(nonces).size, 100);
  for (const text of nonces) assertEquals(/^[0-9a-f]{32}$/.test(text), true);
});
