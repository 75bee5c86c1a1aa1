/** Optimizer states for the tests of `export pt`: the golden gradients times a number of their own. */
import { join } from "@std/path";
import { readSafetensors } from "../../../dev/parity/parity.ts";
import type { NamedTensor } from "../../model/checkpoint.ts";
import type { GPT } from "../../model/gpt.ts";
import { MODEL_FOLDER } from "./export_testing.ts";

/** Gives the states that optimizers keep of a parameter. */
export function kindsOf(name: string): readonly string[] {
  return name.startsWith("transformer.h.") ? ["momentum_buffer"] : ["exp_avg", "exp_avg_sq"];
}

/** Reads the golden values of a state. */
export function goldenState(kind: string, name: string): Float32Array<ArrayBuffer> {
  const gradients = readSafetensors(Deno.readFileSync(join(MODEL_FOLDER, "grads.safetensors")));
  const factor = kind === "exp_avg_sq" ? 0.25 : 0.5;
  return Float32Array.from(gradients.get(name)!.data, (value) => value * factor);
}

/** Makes all states of a model's optimizers. */
export function goldenOptimizer(model: GPT): NamedTensor[] {
  return model.parameters.all().flatMap(({ name, shape }) =>
    kindsOf(name).map((kind): NamedTensor => {
      const tensor = model.device.from(goldenState(kind, name), [...shape], "f32");
      return { name: `${kind}.${name}`, dtype: "f32", shape, pointer: tensor.pointer, bytes: tensor.bytes };
    })
  );
}
