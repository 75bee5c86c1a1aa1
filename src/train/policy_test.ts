import { assertAlmostEquals, assertEquals } from "@std/assert";
import { policyPasses, policyWeights } from "./policy.ts";
import { advantagesOf } from "./rollouts.ts";

const ROLLOUT = {
  index: 0,
  sequences: [[1, 2, 3], [1, 2, 4, 5], [1, 2, 6]],
  masks: [[0, 0, 1], [0, 0, 1, 0], [0, 0, 1]],
  answers: [],
};
const PASSES = policyPasses(ROLLOUT, { advantages: advantagesOf([1, 0, 0]), B: 2, pad: 9, multiple: 1 });

Deno.test("policyPasses() makes targets of what was sampled, and fills the last pass with empty rows", () => {
  assertEquals(PASSES.map(({ inputs }) => [...inputs]), [[1, 2, 3, 1, 2, 4], [1, 2, 6, 9, 9, 9]]);
  assertEquals(PASSES.map(({ targets }) => [...targets]), [[-1, 3, -1, -1, 4, -1], [-1, 6, -1, -1, -1, -1]]);
  assertEquals(PASSES.map(({ tokens }) => tokens), [2, 1]);
});

Deno.test("policyWeights() without terms is the advantage over the sampled tokens of the pass", () => {
  assertEquals([...policyWeights(PASSES[0])].map((x) => Math.round(x * 6e6) / 1e6), [0, 2, 0, 0, -1, 0]);
});

/** The objective of a pass for log-probabilities `now`, written out as in the papers. */
function objective(
  now: readonly number[],
  { clip, kl, old, reference }: Record<string, number> & { clip: number },
): number {
  const [pass] = PASSES;
  let sum = 0;
  pass.targets.forEach((target, i) => {
    if (target < 0) return;
    const advantage = pass.advantages[Math.floor(i / 3)];
    const ratio = Math.exp(now[i] - old);
    const clipped = clip > 0 ? Math.min(Math.max(ratio, 1 - clip), 1 + clip) : ratio;
    sum += Math.min(ratio * advantage, clipped * advantage);
    sum -= kl * (Math.exp(reference - now[i]) - (reference - now[i]) - 1);
  });
  return sum / pass.tokens;
}

Deno.test("policyWeights() is the derivative of the clipped objective with the distance from the reference", () => {
  const cases = [
    { clip: 0, kl: 0, old: -1.1, reference: -1 },
    { clip: 0.2, kl: 0, old: -1.1, reference: -1 },
    { clip: 0.2, kl: 0, old: -2, reference: -1 }, // beyond the bound for the good answer alone
    { clip: 0.2, kl: 0, old: -0.5, reference: -1 }, // and for the bad one
    { clip: 0.2, kl: 0.3, old: -2, reference: -1.4 },
    { clip: 0, kl: 0.3, old: -1, reference: -0.6 },
  ];
  for (const terms of cases) {
    const now = Array.from({ length: 6 }, (_, i) => -1 - i / 50);
    const fill = (x: number) => new Float32Array(6).fill(x);
    const weights = policyWeights(PASSES[0], {
      ...{ clip: terms.clip, kl: terms.kl, old: fill(terms.old), reference: fill(terms.reference) },
      now: Float32Array.from(now),
    });
    for (let i = 0; i < 6; i++) {
      const moved = (h: number) => objective(now.map((x, j) => j === i ? x + h : x), terms);
      assertAlmostEquals(
        weights[i],
        (moved(1e-5) - moved(-1e-5)) / 2e-5,
        1e-5,
        `target ${i} of ${JSON.stringify(terms)}`,
      );
    }
  }
});
