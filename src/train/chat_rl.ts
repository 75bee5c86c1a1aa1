/**
 * Reinforcement learning on any task that rewards answers (nanochat/chat_rl.py): for each prompt several answers, each weighed by its
 * reward minus the mean of all; no reference model, no ratio, no clipping unless `--kl` and `--clip` ask for them.
 *
 * A step is one rollout of `--examples-per-step` prompts and one update (`--updates-per-rollout`: several). It is evaluated by pass@k.
 */
import { MAX_CONVERSATION_TOKENS } from "../data/conversation.ts";
import { pythonTupleHash31 } from "../data/random.ts";
import { Tokenizer } from "../data/tokenizer.ts";
import { GptDecodeModel } from "../engine/decode.ts";
import { Engine } from "../engine/engine.ts";
import { loadWeights } from "../engine/load.ts";
import { promptOf } from "../eval/answers.ts";
import { type EvalShape, LossEvaluator } from "../eval/loss_eval.ts";
import { CheckpointError, type JsonObject } from "../model/checkpoint.ts";
import { GPT } from "../model/gpt.ts";
import type { ChosenModel } from "../model/models.ts";
import { linearLrMultiplier } from "../optim/schedule.ts";
import { LENGTH_MULTIPLE, roundUp } from "./chat_batches.ts";
import { type ChatStageContext, configOf, openChatSession, startChatStage } from "./chat_stage.ts";
import { type PolicyPass, policyPasses, policyWeights } from "./policy.ts";
import type { ChatRlFlags } from "./rl_flags.ts";
import { advantagesOf, evaluatePassAtK, type PassAtK, rewardOf, rollOut, type RolloutPrompt } from "./rollouts.ts";
import { count, type HashedBatch, type TrainResult } from "./session.ts";

/** What reinforcement leaves behind. */
export interface ChatRlResult extends TrainResult {
  /** Last evaluation; null where none was made. */
  readonly evaluation: PassAtK | null;
}

/** A position in the prompts. */
interface PromptState {
  /** Row that is read next. */
  readonly cursor: number;
  /** Rows that were passed over, as their prompt leaves no room for an answer. */
  readonly skipped: number;
}

/** A pass with the log-probabilities that it keeps over the updates of its rollout. */
interface Pass extends PolicyPass {
  readonly old?: Float32Array;
  readonly reference?: Float32Array;
}

/** Momentum of Muon in this stage. */
const MOMENTUM = 0.95;

/**
 * Reinforces a model.
 *
 * @throws {TypeError} for a task without a reward, {CheckpointError} where the folder holds another run or the source is damaged,
 * {RangeError} for impossible sizes, a reward that is not finite or prompts that all leave no room, {Error} for a loss that is not finite.
 */
