/**
 * Mid-training: a base model goes on with conversations, packed like pretraining text (nanochat/mid_train.py). One pass over the mixture,
 * or as many updates as are asked for.
 *
 * The batch after the next is fetched before each update: the pass ends, and the learning rate follows, as in the reference, when the
 * end of the mixture has been read, not when it has been trained on.
 */
import { Tokenizer } from "../data/tokenizer.ts";
import { LossEvaluator } from "../eval/loss_eval.ts";
import type { JsonObject } from "../model/checkpoint.ts";
import { midLrMultiplier, muonMomentum } from "../optim/schedule.ts";
import { type ChatStageContext, configOf, dryFolders, openChatSession, startChatStage } from "./chat_stage.ts";
import { ConversationStream, type StreamBatch, type StreamState } from "./conversation_stream.ts";
import { splitStep } from "./horizon.ts";
import type { MidTrainFlags } from "./mid_flags.ts";
import { count, type TrainResult } from "./session.ts";

/**
 * Mid-trains a model. The optimizers start anew; what the loss masks of fine-tuning leave out is learnt here too.
 *
 * @throws {CheckpointError} where the folder holds another run or the base model is damaged, {RangeError} for impossible sizes or a
 * mixture that fills no update, {SyntaxError} naming a row that is no conversation, {Error} for a loss that is not finite.
 */
export async function midTrain(given: MidTrainFlags, cx: ChatStageContext): Promise<TrainResult> {
  if (!given.dryRun) return await midTrainIn(given, cx);
  using dry = dryFolders(cx.folders);
  return await midTrainIn(given, { ...cx, folders: dry.folders });
}

async function midTrainIn(given: MidTrainFlags, cx: ChatStageContext): Promise<TrainResult> {
  const { source, log } = cx;
  using start = startChatStage(given, { stage: "mid", cx });
  const { flags } = start;
  const { deviceBatchSize: B, maxSeqLen: T, numIterations } = flags;
  const gradAccum = splitStep(flags);
  using tokenizer = await Tokenizer.load(source.folder);
  await using session = await openChatSession(start, {
    cx,
    config: { ...configOf(source), sequenceLen: T },
    B,
    T,
    gradAccum,
  });
  announce();

  const { trainer: { model, arena } } = session;
  let position = (session.resumedLoader ?? null) as unknown as StreamState | null; // behind the last batch that was trained on
  const stream = new ConversationStream({ task: cx.train, tokenizer, B, T, state: position ?? undefined });
  const ahead: StreamBatch[] = [stream.next()];
  let progress = ahead[0].progress;
  using evaluator = new LossEvaluator(model, { B, T, arena });
  for (const first = session.step;;) {
    const { step } = session;
    const isLast = numIterations > 0 ? step >= numIterations : ahead[0].state.passes > 0;
    if (isLast && step === 0) throw tooSmall();
    const steps = horizon(step, isLast);
    const isResumed = step === first && start.resumed !== null;
    const stopping = session.stopping && !isLast;
    const isCadence = step > 0 && flags.saveEvery > 0 && step % flags.saveEvery === 0;
    if ((isLast || isCadence || stopping) && !isResumed && !flags.dryRun) {
      await session.save(position as unknown as JsonObject);
    }
    if (flags.evalEvery > 0 && (isLast || step % flags.evalEvery === 0) && !stopping) await evaluate(steps);
    if (isLast || stopping) return session.finish(stopping ? steps : step);
    while (ahead.length <= gradAccum) ahead.push(stream.next());
    progress = Math.max(progress, ...ahead.map((batch) => batch.progress));
    await session.update(nextBatch, {
      steps,
      schedule: {
        lrMultiplier: midLrMultiplier(numIterations > 0 ? step / numIterations : progress),
        momentum: muonMomentum(step),
      },
    });
  }

  function nextBatch(): StreamBatch {
    const batch = ahead.shift()!;
    position = batch.state;
    return batch;
  }

  /** Updates in all: as asked for, else as far as the share that was read tells. */
  function horizon(step: number, isLast: boolean): number {
    if (numIterations > 0) return numIterations;
    return isLast ? step : Math.max(step + 1, Math.round((step + 1) / Math.max(progress, 1e-6)));
  }

  async function evaluate(steps: number): Promise<void> {
    const batches = Math.max(1, Math.floor(flags.evalTokens / (B * T)));
    const held = new ConversationStream({ task: cx.validation, tokenizer, B, T });
    const { bpb } = await evaluator.bitsPerByte(take(held, batches), tokenizer.tokenBytes("bytes"));
    session.record({ steps, bpb });
    await session.amend();
    log.info(`Step ${session.step}: validation ${bpb.toFixed(4)} bits per byte`);
  }

  function announce(): void {
    log.info(
      `Data: ${count(cx.train.length)} conversations, ${
        count(flags.totalBatchSize)
      } tokens a step (${gradAccum} micro-batches), ` +
        (numIterations > 0 ? `${count(numIterations)} steps` : "one pass"),
    );
    const before = source.meta.flags.device_batch_size;
    if (typeof before === "number" && B > before) {
      log.warn(
        `--device-batch-size is ${B}, and ${source.source}/${source.tag} was trained with ${before}: memory may not suffice`,
      );
    }
  }

  function tooSmall(): RangeError {
    return new RangeError(
      `Cannot mid-train: ${cx.train.length} conversations fill no step of ${flags.totalBatchSize} tokens, expected more of them ` +
        "or --num-iterations, which repeats them",
    );
  }
}

function* take(stream: ConversationStream, batches: number): Generator<StreamBatch> {
  for (let i = 0; i < batches; i++) yield stream.next();
}
