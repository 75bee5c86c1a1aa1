/** The tensors of a trainer beside the model's, as a checkpoint keeps them, and the way back from a checkpoint. */
import { join } from "@std/path";
import { masterTensors } from "../engine/load.ts";
import { loadTensors, MappedCheckpoint, type NamedTensor } from "../model/checkpoint.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { Trainer } from "./trainer.ts";

function named(name: string, { dtype, shape, pointer, bytes }: Tensor): NamedTensor {
  return { name, dtype: dtype as NamedTensor["dtype"], shape, pointer, bytes };
}

/** Lists a trainer's optimizer state for a checkpoint. */
export function stateTensors(trainer: Trainer): NamedTensor[] {
  return trainer.optimizers.state().map(({ name, tensor }) => named(name, tensor));
}

/**
 * Loads the weights and the optimizer state of a step, after its blocks have been checked.
 *
 * @throws {CheckpointError} for a damaged file, or where its tensors are not those of the trainer.
 */
export async function restoreTrainer(
  trainer: Trainer,
  { folder, step }: { folder: string; step: number },
): Promise<void> {
  const { context } = trainer.device;
  using mapped = new MappedCheckpoint({ ...context, folder, step, rank: 0 });
  await mapped.verify();
  const path = join(folder, `step ${step}`);
  loadTensors(context, { from: mapped.tensors, into: masterTensors(trainer.model), what: `the model of ${path}` });
  loadTensors(context, {
    from: mapped.optimizer,
    into: stateTensors(trainer),
    what: `the optimizer state of ${path}`,
  });
  trainer.model.parameters.refreshCopies();
  trainer.optimizers.steps = step;
  await trainer.device.wait();
}
