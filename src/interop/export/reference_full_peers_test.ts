/** What `export pt` writes in PyTorch and tiktoken: tensors, optimizer groups and states as the reference numbers them, ids. */
import { assert, assertEquals } from "@std/assert";
import { join } from "@std/path";
import { askPeer, peerTest } from "../../../dev/peers.ts";
import { ROOT } from "../../../dev/setup.ts";
import { bf16FromF32, f32FromBf16 } from "../../tensor/dtype.ts";
import { STEP, withGoldenModel } from "./export_testing.ts";
import { goldenOptimizer, goldenState } from "./reference_testing.ts";

interface Told {
  readonly dtype: string;
  readonly shape: number[];
  readonly values: number[];
}

interface Judged {
  readonly class: string;
  readonly model: Record<string, Told>;
  readonly mapped: boolean;
  readonly groups: Record<string, unknown>[][];
  readonly states: Record<string, Record<string, Told>>[];
  readonly updates: number[];
  readonly sizes: Record<string, number>;
  readonly ids: number[][];
  readonly tokenBytes: Told;
}

const WTE = "transformer.wte.weight";
/** Layers of the golden model; its matrices in the reference's order of groups (index.json of the recorded checkpoint). */
const LAYERS = [0, 1, 2, 3];
const GROUPS = [["attn.c_q", "attn.c_proj"], ["attn.c_k", "attn.c_v"], ["mlp.c_fc", "mlp.c_proj"]];

for (const dtype of ["fp32", "bf16"]) {
  peerTest(
    "full",
    `PyTorch loads what export pt --dtype=${dtype} writes`,
    () =>
      withGoldenModel(async ({ weights, tokenizer, exported }) => {
        const folder = await exported("pt", `--dtype=${dtype}`);
        const golden = join(ROOT, "dev", "golden", "tokenizer", "encodings_tok500.json");
        const { encodings } = JSON.parse(Deno.readTextFileSync(golden));
        const texts = encodings.map(({ text }: { text: string }) => text);
        const judged = await askPeer<Judged>("torch_folder.py", { folder, tag: "tiny", step: STEP, texts });
        const check = (told: Told, { name, values }: { name: string; values: Float32Array }) => {
          const half = dtype === "bf16" && name === WTE;
          assertEquals(told.dtype, half ? "torch.bfloat16" : "torch.float32", name);
          assertEquals(told.values, Array.from(half ? f32FromBf16(bf16FromF32(values)) : values), name);
        };
        assertEquals([judged.class, judged.mapped], ["OrderedDict", true]);
        assertEquals([Object.keys(judged.model)[0], Object.keys(judged.model).at(-1)], [WTE, "lm_head.weight"]);
        assertEquals(Object.keys(judged.model).sort(), [...weights.keys()].sort());
        for (const [name, values] of weights) check(judged.model[name], { name, values });
        assertEquals(judged.model[WTE].shape, [512, 64]);
        const [adamw, muon] = judged.states;
        for (const [i, name] of ["lm_head.weight", WTE].entries()) {
          assertEquals(adamw[i].step, { dtype: "torch.float32", shape: [], values: [STEP] });
          for (const kind of ["exp_avg", "exp_avg_sq"]) {
            check(adamw[i][kind], { name, values: goldenState(kind, name) });
          }
        }
        const order = GROUPS.flatMap((parts) =>
          LAYERS.flatMap((i) => parts.map((p) => `transformer.h.${i}.${p}.weight`))
        );
        assertEquals(Object.keys(muon).length, order.length);
        for (const [i, name] of order.entries()) {
          check(muon[i].momentum_buffer, { name, values: goldenState("momentum_buffer", name) });
        }
        assertEquals(judged.groups.map((groups) => groups.map(({ params }) => params)), [
          [[0], [1]],
          [0, 1, 2].map((group) => Array.from({ length: 8 }, (_, i) => 8 * group + i)),
        ]);
        assertEquals(judged.updates, [STEP + 1, STEP + 1]);
        assert(Math.abs((judged.groups[0][1].initial_lr as number) - 0.692820323027551) < 1e-12);
        assertEquals(judged.sizes, {
          sequence_len: 64,
          vocab_size: 500,
          n_layer: 4,
          n_head: 4,
          n_kv_head: 2,
          n_embd: 64,
        });
        assertEquals(judged.ids, encodings.map(({ ids }: { ids: number[] }) => ids));
        assertEquals(judged.tokenBytes.dtype, "torch.int32");
        assertEquals(judged.tokenBytes.values, Array.from(tokenizer.tokenBytes("reference")));
      }, { optimizer: goldenOptimizer }),
  );
}