export async function chatRl(given: ChatRlFlags, cx: ChatStageContext): Promise<ChatRlResult> {
  const { source, train, log } = cx;
  if (!train.reward || !cx.validation.reward) {
    throw new TypeError("Cannot reinforce: the task rewards no answers, expected one with a reward");
  }
  using start = startChatStage(given, { stage: "rl", cx });
  const { flags } = start;
  const { examplesPerStep, numSamples, updatesPerRollout: M, kl, clip } = flags;
  const rollouts = planRollouts(flags, train.length);
  const B = Math.min(flags.deviceBatchSize, numSamples);
  const config = configOf(source);
  const T = roundUp(Math.min(config.sequenceLen, MAX_CONVERSATION_TOKENS + 1 + flags.maxNewTokens), LENGTH_MULTIPLE);
  using tokenizer = await Tokenizer.load(source.folder);
  await using session = await openChatSession(start, {
    cx,
    config,
    B,
    T,
    gradAccum: Math.ceil(numSamples / B) * examplesPerStep,
  });
  log.info(
    `Data: ${count(train.length)} prompts, ${examplesPerStep} a step with ${numSamples} answers each, ${
      count(rollouts)
    } steps`,
  );
  if (clip > 0 && M === 1) {
    log.warn("--clip has no effect: the first update on an answer has ratio 1; see --updates-per-rollout");
  }

  const { trainer: { model, arena } } = session;
  const rolloutModel = { engine: new Engine(new GptDecodeModel(model), tokenizer), tokenizer };
  const pad = tokenizer.encodeSpecial("<|assistant_end|>");
  const sampling = { temperature: flags.temperature, topK: flags.topK, maxNewTokens: flags.maxNewTokens };
  const shape = { B, T, arena };
  using evaluator = new LossEvaluator(model, shape);
  using reference = kl > 0 ? await Reference.load(model, { source, step: flags.step, shape }) : null;
  let position: PromptState = (session.resumedLoader ?? { cursor: 0, skipped: 0 }) as unknown as PromptState;
  let evaluation: PassAtK | null = null;
  const steps = rollouts * M;
  for (const first = session.step;;) {
    const rollout = session.step / M;
    const isLast = rollout >= rollouts;
    const due = (every: number) => every > 0 && (isLast || rollout % every === 0);
    const isResumed = session.step === first && start.resumed !== null;
    if ((isLast || (rollout > 0 && due(flags.saveEvery)) || session.stopping) && !isResumed) {
      await session.save(position as unknown as JsonObject);
    }
    if (due(flags.evalEvery) && !session.stopping) await evaluate();
    if (isLast || session.stopping) return { ...session.finish(steps), evaluation };
    const started = performance.now();
    const made = await rollOutStep(rollout);
    if (made === null) continue; // stopped: the prompts are answered again after a resume, to the same tokens
    let spentMs = performance.now() - started;
    for (let i = 0; i < M; i++) {
      const passes = made.passes.values();
      await session.update(() => weigh(passes.next().value!), {
        steps,
        schedule: { lrMultiplier: linearLrMultiplier(rollout, rollouts), momentum: MOMENTUM },
        values: made.values,
        spentMs,
      });
      spentMs = 0;
    }
    position = made.position;
    const { reward, sequence_length, useful } = made.values;
    log.info(
      `Step ${rollout}: reward ${reward.toFixed(4)}, ${sequence_length.toFixed(0)} tokens a sequence, ` +
        `${(100 * useful).toFixed(0)} % of the prompts with answers that differ in reward`,
    );
  }

  /** Answers the prompts of a step; null where the user stopped it. */
  async function rollOutStep(rollout: number) {
    const passes: Pass[] = [];
    let { cursor, skipped } = position;
    let rewardSum = 0, lengthSum = 0, useful = 0;
    const prompts = Array.from({ length: examplesPerStep }, nextPrompt);
    const answered = rollOut(rolloutModel, prompts, {
      samples: numSamples,
      group: B,
      sampling,
      seedOf: (index, group) => pythonTupleHash31([rollout, index, group]),
      signal: cx.stop,
    });
    for await (const made of answered) {
      const conversation = train.conversation(made.index);
      const rewards = made.answers.map((answer) => rewardOf(train, conversation, answer));
      const advantages = advantagesOf(rewards);
      rewardSum += rewards.reduce((sum, reward) => sum + reward, 0);
      lengthSum += made.sequences.reduce((sum, ids) => sum + ids.length, 0);
      if (advantages.some((advantage) => advantage !== 0)) useful++;
      for (const pass of policyPasses(made, { advantages, B, pad })) passes.push(await remember(pass));
    }
    if (session.stopping) return null;
    if (skipped > position.skipped) {
      log.warn(
        `${
          count(skipped)
        } prompts were passed over, as they leave no room in the context of ${config.sequenceLen} tokens`,
      );
    }
    const samples = examplesPerStep * numSamples;
    const values = {
      reward: rewardSum / samples,
      sequence_length: lengthSum / samples,
      useful: useful / examplesPerStep,
    };
    return { passes, values, position: { cursor, skipped } };

    function nextPrompt(): RolloutPrompt {
      for (let tried = 0; tried < train.length; tried++) {
        const index = cursor;
        cursor = (cursor + 1) % train.length;
        const prompt = promptOf(train.conversation(index), rolloutModel);
        if (prompt !== null) return { index, prompt };
        skipped++;
      }
      throw new RangeError(
        `Cannot reinforce: none of ${train.length} prompts leaves room in the context of ${config.sequenceLen} tokens, expected at least one`,
      );
    }
  }

  /** Keeps the log-probabilities that the updates of a rollout compare with. */
  async function remember(pass: PolicyPass): Promise<Pass> {
    return {
      ...pass,
      old: M > 1 ? await logProbabilities(evaluator, pass) : undefined,
      reference: reference ? await logProbabilities(reference.evaluator, pass) : undefined,
    };
  }

  /** Gives a pass its weights; null where all are 0, as for answers of equal reward. */
  async function weigh(pass: Pass): Promise<HashedBatch | null> {
    let weights = policyWeights(pass);
    if (pass.old || pass.reference) {
      const now = await logProbabilities(evaluator, pass);
      weights = policyWeights(pass, { now, old: pass.old ?? now, reference: pass.reference, clip, kl });
    }
    return weights.some((weight) => weight !== 0) ? { ...pass, weights } : null;
  }

  async function evaluate(): Promise<void> {
    const found = await evaluatePassAtK(rolloutModel, {
      task: cx.validation,
      examples: flags.evalExamples,
      samples: flags.deviceBatchSize,
      sampling,
      signal: cx.stop,
    });
    if (found === null) return;
    evaluation = found;
    const reward = found.rewards.reduce((sum, x) => sum + x, 0) / found.rewards.length;
    const passes = found.passAt.map((share, i) => [`pass@${i + 1}`, share] as const);
    session.record({ steps, values: { reward, ...Object.fromEntries(passes) } });
    const shown = [passes[0], passes.at(-1)!].map(([name, share]) => `${name} ${share.toFixed(4)}`).join(", ");
    log.info(
      `Step ${session.step / M}: ${count(found.rewards.length)} held-out prompts, reward ${
        reward.toFixed(4)
      }, ${shown}`,
    );
    if (found.tooLong > 0) {
      log.warn(`${count(found.tooLong)} held-out prompts count as wrong, as they leave no room in the context`);
    }
  }
}

