/**
 * Bits per byte: the loss in bits, divided by the bytes of the text that the counted targets stand for, so that tokenizers with
 * different vocabularies can be compared (nanochat/loss_eval.py).
 */
import { GPT } from "../model/gpt.ts";
import { Arena } from "../tensor/arena.ts";
import type { Device } from "../tensor/device.ts";
import { PlanDevice } from "../tensor/plan.ts";
import { Tape } from "../tensor/tape.ts";

/** Token ids, (B, t) each with t <= T; a target of -1 is not counted. */
export interface EvalBatch {
  /** Ids that the model reads. */
  readonly inputs: Int32Array<ArrayBuffer>;
  /** Id that each position is to predict; -1 = not counted. */
  readonly targets: Int32Array<ArrayBuffer>;
}

/** Sums over a text. */
export interface BitsPerByte {
  /** Loss of the counted targets. */
  readonly nats: number;
  /** Bytes that the counted targets stand for. */
  readonly bytes: number;
  /** nats / (ln 2 * bytes); infinity where no byte was counted. */
  readonly bpb: number;
}

/** Shape of evaluation batches. */
export interface EvalShape {
  /** Rows of a batch. */
  readonly B: number;
  /** Tokens of a row at most. */
  readonly T: number;
  /** Memory to use; default: an arena of its own. The trainer's is large enough, and idle between steps. */
  readonly arena?: Arena;
}

/** Evaluates losses of a model, batch by batch, with memory of its own. */
export class LossEvaluator implements Disposable {
  readonly #model: GPT;
  readonly #device: Device;
  readonly #shape: EvalShape;
  readonly #ownArena: Arena | null;
  readonly #tape: Tape;

  /** Allocates memory for batches of one shape; the model stays the caller's. */
  constructor(model: GPT, shape: EvalShape) {
    this.#model = model;
    this.#device = model.device;
    this.#shape = shape;
    this.#ownArena = shape.arena ? null : new Arena(model.device, planEvaluation(model, shape));
    this.#tape = new Tape(model.device, (shape.arena ?? this.#ownArena)!, { training: false });
  }

  /** Computes the loss of every target: (B, t) in nats, 0 where ignored. */
  async losses({ inputs, targets }: EvalBatch): Promise<Float32Array> {
    const shape = [this.#shape.B, inputs.length / this.#shape.B];
    using ids = this.#device.from(inputs, shape, "i32");
    using goal = this.#device.from(targets, shape, "i32");
    const losses = await this.#device.readFloats(this.#model.loss(this.#tape, ids, { targets: goal }));
    this.#tape.clear();
    return losses;
  }

  /** Sums nats and bytes over batches. `tokenBytes`: bytes of each token, 0 for special tokens, which are not counted. */
  async bitsPerByte(
    batches: AsyncIterable<EvalBatch> | Iterable<EvalBatch>,
    tokenBytes: Int32Array,
  ): Promise<BitsPerByte> {
    let nats = 0, bytes = 0;
    for await (const batch of batches) {
      const losses = await this.losses(batch);
      for (let i = 0; i < losses.length; i++) {
        const target = batch.targets[i];
        const size = target < 0 ? 0 : tokenBytes[target];
        if (size > 0) {
          nats += losses[i];
          bytes += size;
        }
      }
    }
    return { nats, bytes, bpb: bytes === 0 ? Infinity : nats / (Math.LN2 * bytes) };
  }

  /** Frees the memory. */
  [Symbol.dispose](): void {
    this.#ownArena?.[Symbol.dispose]();
  }
}

function planEvaluation(model: GPT, { B, T }: EvalShape): number {
  using device = new PlanDevice();
  using twin = new GPT(device, model.config, { dtype: model.dtype, training: false });
  using arena = new Arena(device, 2 ** 46);
  using ids = device.tensor([B, T], "i32");
  twin.loss(new Tape(device, arena, { training: false }), ids, { targets: ids });
  return arena.peak;
}
