/** Files that the real PyTorch and the real transformers write are read, and give the values and logits that those programs have. */
import { assert, assertEquals } from "@std/assert";
import { join } from "@std/path";
import { askPeer, peerTest } from "../../dev/peers.ts";
import { temporaryFolder } from "../../dev/testing.ts";
import { SPECIAL_TOKENS, SPLIT_PATTERN } from "../data/tokenizer.ts";
import { GPT } from "../model/gpt.ts";
import { Arena } from "../tensor/arena.ts";
import { Device } from "../tensor/device.ts";
import { f32FromBf16 } from "../tensor/dtype.ts";
import { Tape } from "../tensor/tape.ts";
import { openHuggingFace } from "./huggingface.ts";
import { isTensor, TorchFile } from "./torch_file.ts";

const TOLERANCE = 1e-4; // absolute, on logits of -15 to 15; observed: 2.1e-5, PyTorch 2.15.0, transformers 5.23.0

interface Written {
  readonly tensors: Record<string, number[]>;
  readonly moments: Record<string, number[]>;
  readonly ids: number[];
  readonly logits: number[];
}

/** Reads the tensors of a dict as numbers. */
function valuesOf(file: TorchFile, dict: unknown): Record<string, number[]> {
  assert(dict instanceof Map);
  const rows = [...dict].filter(([_, tensor]) => isTensor(tensor)).map(([name, tensor]) => {
    const { buffer } = file.read(tensor);
    const values = tensor.dtype === "bf16" ? f32FromBf16(new Uint16Array(buffer)) : new Float32Array(buffer);
    return [name, [...values]];
  });
  return Object.fromEntries(rows);
}

peerTest("full", "TorchFile and openHuggingFace() read what PyTorch and transformers write", async () => {
  using folder = temporaryFolder();
  const { tensors, moments, ids, logits } = await askPeer<Written>("torch_save.py", { folder: folder.path });
  using device = Device.open("cpu", { threads: 2 });
  using model = new TorchFile(device, join(folder.path, "model.pt"));
  model.verify();
  assertEquals(valuesOf(model, model.root), tensors);
  using optimizer = new TorchFile(device, join(folder.path, "optimizer.pt"));
  optimizer.verify();
  const [state] = optimizer.root as Map<string, Map<number, unknown>>[];
  assertEquals(valuesOf(optimizer, state.get("state")!.get(0)), moments);

  const tokenizer = {
    pattern: SPLIT_PATTERN,
    tokens: Array.from({ length: 256 }, (_, byte) => Uint8Array.of(byte)),
    specials: Object.fromEntries(SPECIAL_TOKENS.map((name, i) => [name, 256 + i])),
  };
  using foreign = await openHuggingFace(device, { folder: join(folder.path, "hf"), tokenizer });
  assert(foreign.files.filter((file) => file.endsWith(".safetensors")).length > 1, foreign.files.join(" "));
  // transformers does not round the tables of the rotary positions.
  using gpt = new GPT(device, foreign.config, { dtype: "f32", training: false, roundRotary: false });
  for (const { name, pointer, bytes } of foreign.model) {
    device.nc.copy(device.ctx, gpt.parameters.get(name).master.pointer, pointer, BigInt(bytes));
  }
  using arena = new Arena(device, 16 << 20);
  const tape = new Tape(device, arena, { training: false });
  const found = await device.readFloats(
    gpt.logits(tape, gpt.forward(tape, device.from(Int32Array.from(ids), [1, 16], "i32"))),
  );
  const error = Math.max(...found.map((x, i) => Math.abs(x - logits[i])));
  console.log(`logits differ by ${error.toExponential(1)} at most`);
  assert(
    found.length === logits.length && error < TOLERANCE,
    `${error} over ${found.length} of ${logits.length} logits`,
  );
});
