/**
 * Supervised fine-tuning: a model learns what the assistant says, one conversation a row (nanochat/chat_sft.py).
 *
 * The loss is the mean over the active targets of each micro-batch, divided by their number: a micro-batch of short answers weighs as
 * much as one of long ones. Of N steps the last one only evaluates, as in the reference: N - 1 updates, saved as step N - 1.
 */
import { Tokenizer } from "../data/tokenizer.ts";
import { LossEvaluator } from "../eval/loss_eval.ts";
import type { JsonObject } from "../model/checkpoint.ts";
import type { GPT } from "../model/gpt.ts";
import { linearLrMultiplier } from "../optim/schedule.ts";
import { ChatBatches, type ChatBatchState, longestRow } from "./chat_batches.ts";
import { type ChatStageContext, configOf, openChatSession, startChatStage } from "./chat_stage.ts";
import { count, type TrainResult } from "./session.ts";
import type { ChatSftFlags } from "./sft_flags.ts";

/** Measures a model on tasks: accuracies by name. */
export type TaskMetrics = (
  model: GPT,
  options: { readonly tokenizer: Tokenizer; readonly B: number; readonly maxProblems: number },
) => Promise<Readonly<Record<string, number>>>;

/** What fine-tuning reads, beside the context of every chat stage. */
export interface ChatSftContext extends ChatStageContext {
  /** Evaluations on tasks; default: none. */
  readonly metrics?: TaskMetrics;
}

/** What fine-tuning leaves behind. */
export interface ChatSftResult extends TrainResult {
  /** Last mean loss of the validation batches, in nats; null where none was made. */
  readonly valLoss: number | null;
  /** Last accuracies by name. */
  readonly metrics: Readonly<Record<string, number>>;
}

/** Momentum of Muon in this stage. */
const MOMENTUM = 0.95;

/**
 * Fine-tunes a model.
 *
 * @throws {CheckpointError} where the folder holds another run or the source is damaged, {RangeError} for impossible sizes or
 * conversations without a target that fits, {SyntaxError} naming a row that is no conversation, {Error} for a loss that is not finite.
 */
export async function chatSft(given: ChatSftFlags, cx: ChatSftContext): Promise<ChatSftResult> {
  const { source, log } = cx;
  using start = startChatStage(given, { stage: "sft", cx });
  const { flags } = start;
  const B = flags.deviceBatchSize;
  const { steps, updates, gradAccum } = planSteps(flags, cx.train.length);
  const config = configOf(source);
  using tokenizer = await Tokenizer.load(source.folder);
  await using session = await openChatSession(start, {
    cx,
    config,
    B,
    T: longestRow(config.sequenceLen),
    gradAccum,
  });
  log.info(
    `Data: ${
      count(cx.train.length)
    } conversations, ${flags.targetExamplesPerStep} a step (${gradAccum} micro-batches), ` +
      `${count(updates)} updates`,
  );

  const { trainer: { model, arena } } = session;
  let position = (session.resumedLoader ?? null) as unknown as ChatBatchState | null; // behind the last batch that was trained on
  const batches = new ChatBatches({
    task: cx.train,
    tokenizer,
    B,
    T: config.sequenceLen,
    state: position ?? undefined,
  });
  using evaluator = new LossEvaluator(model, { B, T: longestRow(config.sequenceLen), arena });
  let valLoss: number | null = null;
  let metrics: Readonly<Record<string, number>> = {};
  let values = { num_tokens: 0 }; // of the update at work
  let told = position ?? { cut: 0, dropped: 0 };
  for (const first = session.step;;) {
    const { step } = session;
    const isLast = step >= updates;
    const due = (every: number) => every > 0 && (isLast || step % every === 0);
    const isResumed = step === first && start.resumed !== null;
    const stopping = session.stopping && !isLast;
    const isCadence = step > 0 && flags.saveEvery > 0 && step % flags.saveEvery === 0;
    if ((isLast || isCadence || stopping) && !isResumed) await session.save(position as unknown as JsonObject);
    if (isLast || stopping) tellCuts(isLast);
    if (stopping) return { ...session.finish(updates), valLoss, metrics };
    await evaluate({ loss: due(flags.evalEvery), tasks: due(flags.evalMetricsEvery) && step > 0 });
    if (isLast) return { ...session.finish(updates), valLoss, metrics };
    values = { num_tokens: 0 };
    await session.update(nextBatch, {
      steps: updates,
      schedule: { lrMultiplier: linearLrMultiplier(step, steps), momentum: MOMENTUM },
      values,
    });
    if (step === first) tellCuts(false);
  }

  function nextBatch() {
    const batch = batches.next();
    position = batch.state;
    values.num_tokens += batch.tokens;
    return batch;
  }

  async function evaluate(what: { loss: boolean; tasks: boolean }): Promise<void> {
    const values: Record<string, number> = {};
    if (what.loss) {
      valLoss = await validate(
        evaluator,
        new ChatBatches({ task: cx.validation, tokenizer, B, T: config.sequenceLen }),
      );
      values.val_loss = valLoss;
    }
    if (what.tasks && cx.metrics) {
      metrics = await cx.metrics(model, { tokenizer, B: 2 * B, maxProblems: flags.evalMetricsMaxProblems });
      Object.assign(values, metrics);
    }
    if (Object.keys(values).length === 0) return;
    session.record({ steps: updates, values });
    log.info(
      `Step ${session.step}: ${Object.entries(values).map(([name, x]) => `${name} ${x.toFixed(4)}`).join(", ")}`,
    );
  }

  async function validate(evaluator: LossEvaluator, held: ChatBatches): Promise<number> {
    let sum = 0;
    for (let i = 0; i < flags.evalSteps; i++) {
      const batch = held.next();
      const losses = await evaluator.losses(batch);
      sum += losses.reduce((total, loss) => total + loss, 0) / batch.tokens;
    }
    return sum / flags.evalSteps;
  }

  /** Warns of conversations that did not fit since the last warning. */
  function tellCuts(isEnd: boolean): void {
    const { cut, dropped } = position ?? told;
    if (cut === told.cut && dropped === told.dropped) return;
    told = { cut, dropped };
    const until = isEnd ? "in all" : `by step ${session.step}`;
    log.warn(
      `${count(cut)} conversations were cut to the ${count(config.sequenceLen)} tokens of the context and ${
        count(dropped)
      } left out, ` +
        `as nothing that the assistant says fits (${until}; a conversation counts each time it is read)`,
    );
  }
}

/** Splits the conversations into steps. @throws {RangeError} where a step does not split or there is none. */
function planSteps(
  flags: ChatSftFlags,
  rows: number,
): { readonly steps: number; readonly updates: number; readonly gradAccum: number } {
  const { targetExamplesPerStep, deviceBatchSize, numIterations, numEpochs } = flags;
  const gradAccum = targetExamplesPerStep / deviceBatchSize;
  if (!Number.isInteger(gradAccum) || gradAccum < 1) {
    throw new RangeError(
      `Cannot split a step: --target-examples-per-step is ${targetExamplesPerStep}, expected a multiple of --device-batch-size x ranks = ` +
        `${deviceBatchSize}`,
    );
  }
  const steps = numIterations > 0 ? numIterations : Math.floor(rows / targetExamplesPerStep) * numEpochs;
  if (steps < 2) {
    throw new RangeError(
      `Cannot fine-tune: ${rows} conversations and ${targetExamplesPerStep} a step give ${steps} steps, expected at least 2, ` +
        "as the last one only evaluates; lower --target-examples-per-step or give --num-iterations",
    );
  }
  return { steps, updates: steps - 1, gradAccum };
}
