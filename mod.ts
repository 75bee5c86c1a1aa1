/**
 * nanochat as a library: tokenizer, data, model, training step, generation, tasks and checkpoints.
 *
 * @example Complete a text
 * ```ts
 * import { Device, Engine, GPT, GptDecodeModel, trainTokenizer } from "@nanochat/nanochat";
 *
 * // A model fresh from its initial weights; LoadedModel.open(folder) gives a trained one with its tokenizer and engine.
 * using device = Device.open("cpu");
 * const { tokenizer } = await trainTokenizer({ texts: [["hello world, hello moon"]], vocabSize: 270 });
 * const config = { sequenceLen: 64, vocabSize: tokenizer.vocabSize, nLayer: 2, nHead: 2, nKvHead: 2, nEmbd: 64 };
 * using model = new GPT(device, config, { dtype: "f32", training: false });
 * model.initWeights(42);
 *
 * const engine = new Engine(new GptDecodeModel(model), tokenizer);
 * const prompt = tokenizer.encode("hello", { prepend: "<|bos|>" });
 * const { sequences: [ids] } = await engine.generateBatch(prompt, { maxTokens: 8, temperature: 0 });
 * if (ids.length < prompt.length) throw new Error("the prompt is part of the result");
 * tokenizer.decode(ids); // "<|bos|>hello..."
 * ```
 *
 * @example Train 10 steps
 * ```ts
 * import { Device, Trainer } from "@nanochat/nanochat";
 *
 * using device = Device.open("cpu");
 * const config = { sequenceLen: 16, vocabSize: 64, nLayer: 2, nHead: 2, nKvHead: 2, nEmbd: 64 };
 * const optimizer = {
 *   ...{ unembeddingLr: 0.004, embeddingLr: 0.2, matrixLr: 0.02, weightDecay: 0, gradClip: 1 },
 *   muonDtype: "bf16" as const,
 * };
 * using trainer = new Trainer(device, { config, dtype: "f32", B: 2, T: 16, gradAccum: 1, optimizer });
 * trainer.model.initWeights(42);
 * const inputs = Int32Array.from({ length: 32 }, (_, i) => i % 7);
 * const targets = Int32Array.from(inputs, (id) => (id + 1) % 7);
 * const losses: number[] = [];
 * for (let step = 0; step < 10; step++) {
 *   trainer.microStep({ inputs, targets }, 0);
 *   trainer.update({ lrMultiplier: 1, momentum: 0.95 });
 *   losses.push((await trainer.results()).losses[0]);
 * }
 * if (!(losses[9] < losses[0])) throw new Error(`the loss went from ${losses[0]} to ${losses[9]}`);
 * ```
 *
 * @example Write a task
 * ```ts
 * import { type Conversation, type Task, TaskMixture } from "@nanochat/nanochat";
 *
 * const sums: Task = {
 *   length: 100,
 *   kind: "generative",
 *   conversation(index: number): Conversation {
 *     const [a, b] = [Math.floor(index / 10), index % 10];
 *     return { messages: [{ role: "user", content: `What is ${a} + ${b}?` }, { role: "assistant", content: `${a + b}` }] };
 *   },
 *   evaluate: (conversation, answer) => answer.trim() === conversation.messages[1].content,
 * };
 * const mixture = new TaskMixture([sums, sums]); // a task that is given twice counts twice
 * if (mixture.length !== 200) throw new Error("200 conversations, shuffled");
 * ```
 *
 * @module
 */
