import { assert, assertEquals, assertThrows } from "@std/assert";
import { checkMutations } from "../../dev/testing.ts";
import { CheckpointError } from "../model/meta.ts";
import { PickledName, PickledObject, readPickle, Tuple } from "./pickle.ts";
import { call, list, pickle, push, Raw } from "./torch_testing.ts";

const NAMES = [
  new PickledName("collections.OrderedDict", () => new Map()),
  new PickledName("torch.FloatStorage"),
  new PickledName("m.Thing", () => new PickledObject("m.Thing")),
];
const read = (bytes: Uint8Array) => readPickle(bytes, { what: "x.pt", names: NAMES });
const raw = (code: string) => Uint8Array.from(code, (letter) => letter.charCodeAt(0));
const of = (code: string) => read(raw(`\x80\x04${code}.`));

Deno.test("readPickle() gives the values of every instruction that saving writes", () => {
  const value = new Map<unknown, unknown>([["a", list([1, -2, 2.5, null, true, false])], [7, [1, "é"]]]);
  assertEquals(
    read(pickle(value)),
    new Map<unknown, unknown>([
      ["a", [1, -2, 2.5, null, true, false]],
      [7, new Tuple([1, "é"])],
    ]),
  );
  assertEquals(of("K\xff"), 255);
  assertEquals(of("M\x01\x02"), 513);
  assertEquals(of("\x8a\x00"), 0);
  assertEquals(of("\x8a\x01\xff"), -1);
  assertEquals(of("\x8a\x05\x00\x00\x00\x00\x01"), 2 ** 32);
  assertEquals(of("\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x80"), -(2n ** 63n));
  assertEquals(of("\x8c\x02hi"), "hi");
  assertEquals(of("\x8d\x02\0\0\0\0\0\0\0hi"), "hi");
  assertEquals(of("C\x02\x00\xff"), new Uint8Array([0, 255]));
  assertEquals(of("\x8e\x01\0\0\0\0\0\0\0\x07"), new Uint8Array([7]));
  assertEquals(of(")"), new Tuple([]));
  assertEquals(of("K\x01K\x02K\x03\x87"), new Tuple([1, 2, 3]));
  assertEquals(of("K\x01K\x02\x86"), new Tuple([1, 2]));
  assertEquals(of("K\x01\x85"), new Tuple([1]));
  assertEquals(of("]K\x01a"), [1]);
  assertEquals(of("}K\x01K\x02s"), new Map([[1, 2]]));
  assertEquals(of("]q\x05K\x01ah\x05"), [1]);
  assertEquals(of("K\x09\x94j\0\0\0\0\x86"), new Tuple([9, 9]));
  assertEquals(of("K\x01K\x020"), 1);
  assertEquals(of("K\x01(K\x02K\x031"), 1);
  assertEquals(of("K\x012\x86"), new Tuple([1, 1]));
  assertEquals(of("\x95\0\0\0\0\0\0\0\0K\x01"), 1);
  assertEquals(
    of("\x8c\x01m\x8c\x05Thing\x93)\x81}K\x01K\x02sb"),
    Object.assign(new PickledObject("m.Thing"), {
      state: new Map([[1, 2]]),
    }),
  );
  assertEquals(of("ccollections\nOrderedDict\n)R}\x8c\x09_metadata}sb"), new Map()); // attributes are left out
  const cycle = of("]q\x00h\x00a") as unknown[];
  assert(cycle[0] === cycle);
});

