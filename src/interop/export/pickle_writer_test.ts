import { assertEquals, assertThrows } from "@std/assert";
import { PickledName, PickledObject, readPickle, Tuple } from "../pickle.ts";
import { OrderedDict, PyFloat, PyInstance, writePickle } from "./pickle_writer.ts";

Deno.test("writePickle() writes what readPickle() reads", () => {
  const value = new Map<unknown, unknown>([
    ["plain", [null, true, false, 0, -5, 2 ** 31, 2 ** 53 - 1, "é\n", new PyFloat(0.1), new PyFloat(2)]],
    [7, new Tuple([new OrderedDict([["a", []]]), new Tuple([])])],
    ["bytes", Uint8Array.of(0, 255)],
    ["object", new PyInstance("a.b", "C", new Map([["x", 1]]))],
  ]);
  const names = [
    new PickledName("collections.OrderedDict", () => new Map()),
    new PickledName("a.b.C", () => new PickledObject("a.b.C")),
  ];
  const object = new PickledObject("a.b.C");
  object.state = new Map([["x", 1]]);
  assertEquals(
    readPickle(writePickle(value), { what: "test", names }),
    new Map<unknown, unknown>([
      ["plain", [null, true, false, 0, -5, 2 ** 31, 2 ** 53 - 1, "é\n", 0.1, 2]],
      [7, new Tuple([new Map([["a", []]]), new Tuple([])])],
      ["bytes", Uint8Array.of(0, 255)],
      ["object", object],
    ]),
  );
});

Deno.test("writePickle() refuses what has no form in a pickle", () => {
  for (const value of [0.5, NaN, -(2 ** 31), undefined, {}]) {
    assertThrows(() => writePickle(value), TypeError, "Cannot pickle");
  }
});
