/**
 * A model ready to generate: device, weights, tokenizer and engine from one checkpoint folder, chosen as `chat`, `serve` and `eval` do.
 */
import { Tokenizer } from "../data/tokenizer.ts";
import { chooseModel, type ChosenModel, type ModelChoice } from "../model/models.ts";
import { checkTokenizer, loadTensors, MappedCheckpoint, type NamedTensor } from "../model/checkpoint.ts";
import { GPT, type GPTConfig, type Quantization } from "../model/gpt.ts";
import { chooseComputeType, Device } from "../tensor/device.ts";
import { GptDecodeModel } from "./decode.ts";
import { Engine } from "./engine.ts";

/** Where and how a model runs. */
export interface LoadOptions {
  /** "" = a GPU where there is one. */
  readonly deviceType?: "cpu" | "cuda" | "";
  /** Which of several GPUs; 0. */
  readonly index?: number;
  /** CPU threads; 0 = physical cores. */
  readonly threads?: number;
  /** "fp32", "bf16" or "" for what suits the device. */
  readonly dtype?: string;
  /** What products read; "none". */
  readonly quantize?: Quantization;
}

/** An opened model. */
export class LoadedModel implements Disposable {
  /** Checkpoint that was taken, and why. */
  readonly chosen: ChosenModel;
  /** Device that holds the weights; freed with the model. */
  readonly device: Device;
  /** Weights, packed for inference: no gradients. */
  readonly model: GPT;
  /** Tokenizer that the model was trained with. */
  readonly tokenizer: Tokenizer;
  /** Generation with this model and tokenizer. */
  readonly engine: Engine;
  /** Settles when every block of the file was compared with its SHA-256; rejects where one differs. */
  readonly verified: Promise<void>;

  private constructor(parts: Omit<LoadedModel, "engine" | typeof Symbol.dispose>) {
    ({ chosen: this.chosen, device: this.device, model: this.model, tokenizer: this.tokenizer } = parts);
    this.verified = parts.verified;
    this.engine = new Engine(new GptDecodeModel(parts.model), parts.tokenizer);
  }

  /**
   * Opens the model that was asked for, else the furthest stage of what was trained last.
   *
   * @throws {CheckpointError} where there is none, or as `load`.
   */
  static async open(base: string, options: LoadOptions & ModelChoice = {}): Promise<LoadedModel> {
    return await LoadedModel.load(chooseModel(base, options), options);
  }

  /**
   * Opens a model that was chosen. Sizes are checked now, contents meanwhile.
   *
   * @throws {CheckpointError} where the checkpoint or its tokenizer is damaged.
   */
  static async load(chosen: ChosenModel, options: LoadOptions = {}): Promise<LoadedModel> {
    const { deviceType = "", index, threads = 0, dtype = "", quantize = "none" } = options;
    const { folder, step } = chosen;
    checkTokenizer(chosen, folder);
    const tokenizer = await Tokenizer.load(folder);
    const device = Device.choose(deviceType, { index, threads });
    try {
      using mapped = new MappedCheckpoint({ ...device.context, folder, step });
      const config = mapped.meta.config as unknown as GPTConfig;
      const model = new GPT(device, config, { dtype: chooseComputeType(device, dtype), training: false });
      loadTensors(device.context, {
        from: mapped.tensors,
        into: masterTensors(model),
        what: `the model of "${folder}"`,
      });
      model.parameters.refreshCopies();
      model.packForInference(quantize);
      await device.wait();
      const verified = mapped.verify({ threads: 1 });
      verified.catch(() => {}); // whoever awaits `verified` hears of it
      return new LoadedModel({ chosen, device, model, tokenizer, verified });
    } catch (error) {
      device[Symbol.dispose]();
      tokenizer[Symbol.dispose]();
      throw error;
    }
  }

  /** Frees everything. */
  [Symbol.dispose](): void {
    this.model[Symbol.dispose]();
    this.device[Symbol.dispose]();
    this.tokenizer[Symbol.dispose]();
  }
}

/**
 * Fills a model that is about to be trained from a checkpoint, after every block of the file was compared with its SHA-256.
 *
 * @throws {CheckpointError} where the checkpoint is damaged, or its shapes are not the model's.
 */
export async function loadWeights(model: GPT, { folder, step }: { folder: string; step: number }): Promise<void> {
  const { context } = model.device;
  using mapped = new MappedCheckpoint({ ...context, folder, step });
  await mapped.verify();
  loadTensors(context, { from: mapped.tensors, into: masterTensors(model), what: `the model of "${folder}"` });
  model.parameters.refreshCopies();
  await model.device.wait();
}

/** Lists a model's master weights as a checkpoint names them. */
export function masterTensors(model: GPT): NamedTensor[] {
  return model.parameters.all().map(({ name, master }) => {
    const { shape, pointer, bytes } = master;
    return { name, dtype: "f32", shape, pointer, bytes };
  });
}
