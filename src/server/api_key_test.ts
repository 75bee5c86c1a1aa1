import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { ApiKey } from "./api_key.ts";

Deno.test("ApiKey finds itself in a header and nothing else", () => {
  const key = new ApiKey("correct-horse");
  for (const text of ["Bearer correct-horse", "bearer correct-horse", "BEARER   correct-horse "]) {
    assert(key.isIn(text), text);
  }
  for (
    const text of [
      undefined,
      `Bearer${" ".repeat(16_000)}x y`,
      "",
      "Bearer",
      "Bearer ",
      "correct-horse",
      "Basic correct-horse",
      "Bearer correct-hors",
    ]
      .concat([
        "Bearer correct-horse2",
        "Bearer Correct-horse",
        "Bearer correct-horse x",
        "Bearer x, Bearer correct-horse",
      ])
  ) assertEquals(key.isIn(text), false, text);
});

Deno.test("ApiKey refuses what is no key, without showing it", () => {
  for (const text of ["", "short", "with blank", "línea-de-clave", "tab\tbed-key", "a".repeat(513)]) {
    const { message } = assertThrows(() => new ApiKey(text), RangeError);
    assertStringIncludes(message, "expected 8 to 512 visible ASCII characters");
    assert(text === "" || !message.includes(text), message);
  }
});
