/** What the tests of the stages behind base training share: a base folder with a small base model, and small tasks. */
import { join } from "@std/path";
import type { Task } from "../../tasks/task.ts";
import { foldersOf, type Stage } from "../data/base_dir.ts";
import { SILENT } from "../data/log.ts";
import { writeParquet } from "../data/parquet.ts";
import { chooseModel } from "../model/models.ts";
import { readEvents, type RunEvent } from "../report/events.ts";
import { BASE_TRAIN_DEFAULTS } from "./base_flags.ts";
import { baseTrain } from "./base_train.ts";
import type { ChatStageContext } from "./chat_stage.ts";
import { trainTokenizer } from "./tok_train.ts";

const COLOURS = ["red", "green", "blue", "white", "black", "brown"];

/** Questions about colours: row i of any number of rows; the answer to be learnt is always among six words. */
export function colourTask(length: number, { answerWords = 1 } = {}): Task {
  return {
    length,
    kind: "generative",
    conversation(index) {
      const colour = COLOURS[index * 7 % COLOURS.length];
      const answer = Array.from({ length: answerWords }, () => colour).join(" ");
      return {
        messages: [{ role: "user", content: `say ${colour} ${index % 5}` }, { role: "assistant", content: answer }],
      };
    },
    evaluate: (conversation, answer) => answer === conversation.messages[1].content,
    reward: (_, answer) => answer.includes("e") ? 1 : 0,
  };
}

/** Length of the context of the base model. */
export const CONTEXT = 64;

/** A base folder with a tokenizer and a base model `d2`, removed at the end. */
export class StagePlace implements AsyncDisposable {
  /** The base folder. */
  readonly folder: string;
  /** Everything that was told. */
  readonly messages: string[] = [];

  private constructor(folder: string) {
    this.folder = folder;
  }

  /** Trains tokenizer and base model. */
  static async make(): Promise<StagePlace> {
    const place = new StagePlace(await Deno.makeTempDir());
    const { data, tokenizer } = foldersOf(place.folder);
    await Deno.mkdir(data, { recursive: true });
    const texts = Array.from({ length: 200 }, (_, i) => `say ${COLOURS[i % 6]} ${i % 10}, then ${COLOURS[i * 5 % 6]}.`);
    await writeParquet(join(data, "shard_00000.parquet"), texts, { rowGroupSize: 50 });
    await writeParquet(join(data, "shard_00001.parquet"), texts.slice(0, 60), { rowGroupSize: 50 });
    using made = (await trainTokenizer({ texts: [texts], vocabSize: 300 })).tokenizer;
    await made.save(tokenizer);
    const flags = {
      ...{ ...BASE_TRAIN_DEFAULTS, depth: 2, dtype: "fp32", maxSeqLen: CONTEXT, deviceBatchSize: 2 },
      ...{ totalBatchSize: 2 * CONTEXT, numIterations: 3, evalEvery: -1, sampleEvery: -1 },
    };
    const stop = new AbortController().signal;
    const folders = foldersOf(place.folder);
    await baseTrain(flags, { folders, dataDir: data, tokenizerDir: tokenizer, log: SILENT, stop });
    return place;
  }

  /** Gives what a stage reads: colours, from the latest model of an earlier stage. */
  context(changes: Partial<ChatStageContext> & { from?: Stage } = {}): ChatStageContext {
    const { from = "base", ...rest } = changes;
    const tell = (message: string) => this.messages.push(message);
    return {
      folders: foldersOf(this.folder),
      log: { ...SILENT, info: tell, warn: tell },
      stop: new AbortController().signal,
      source: chooseModel(this.folder, { source: from }),
      train: colourTask(40),
      validation: colourTask(12),
      ...rest,
    };
  }

  /** Reads the events of a run. */
  events(stage: Stage, tag: string): RunEvent[] {
    return readEvents(join(foldersOf(this.folder).checkpoints, stage, tag, "events.jsonl"));
  }

  /** Lists step, loss, rate and batches of a run: what an exact resume leaves unchanged. */
  steps(stage: Stage, tag: string): unknown[] {
    return this.events(stage, tag).filter(({ kind }) => kind === "step")
      .map(({ step, loss, lr, batchHash }) => [step, loss, lr, batchHash]);
  }

  /** Removes the folder. */
  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.folder, { recursive: true });
  }
}