/** The model that a run started from, frozen: what `--kl` measures the distance to. */
class Reference implements Disposable {
  /** Losses under the frozen model. */
  readonly evaluator: LossEvaluator;
  readonly #model: GPT;

  private constructor(model: GPT, evaluator: LossEvaluator) {
    this.#model = model;
    this.evaluator = evaluator;
  }

  /** Loads it beside the model in training. @throws {CheckpointError} where the checkpoint is damaged, or not the one of the start. */
  static async load(
    trained: GPT,
    { source, step, shape }: { source: ChosenModel; step: number; shape: EvalShape },
  ): Promise<Reference> {
    if (source.step !== step || source.source === "rl") {
      throw new CheckpointError(
        "mismatch",
        `Cannot resume with --kl: ${source.name} is at step ${source.step}, expected step ${step}, which the run started from; ` +
          `give --step=${step}`,
      );
    }
    const model = new GPT(trained.device, trained.config, { dtype: trained.dtype, training: false });
    try {
      await loadWeights(model, source);
      return new Reference(model, new LossEvaluator(model, shape));
    } catch (error) {
      model[Symbol.dispose]();
      throw error;
    }
  }

  /** Frees the model. */
  [Symbol.dispose](): void {
    this.evaluator[Symbol.dispose]();
    this.#model[Symbol.dispose]();
  }
}

/** Computes the log-probability of each target of a pass, 0 where ignored. */
async function logProbabilities(evaluator: LossEvaluator, pass: PolicyPass): Promise<Float32Array> {
  return (await evaluator.losses(pass)).map((loss) => -loss);
}

/** Counts the steps of a run. @throws {RangeError} where there is none. */
function planRollouts(flags: ChatRlFlags, rows: number): number {
  const { numIterations, examplesPerStep, numEpochs } = flags;
  const rollouts = numIterations > 0 ? numIterations : Math.floor(rows / examplesPerStep) * numEpochs;
  if (rows < 1 || rollouts < 1) {
    throw new RangeError(
      `Cannot reinforce: ${rows} prompts and ${examplesPerStep} a step give ${rollouts} steps, expected at least 1; ` +
        "lower --examples-per-step or give --num-iterations",
    );
  }
  return rollouts;
}
