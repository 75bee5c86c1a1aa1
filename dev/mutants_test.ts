import { assertEquals } from "@std/assert";
import { applyMutant, findMutants } from "./mutants.ts";

/** Every mutant of a source, applied. */
const all = (source: string) => findMutants(source).map((mutant) => applyMutant(source, mutant));

Deno.test("findMutants() changes operators, constants, booleans and rounding one at a time", () => {
  assertEquals(all("x = a + 1;"), ["x = a - 1;", "x = a + 2;"]);
  assertEquals(all("const y = Math.min(a, b) <= 0x10n;"), [
    "const y = Math.max(a, b) <= 0x10n;",
    "const y = Math.min(a, b) < 0x10n;",
    "const y = Math.min(a, b) <= 17n;",
  ]);
  assertEquals(all("return !done && ok === true;"), [
    "return done && ok === true;",
    "return !done || ok === true;",
    "return !done && ok !== true;",
    "return !done && ok === false;",
  ]);
  assertEquals(all("for (;;) i++;"), ["for (;;) ;", "for (;;) i--;"]);
});

Deno.test("findMutants() leaves comments, text, imports and types alone", () => {
  const source = [
    'import * as a from "../a/b.ts"; // 1 + 2',
    'import { b } from "b";',
    'export * from "c";',
    "/* 3 < 4 */ interface Size { readonly n: 1 | 2; of(x: Map<string, 3>): true }",
    "export type Two = 2;",
    "const s = `${`{1 + 2}`} && 3`, t = 'a < 4', u = /5 + \\/ 6/.test(s);",
    "const none = of<Map<string, number>>(value!) as Array<Two>;",
    'throw new Error("1 + " + name);',
  ].join("\n");
  assertEquals(all(source), []);
});

Deno.test("findMutants() removes calls and assignments, not declarations, methods or fields", () => {
  const source = [
    "class A {",
    "  readonly size: number;",
    "  constructor(size: number) {",
    "    this.size = size;",
    "    if (size) free(size);",
    "    await this.log({ size }, () => { grow(); });",
    "  }",
    "  get(): void {}",
    "}",
  ].join("\n");
  const removed = findMutants(source).map(({ line, change }) => [line, change]);
  assertEquals(removed, [
    [5, "without `free(size)`"],
    [6, "without `await this.log({ size }, () => { grow(); });`"],
    [6, "without `grow();`"],
  ]);
});
