/** What tests of several layers share. */

/** Returns the seed of a random test (`NANOCHAT_TEST_SEED`, else a fixed one) and prints it. */
export function testSeed(): number {
  const seed = Number(Deno.env.get("NANOCHAT_TEST_SEED") ?? 20260101);
  console.log(`NANOCHAT_TEST_SEED=${seed}`);
  return seed;
}

/** Makes a temporary folder that is removed at the end of the scope. */
export function temporaryFolder(): Disposable & { readonly path: string } {
  const path = Deno.makeTempDirSync({ prefix: "nanochat_test_" });
  return { path, [Symbol.dispose]: () => Deno.removeSync(path, { recursive: true }) };
}
