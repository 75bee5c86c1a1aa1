import { assertEquals } from "@std/assert";
import { join } from "@std/path";
import fc from "fast-check";
import { testRuns } from "../../dev/testing.ts";
import { calculate, printFloat } from "./calculator.ts";

const GOLDEN = join(import.meta.dirname!, "../../dev/golden/tasks/calculator.json");
const seed = Number(Deno.env.get("NANOCHAT_TEST_SEED") ?? Date.now() % 2 ** 31);

/** Runs a property; a failure names the seed that repeats it. */
function check(property: fc.IProperty<unknown[]> | fc.IProperty<[string]>, numRuns = 500): void {
  fc.assert(property as fc.IProperty<unknown[]>, { seed, numRuns: testRuns(numRuns) });
}

Deno.test("calculate() equals the reference for the recorded expressions", () => {
  for (const { expr, result } of JSON.parse(Deno.readTextFileSync(GOLDEN))) {
    assertEquals(calculate(expr), result, JSON.stringify(expr));
  }
});

Deno.test("calculate() follows Python where the recorded expressions do not reach", () => {
  const cases: [string, string | null][] = [
    ["...", null],
    ["()*3", "()"],
    ["()+()", "()"],
    ["-()", null],
    ["()*1.5", null],
    ["()()", null],
    ["00", "0"],
    ["00.5", "0.5"],
    ["1..5", null],
    ["2///3", null],
    ["7//-2", "-4"],
    ["7.5//2", "3.0"],
    ["-7.5//2", "-4.0"],
    ["0.0/-5", "-0.0"],
    ["0//-5", "0"],
    ["1//0", null],
    ["1.0//0.0", null],
    ["100000000000000000000000/7", "1.4285714285714286e+22"],
    ["10000000000000000.0", "1e+16"],
    ["1/100000", "1e-05"],
    ["1/10000", "0.0001"],
    [`${"9".repeat(400)}*1.0`, null],
    [`${"9".repeat(400)}/${"9".repeat(399)}`, "10.0"],
    [`1/${"9".repeat(320)}`, "1e-320"],
    [`${"9".repeat(400)}.0`, "inf"],
    ["9".repeat(4300), "9".repeat(4300)],
    ["9".repeat(4301), null],
    [`${"9".repeat(4300)}*9`, null],
    ["'''a'b'''.count('''a''')", "1"],
    ["r'abc'.count(u'b')", "1"],
    ["' aBc '.strip().upper().count('B')", "1"],
    ["'abc' .count('a')", "1"],
    ["('ab' 'ab').count('ab')", "2"],
    ["'.count('", ".count("],
    ["'abc'.count()", null],
    ["'abc'.count('a' 1)", null],
    ["'abc'.toString().count('a')", null],
    ["'abc'.constructor().count('a')", null],
  ];
  for (const [expression, expected] of cases) assertEquals(calculate(expression), expected, expression.slice(0, 60));
});

Deno.test("calculate() computes what the tree of a random expression says", () => {
  type Tree = { text: string; value: bigint };
  const leaf = fc.bigInt({ min: 0n, max: 10n ** 12n }).map((n): Tree => ({ text: String(n), value: n }));
  const { tree } = fc.letrec<{ tree: Tree }>((tie) => ({
    tree: fc.oneof(
      { maxDepth: 6, withCrossShrink: true },
      leaf,
      fc.tuple(tie("tree"), fc.constantFrom("+", "-", "*"), tie("tree")).map(([x, op, y]): Tree => ({
        text: `(${x.text} ${op} ${y.text})`,
        value: op === "+" ? x.value + y.value : op === "-" ? x.value - y.value : x.value * y.value,
      })),
      tie("tree").map((x): Tree => ({ text: `-${x.text}`, value: -x.value })),
    ),
  }));
  check(fc.property(tree, ({ text, value }) => assertEquals(calculate(text), String(value), `seed ${seed}: ${text}`)));
});

Deno.test("calculate() divides and floors as Python does for random numbers", () => {
  const integer = fc.bigInt({ min: -(10n ** 6n), max: 10n ** 6n });
  check(fc.property(integer, integer.filter((n) => n !== 0n), (x, y) => {
    assertEquals(calculate(`(${x})/(${y})`), printFloat(Number(x) / Number(y)));
    const floor = BigInt(calculate(`(${x})//(${y})`)!);
    const rest = x - floor * y;
    assertEquals(rest === 0n || ((rest < 0n) === (y < 0n) && (rest < 0n ? -rest : rest) < (y < 0n ? -y : y)), true);
  }));
  // Large operands: scaling both by one factor does not change the correctly rounded quotient.
  check(fc.property(fc.bigInt({ min: 1n, max: 2n ** 53n }), fc.bigInt({ min: 1n, max: 2n ** 53n }), (x, y) => {
    assertEquals(calculate(`${x * 3n ** 60n}/${y * 3n ** 60n}`), printFloat(Number(x) / Number(y)), `seed ${seed}`);
  }));
  check(fc.property(fc.double(), (x) => assertEquals(Number(printFloat(x).replace("inf", "Infinity")), x)));
});

Deno.test("calculate() counts as a plain search does for random words", () => {
  const word = fc.string({ unit: fc.constantFrom(..."abn _."), maxLength: 12 });
  check(fc.property(word, word, (text, part) => {
    if ((text + part).includes("__")) return;
    let count = 0;
    for (let at = 0; part !== "" && (at = text.indexOf(part, at)) >= 0; at += part.length) count++;
    assertEquals(
      calculate(`'${text}'.count("${part}")`),
      String(part === "" ? text.length + 1 : count),
      `seed ${seed}`,
    );
  }));
});

Deno.test("calculate() never throws and ends at once whatever the text", () => {
  check(fc.property(fc.string({ maxLength: 60 }), (text) => void calculate(text)), 1000);
  const near = fc.string({ unit: fc.constantFrom(..."0123456789+-*/.() "), maxLength: 40 });
  check(fc.property(near, (text) => void calculate(text)), 2000);
  const quoted = fc.array(fc.constantFrom("'", '"', "'''", ".count(", "a", ")", "(", " ", ".lower()", "0"), {
    maxLength: 20,
  });
  check(fc.property(quoted.map((parts) => parts.join("")), (text) => void calculate(text)), 2000);
  const started = performance.now();
  assertEquals(calculate("(".repeat(200) + "1" + ")".repeat(200)), "1");
  assertEquals(calculate("(".repeat(201) + "1" + ")".repeat(201)), null);
  assertEquals(calculate("(".repeat(50_000)), null);
  assertEquals(calculate("-".repeat(99_998) + "5"), "5");
  assertEquals(calculate(Array(20).fill("9".repeat(4000)).join("*")), null);
  assertEquals(calculate("1+".repeat(60_000)), null);
  assertEquals(calculate("1+".repeat(49_000) + "1"), "49001");
  assertEquals(performance.now() - started < 5000, true);
});
