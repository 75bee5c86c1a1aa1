/** The logits behind prompts: takes token sequences, gives what a model says about the next token of each, several in a forward pass. */
import { GPT } from "../model/gpt.ts";
import { Arena } from "../tensor/arena.ts";
import { PlanDevice } from "../tensor/plan.ts";
import { Tape } from "../tensor/tape.ts";

const TIME_UNIT = 64;

/** Runs prompts through one model, which stays the caller's. Memory grows to what the largest batch needs. */
export class PromptLogits implements Disposable {
  readonly #model: GPT;
  #arena: Arena | null = null;
  #tape: Tape | null = null;
  #rows = 0;

  /** Allocates nothing yet. */
  constructor(model: GPT) {
    this.#model = model;
  }

  /**
   * Computes the logits (V) of the token behind each prompt. Prompts are padded on the right, which no earlier position sees.
   *
   * @throws {RangeError} where a prompt has more tokens than the model has positions.
   */
  async read(prompts: readonly (readonly number[])[]): Promise<Float32Array[]> {
    const { device, rotary, config: { vocabSize: V } } = this.#model;
    const longest = Math.max(...prompts.map((prompt) => prompt.length));
    const positions = rotary.cos.shape[0];
    if (longest > positions) {
      throw new RangeError(`Cannot run a prompt of ${longest} tokens: the model has ${positions} positions`);
    }
    const B = prompts.length;
    const T = Math.min(positions, Math.ceil(longest / TIME_UNIT) * TIME_UNIT);
    const tape = this.#tapeFor(B, T);
    const padded = new Int32Array(B * T);
    prompts.forEach((prompt, b) => padded.set(prompt, b * T));
    using ids = device.from(padded, [B, T], "i32");
    using index = device.from(Int32Array.from(prompts, (prompt, b) => b * T + prompt.length - 1), [B], "i32");
    const logits = await device.readFloats(this.#model.logitsAt(tape, this.#model.forward(tape, ids), { index }));
    tape.clear();
    return prompts.map((_, b) => logits.subarray(b * V, (b + 1) * V));
  }

  #tapeFor(B: number, T: number): Tape {
    if (this.#tape && B * T <= this.#rows) return this.#tape;
    this.#arena?.[Symbol.dispose]();
    this.#rows = B * T;
    this.#arena = new Arena(this.#model.device, planPrompts(this.#model, { B, T }));
    return this.#tape = new Tape(this.#model.device, this.#arena, { training: false });
  }

  /** Frees the memory. */
  [Symbol.dispose](): void {
    this.#arena?.[Symbol.dispose]();
  }
}

/** Returns the bytes of a pass, by running it with shapes only. */
function planPrompts(model: GPT, { B, T }: { B: number; T: number }): number {
  using device = new PlanDevice();
  using twin = new GPT(device, model.config, { dtype: model.dtype, training: false });
  using arena = new Arena(device, 2 ** 46);
  using ids = device.tensor([B, T], "i32");
  using index = device.tensor([B], "i32");
  const tape = new Tape(device, arena, { training: false });
  twin.logitsAt(tape, twin.forward(tape, ids), { index });
  return arena.peak;
}
