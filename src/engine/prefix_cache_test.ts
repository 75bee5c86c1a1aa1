import { assert, assertEquals } from "@std/assert";
import { TestRandom, testSeed } from "../../dev/testing.ts";
import { commonPrefix, PrefixCache } from "./prefix_cache.ts";

Deno.test("PrefixCache.find() gives the longest common beginning, and nothing where no place begins alike", () => {
  const cache = new PrefixCache({ first: 4, size: 3 });
  assertEquals(cache.find([1, 2]), { place: -1, length: 0 });
  assertEquals([[1, 2, 3], [1, 5], [7]].map((tokens) => cache.add(tokens)), [4, 5, 6]);
  assertEquals(cache.find([1, 2, 9]), { place: 4, length: 2 });
  assertEquals(cache.find([1, 5, 9, 9]), { place: 5, length: 2 });
  assertEquals(cache.find([1]).length, 1);
  assertEquals(cache.find([8, 1]), { place: -1, length: 0 });
  assertEquals(cache.find([]), { place: -1, length: 0 });
});

Deno.test("PrefixCache.add() lets a conversation grow in its place and drops what was least recently used", () => {
  const cache = new PrefixCache({ first: 0, size: 2 });
  assert(cache.isOn);
  assertEquals(cache.add([1, 2]), 0);
  assertEquals(cache.add([1, 2, 3, 4]), 0, "the longer one takes the place of its beginning");
  assertEquals(cache.add([1, 2, 3]), null, "it is there");
  assertEquals(cache.add([5]), 1);
  cache.find([1, 9]); // a use
  assertEquals(cache.add([6]), 1, "[5] was used longest ago");
  assertEquals(cache.find([5]).length, 0);
  assertEquals(cache.add([7]), 0);
  assertEquals(cache.find([1, 2, 3, 4]).length, 0);
});

Deno.test("PrefixCache without places finds and keeps nothing", () => {
  const cache = new PrefixCache({ first: 3, size: 0 });
  assert(!cache.isOn);
  assertEquals(cache.add([1]), null);
  assertEquals(cache.find([1]), { place: -1, length: 0 });
});

Deno.test("PrefixCache agrees with a plain list on what lies where", () => {
  const random = new TestRandom(testSeed());
  const [first, size] = [2, 5];
  const cache = new PrefixCache({ first, size });
  const held = new Map<number, readonly number[]>();
  for (let i = 0; i < 3000; i++) {
    const tokens = Array.from({ length: 1 + random.below(6) }, () => random.below(2));
    const longest = Math.max(0, ...[...held.values()].map((other) => commonPrefix(other, tokens)));
    const { place, length } = cache.find(tokens);
    assertEquals(length, longest);
    if (length > 0) assertEquals(commonPrefix(held.get(place)!, tokens), length);
    if (random.below(2)) continue;
    const saved = cache.add(tokens);
    if (saved === null) assertEquals(cache.find(tokens).length, tokens.length);
    else held.set(saved, tokens);
    assert([...held.keys()].every((place) => place >= first && place < first + size));
  }
  assertEquals(held.size, size);
});