const HOSTILE: readonly [what: string, value: unknown, message: string][] = [
  ["os.system", call("os", "system", ["touch evil"]), '"os.system"'],
  ["posix.system", call("posix", "system", ["touch evil"]), '"posix.system"'],
  ["builtins.eval", call("builtins", "eval", ["1"]), '"builtins.eval"'],
  ["builtins.exec", call("builtins", "exec", ["1"]), '"builtins.exec"'],
  ["__builtin__.getattr", call("__builtin__", "getattr", ["a", "b"]), '"__builtin__.getattr"'],
  ["subprocess.Popen", call("subprocess", "Popen", [["sh"]]), '"subprocess.Popen"'],
  ["torch.load", call("torch.serialization", "load", ["x"]), '"torch.serialization.load"'],
  ["a name of this language", call("constructor", "constructor", []), '"constructor.constructor"'],
  ["a prototype", call("__proto__", "toString", []), '"__proto__.toString"'],
  ["a value that is no function", call("torch", "FloatStorage", [1]), "it calls torch.FloatStorage"],
  ["a text that is called", new Raw(`${push("os.system")})R`), "it calls a text"],
  ["the name built on the stack", new Raw(`${push("os")}${push("system")}\x93)R`), '"os.system"'],
  ["a name that is no text", new Raw("K\x01K\x02\x93"), "a name is a number and a number"],
  ["a class of the old protocol", new Raw("(ios\nsystem\n"), "0x69 (INST)"],
  ["an object of the old protocol", new Raw("(o"), "0x6f (OBJ)"],
  ["an extension", new Raw("\x82\x01"), "0x82 (EXT1)"],
  ["keyword arguments", new Raw("\x92"), "0x92 (NEWOBJ_EX)"],
  ["an unknown instruction", new Raw("\xfe"), "instruction 0xfe,"],
  ["a persistent id", new Raw("NQ"), "outside of it"],
  ["a huge memo index", new Raw("Nr\xff\xff\xff\xff"), "memo index 4294967295, expected at most"],
  ["an empty memo index", new Raw("h\x07"), "memo index 7 is empty"],
  ["a huge number", new Raw("\x8a\xff"), "255 bytes, expected at most 8"],
  ["a huge text", new Raw("\x8d\xff\xff\xff\xff\xff\xff\xff\xff"), "it ends after"],
  ["huge bytes", new Raw("B\xff\xff\xff\xffabc"), "it ends after"],
  ["a text that is no UTF-8", new Raw("\x8c\x01\xff"), "not valid UTF-8"],
  ["a state without an object", new Raw("K\x01}b"), "the state of a number"],
  ["a second state", new Raw("cm\nThing\n)R}b}b"), "the state of an object of m.Thing"],
  ["an item of a list", new Raw("]K\x01K\x02s"), "an item of a list"],
  ["an element of a dict", new Raw("}K\x01a"), "appends to a dict"],
  ["a key without a value", new Raw("}(K\x01u"), "a key has no value"],
  ["arguments that are no tuple", new Raw("cm\nThing\nK\x01R"), "the arguments are a number"],
  ["a mark that is missing", new Raw("t"), "no mark"],
  ["an empty stack", new Raw("0"), "its stack is empty"],
  ["values below a mark", new Raw("K\x01(0"), "its stack is empty"],
  ["a name without end", new Raw("cos"), "a name has no end"],
];

for (const [what, value, message] of HOSTILE) {
  Deno.test(`readPickle() refuses ${what}`, () => {
    const error = assertThrows(() => read(pickle(value)), message.startsWith('"') ? CheckpointError : SyntaxError);
    assert(error.message.startsWith('Cannot read the pickle of "x.pt" at byte '), error.message);
    assert(error.message.includes(message), error.message);
  });
}

Deno.test("readPickle() refuses other protocols, and what is no pickle or ends early", () => {
  for (
    const code of ["", "cos\nsystem\n)R.", "\x80", "\x80\x01N.", "\x80\x06N.", "\x80\x02", "\x80\x02N", "\x80\x02."]
  ) {
    assertThrows(() => read(raw(code)), SyntaxError, "Cannot read the pickle");
  }
});

Deno.test("readPickle() takes deep nesting and references to references in time and memory of its size", () => {
  const deep = "]".repeat(200_000) + "a".repeat(199_999);
  assert(Array.isArray(of(deep)));
  // Ten references to a list of ten references and so on: 10^50 elements if they were copies.
  const level = (i: number) => `](${`h${String.fromCharCode(i - 1)}`.repeat(10)}eq${String.fromCharCode(i)}0`;
  const laughs = Array.from({ length: 50 }, (_, i) => level(i + 1)).join("");
  assert(Array.isArray(of(`]q\x000${laughs}h\x32`)));
});

Deno.test("readPickle() survives 2,000 seeded mutations with one error or a value", async () => {
  const order = call("collections", "OrderedDict", []);
  const thing = new Raw(`cm\nThing\n)\x81${push(new Map([["name", "x"], ["n", 3]].map(([k, v]) => [k, v])))}b`);
  const value = new Map<unknown, unknown>([["a", list([1, 2.5, [3, 4]])], ["b", order], ["c", thing]]);
  await checkMutations({
    files: [
      pickle(value),
      pickle(new Map([["bytes", new Uint8Array(300)], ["text", "é".repeat(50)]].map(([k, v]) => [k, v]))),
    ],
    read,
    errors: [SyntaxError, CheckpointError],
    refused: 0.4,
  });
});