export type { Folders, Stage } from "./src/data/base_dir.ts";
export { STAGES } from "./src/data/base_dir.ts";
export type { Conversation, Message, Part, Rendered, TextEncoding } from "./src/data/conversation.ts";
export { renderConversation, renderForCompletion } from "./src/data/conversation.ts";
export type { DocumentEncoder, LoaderOptions, LoaderState, ReferenceState, TokenBatch } from "./src/data/dataloader.ts";
export { DataLoader } from "./src/data/dataloader.ts";
export type { Split } from "./src/data/dataset.ts";
export { documents, listShards, splitShards } from "./src/data/dataset.ts";
export type { Log, Progress } from "./src/data/log.ts";
export type { EncodeGroupOptions, ParquetField, TextBytes, WriterOptions } from "./src/data/parquet.ts";
export { ParquetFile, writeParquet } from "./src/data/parquet.ts";
export type { EncodeOptions, TextColumn, TokenBytesRule, TokenizerParts } from "./src/data/tokenizer.ts";
export { StreamDecoder, Tokenizer } from "./src/data/tokenizer.ts";
export type { BatchOptions, DecodeModel, Decoder } from "./src/engine/batch.ts";
export { Batch } from "./src/engine/batch.ts";
export { calculate } from "./src/engine/calculator.ts";
export type { DecoderSizes } from "./src/engine/decode.ts";
export { GptDecodeModel, GptDecoder } from "./src/engine/decode.ts";
export type { Column, Generated, GenerateOptions } from "./src/engine/engine.ts";
export { Engine } from "./src/engine/engine.ts";
export type { LoadOptions } from "./src/engine/load.ts";
export { LoadedModel } from "./src/engine/load.ts";
export type { GenerateRequest, RowToken, Tool } from "./src/engine/request.ts";
export type { EngineTokenizer } from "./src/engine/row.ts";
export type { Candidate, Draw, Drawn, Penalties, Sampling } from "./src/engine/sample.ts";
export type { CoreBundle, CoreTask, CoreTaskType, PublishedScores } from "./src/eval/core_bundle.ts";
export { readBundle } from "./src/eval/core_bundle.ts";
export type { BitsPerByte, EvalBatch, EvalShape } from "./src/eval/loss_eval.ts";
export { LossEvaluator } from "./src/eval/loss_eval.ts";
export type {
  CheckpointIo,
  CheckpointMeta,
  CheckpointProblem,
  CheckpointState,
  FileEntry,
  FoundCheckpoint,
  Json,
  JsonObject,
  MappedTensor,
  NamedTensor,
  SaveOptions,
} from "./src/model/checkpoint.ts";
export { CheckpointError, findCheckpoint, MappedCheckpoint, saveCheckpoint } from "./src/model/checkpoint.ts";
export type { ForwardOptions, GPTConfig, GPTOptions, Quantization } from "./src/model/gpt.ts";
export { configFromDepth, flopsPerToken, GPT, parameterCount } from "./src/model/gpt.ts";
export type { KVCacheOptions } from "./src/model/kv_cache.ts";
export { KVCache } from "./src/model/kv_cache.ts";
export type { ChosenModel, ModelChoice } from "./src/model/models.ts";
export type { TensorDtype } from "./src/model/safetensors.ts";
export { NativeError } from "./src/native/call.ts";
export type { NativeContext, Segment } from "./src/native/files.ts";
export type { LibraryKind } from "./src/native/load.ts";
export type { AdamW, AdamWOptions } from "./src/optim/adamw.ts";
export type { NamedState, OptimizerOptions, StepSchedule } from "./src/optim/groups.ts";
export { Optimizers } from "./src/optim/groups.ts";
export type { Muon, MuonOptions } from "./src/optim/muon.ts";
export type { Mark } from "./src/tensor/arena.ts";
export { Arena } from "./src/tensor/arena.ts";
export type { DeviceInfo, Memory, MemoryInfo, OwnedTensor } from "./src/tensor/device.ts";
export { Device } from "./src/tensor/device.ts";
export type { ComputeType, DType, TypedArray } from "./src/tensor/dtype.ts";
export type { LayerCache, TokenScores } from "./src/tensor/ops.ts";
export type { Parameter, ParameterGroup, Parameters, ParameterSpec, WeightOperand } from "./src/tensor/parameter.ts";
export type { Cost, Costs, GradientTarget, Op } from "./src/tensor/tape.ts";
export { Tape } from "./src/tensor/tape.ts";
export { Tensor } from "./src/tensor/tensor.ts";
export type { BaseTrainFlags } from "./src/train/base_flags.ts";
export { BASE_TRAIN_DEFAULTS } from "./src/train/base_flags.ts";
export type { BaseTrainContext } from "./src/train/base_train.ts";
export { baseTrain } from "./src/train/base_train.ts";
export type { ChatRlResult } from "./src/train/chat_rl.ts";
export { chatRl } from "./src/train/chat_rl.ts";
export type { ChatSftContext, ChatSftResult, TaskMetrics } from "./src/train/chat_sft.ts";
export { chatSft } from "./src/train/chat_sft.ts";
export type { ChatStageContext } from "./src/train/chat_stage.ts";
export type { MidTrainFlags } from "./src/train/mid_flags.ts";
export { MID_TRAIN_DEFAULTS } from "./src/train/mid_flags.ts";
export { midTrain } from "./src/train/mid_train.ts";
export type { ChatRlFlags } from "./src/train/rl_flags.ts";
export { CHAT_RL_DEFAULTS } from "./src/train/rl_flags.ts";
export type { PassAtK, RolloutModel, RolloutSampling } from "./src/train/rollouts.ts";
export { evaluatePassAtK } from "./src/train/rollouts.ts";
export type { Sample } from "./src/train/samples.ts";
export type { ChatSftFlags } from "./src/train/sft_flags.ts";
export { CHAT_SFT_DEFAULTS } from "./src/train/sft_flags.ts";
export type { StepReport, TrainContext, TrainResult } from "./src/train/session.ts";
export type { StageFlags } from "./src/train/stage_flags.ts";
export type { TokenizerStats, TrainTokenizerOptions } from "./src/train/tok_train.ts";
export { trainTokenizer } from "./src/train/tok_train.ts";
export type { MicroBatch, StepResult, TrainerOptions, TrainingPlan } from "./src/train/trainer.ts";
export { planTraining, Trainer } from "./src/train/trainer.ts";
export type { ArcOptions } from "./tasks/arc.ts";
export { loadArc } from "./tasks/arc.ts";
export { loadCustomJson } from "./tasks/customjson.ts";
export type { Gsm8kOptions } from "./tasks/gsm8k.ts";
export { loadGsm8k } from "./tasks/gsm8k.ts";
export type { ProgramRunner } from "./tasks/humaneval.ts";
export { loadHumanEval } from "./tasks/humaneval.ts";
export type { MixtureSource, StageTasks } from "./tasks/mixtures.ts";
export { loadMixture, loadStageTasks, REFERENCE_MIXTURES, TASK_NAMES } from "./tasks/mixtures.ts";
export type { MmluOptions } from "./tasks/mmlu.ts";
export { loadMmlu } from "./tasks/mmlu.ts";
export { loadSmolTalk } from "./tasks/smoltalk.ts";
export type { SpellingOptions } from "./tasks/spellingbee.ts";
export { readWords, simpleSpelling, spellingBee } from "./tasks/spellingbee.ts";
export type { Slice, Task } from "./tasks/task.ts";
export { sliceTask, TaskMixture, TaskSequence } from "./tasks/task.ts";
