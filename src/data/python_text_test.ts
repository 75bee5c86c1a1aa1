import { assertEquals } from "@std/assert";
import { pythonStrip } from "./python_text.ts";

Deno.test("pythonStrip() removes what Python's strip removes", () => {
  assertEquals(pythonStrip(" \t\n\u001c\u0085\u00a0\u3000a b\u001f\r\n"), "a b");
  assertEquals(pythonStrip(" \ufeff a \ufeff \ufeff "), "\ufeff a \ufeff \ufeff");
  assertEquals(pythonStrip(" \n "), "");
});
