import { assertAlmostEquals, assertEquals } from "@std/assert";
import { money, RunClock } from "./run_clock.ts";

const HOUR = 3.6e6;

Deno.test("RunClock counts earlier attempts and tells what has been and will be paid", () => {
  let ms = 5000;
  const clock = new RunClock({ beforeMs: HOUR, pricePerHour: 3, now: () => ms });
  ms += HOUR / 2;
  assertEquals(clock.wallMs, 1.5 * HOUR);
  assertAlmostEquals(clock.cost!, 4.5);
  assertEquals(clock.costText({ done: 10, left: 30 }), "$4.50 of about $9.00"); // 10 updates in half an hour, 30 to come
  assertEquals(clock.costText({ done: 10, left: 0 }), "$4.50 of about $4.50");
});

Deno.test("RunClock says nothing about cost without a price", () => {
  const clock = new RunClock({ now: () => 0 });
  assertEquals([clock.cost, clock.costText({ done: 1, left: 1 })], [undefined, undefined]);
});

Deno.test("money() keeps small amounts visible", () => {
  assertEquals([0, 0.00123, 0.0999, 0.1, 12.345].map(money), ["$0.00", "$0.0012", "$0.10", "$0.10", "$12.35"]);
});
