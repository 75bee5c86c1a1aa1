/** What each stage says about itself in the report: one function a stage, called by its command. */
import type { Stage } from "../data/base_dir.ts";
import { type Item, type Section, writeSection } from "./sections.ts";

/** What every stage knows at its end. */
export interface StageEnd {
  /** Flags that it ran with. */
  readonly flags: object;
  readonly sec: number;
}

type Text = Section["samples"];

/** Flags as a section lists them: by the reference's names, without those that were not set. */
function listed(flags: object): Record<string, Item> {
  const snake = (name: string) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
  const isSet = (value: unknown) => ["string", "number", "boolean"].includes(typeof value) && value !== "";
  const rows = Object.entries(flags).filter(([_, value]) => isSet(value));
  return Object.fromEntries(rows.map(([name, value]) => [snake(name), value as Item]));
}

function write(
  folder: string,
  { flags, sec, items = {}, ...rest }:
    & StageEnd
    & Pick<Section, "title" | "command" | "stage" | "scores" | "samples" | "eventsFolder">
    & { items?: Record<string, Item> },
): void {
  const finished = new Date().toISOString();
  writeSection(folder, { ...rest, finished, sec, items: { ...listed(flags), ...items } });
}

/** Reports a trained tokenizer; `stats` are its counts and lengths. */
export function reportTokenizer(
  folder: string,
  { stats, ...end }: StageEnd & { stats: object },
): void {
  write(folder, { ...end, title: "Tokenizer training", command: "nanochat tokenizer train", items: listed(stats) });
}

/** Reports bytes per token by text, and what is saved beside each baseline; `figures` as the command prints them. */
export function reportTokenizerEval(
  folder: string,
  { figures, ...end }: StageEnd & { figures: Readonly<Record<string, Item>> },
): void {
  write(folder, { ...end, title: "Tokenizer evaluation", command: "nanochat tokenizer eval", items: figures });
}

/** How a run of training ended. */
export interface TrainingEnd {
  readonly flags: object;
  /** Folder of its checkpoints and events. */
  readonly folder: string;
  readonly steps: number;
  readonly valBpb: number | null;
  readonly minValBpb: number | null;
  /** Time of the updates. */
  readonly totalTimeMs: number;
  /** Time that the machine was held. */
  readonly wallTimeMs: number;
}

/** Counts and times of a run of training. */
function training({ steps, totalTimeMs, wallTimeMs, folder }: Omit<TrainingEnd, "flags">) {
  return {
    sec: wallTimeMs / 1000,
    eventsFolder: folder,
    items: { updates: steps, update_time_sec: totalTimeMs / 1000 },
  };
}

/** Reports a trained base model. */
export function reportBaseTraining(folder: string, end: TrainingEnd): void {
  const { flags, valBpb, minValBpb } = end;
  const { items, ...rest } = training(end);
  write(folder, {
    ...{ title: "Base model training", command: "nanochat train", flags, ...rest },
    items: { ...items, val_bpb: valBpb, min_val_bpb: minValBpb },
  });
}

/** How a run of a later stage ended: a run of training, with figures of its own. */
export interface ChatStageEnd extends TrainingEnd {
  /** Figures by name: rows, losses, accuracies. */
  readonly figures: Readonly<Record<string, Item>>;
}

const CHAT_STAGES = {
  mid: { title: "Midtraining", command: "nanochat mid" },
  sft: { title: "Chat SFT", command: "nanochat sft" },
  rl: { title: "Chat RL", command: "nanochat rl" },
} as const;

/** Reports a model behind mid-training, fine-tuning or reinforcement. */
export function reportChatStage(
  folder: string,
  { stage, flags, figures, ...end }: ChatStageEnd & { stage: keyof typeof CHAT_STAGES },
): void {
  const { items, ...rest } = training(end);
  write(folder, { ...CHAT_STAGES[stage], flags, ...rest, items: { ...items, ...figures } });
}

/** Reports bits per byte of a base model, with samples. */
export function reportBaseLoss(
  folder: string,
  { figures, samples, ...end }: StageEnd & { figures: Readonly<Record<string, number>>; samples: Text },
): void {
  const scores = { ...figures };
  write(folder, { ...end, title: "Base model loss", command: "nanochat eval bpb", stage: "base", scores, samples });
}

/** What an evaluation knows at its end. */
interface EvaluationEnd extends StageEnd {
  readonly flags: Readonly<Record<string, unknown>> & { readonly quantize: "none" | "int8" };
}

/** Writes an evaluation. Results of a rounded model get a title and names of their own: they stand beside the exact ones. */
function writeEvaluation(folder: string, section: EvaluationEnd & Parameters<typeof write>[1]): void {
  const { flags: { quantize }, title, scores = {} } = section;
  if (quantize === "none") return write(folder, section);
  const named = Object.entries(scores).map(([name, score]) => [`${name}_${quantize}`, score]);
  write(folder, { ...section, title: `${title}, ${quantize}`, scores: Object.fromEntries(named) });
}

/** Reports the CORE metric of a base model with every centred accuracy. */
export function reportCore(
  folder: string,
  { model, core, centered, ...end }: EvaluationEnd & {
    model: string;
    core: number;
    centered: Readonly<Record<string, number>>;
  },
): void {
  writeEvaluation(folder, {
    ...end,
    title: "Base model evaluation",
    command: "nanochat eval core",
    stage: "base",
    items: { model, ...centered },
    scores: { CORE: core },
  });
}

/** Reports the accuracies of a chat model; ChatCORE where every task ran. */
export function reportChatEval(
  folder: string,
  { source, scores, ...end }: EvaluationEnd & { source: Stage; scores: Readonly<Record<string, number>> },
): void {
  const command = `nanochat eval chat --source=${source}`;
  writeEvaluation(folder, { ...end, title: `Chat evaluation ${source}`, command, stage: source, scores });
}
