/** `nanochat run`, `nanochat data world` and `nanochat eval bpb`: recipes and the stages that they are made of. */
import { join } from "@std/path";
import { type WorldCorpus, writeWorldShards } from "../../tasks/world_shards.ts";
import { chooseData, entries, foldersOf, resolveBaseDir } from "../data/base_dir.ts";
import { listShards, splitShards } from "../data/dataset.ts";
import { readPrompts } from "../data/prompts.ts";
import type { Tokenizer } from "../data/tokenizer.ts";
import { evaluateBpb, evaluateMarkov2 } from "../eval/base_eval.ts";
import { reportBaseLoss } from "../report/stages.ts";
import type { Recipe } from "../train/recipes.ts";
import { findRecipe, placesOf, runRecipe } from "../train/run.ts";
import { sampleTexts } from "../train/samples.ts";
import type { Invocation } from "./command.ts";
import { COMMANDS } from "./commands.ts";
import { type ModelFlags, openModel } from "./eval_commands.ts";
import { DEVICE } from "./flag_sets.ts";
import type { RUN } from "./model_flags.ts";
import { camelCase, UsageError } from "./flags.ts";
import type { Terminal } from "./progress.ts";
import { RunLog } from "./run_log.ts";
import { EXIT } from "./signals.ts";
import { commandLine, findStageCommand, stageExecutor } from "./stage.ts";
import { explicitFlags } from "./train_command.ts";
import { openLibrary } from "../native/load.ts";
import { thisProgram } from "./version_facts.ts";

/** Runs a recipe, or prints its commands. */
export async function run(
  name: string,
  { values, settings, stop, terminal }: Invocation<typeof RUN>,
): Promise<number> {
  const { baseDir, dryRun, from, until, pricePerHour } = values;
  const recipe = chooseRecipe(name);
  const base = resolveBaseDir(baseDir);
  const places = placesOf(recipe, { name, base });
  const result = (text: string, object?: unknown) => terminal.result(text, object);
  const given = explicitFlags(settings);
  const flags = Object.fromEntries(
    Object.keys(DEVICE).filter((flag) => given.has(camelCase(flag))).map((flag) => [flag, settings.get(flag)!.value!]),
  );
  const common = { flags, baseUrl: values.baseUrl };
  if (dryRun) {
    for (const stage of recipe.stages) {
      const call = { ...places, isResumed: false };
      terminal.result(commandLine(findStageCommand(COMMANDS, stage), { stage, call, common }));
    }
    return EXIT.DONE;
  }
  openLibrary("cpu"); // before the first stage: the cache of the single file may be emptied in the hours behind it
  const { root } = places.folders;
  const log = new RunLog(terminal, { folder: root, head: { command: `nanochat run ${name}`, settings } });
  const execute = stageExecutor(COMMANDS, { result, common });
  const program = thisProgram();
  const { stopped } = await runRecipe(name, {
    base,
    log,
    stop,
    result,
    execute,
    from,
    until,
    program,
    pricePerHour,
  });
  if (stopped) terminal.info(`Stopped; "nanochat run ${name}" goes on from here`);
  return stopped ? EXIT.STOPPED : EXIT.DONE;
}

function chooseRecipe(name: string): Recipe {
  try {
    return findRecipe(name);
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}

/** Writes the small world as shards. */
export async function writeWorld(
  options: WorldCorpus & { baseDir?: string; overwrite: boolean; terminal: Terminal },
): Promise<void> {
  const { data } = foldersOf(resolveBaseDir(options.baseDir));
  const foreign = entries(data).filter(({ name }) => name.endsWith(".parquet"));
  if (foreign.length > 0 && !options.overwrite) {
    throw new Error(
      `Cannot write the small world into "${data}": it holds ${foreign.length} shards, expected none or --overwrite`,
    );
  }
  for (const { name } of foreign) Deno.removeSync(join(data, name));
  const characters = await writeWorldShards(data, options, options.terminal);
  options.terminal.result(`Wrote ${characters} characters to "${data}"`, { characters, folder: data });
}

/** Tokens of a sample that continues a data set's own opening. */
const FINAL_TOKENS = 40;

/** Flags of `eval bpb`. */
export interface EvalBpbFlags extends ModelFlags {
  readonly dataDir?: string;
  readonly deviceBatchSize: number;
  readonly splitTokens: number;
  readonly markov: boolean;
}

/** Measures bits per byte of a model on both splits and shows samples. */
export async function evalBpb(flags: EvalBpbFlags, terminal: Terminal): Promise<void> {
  const started = performance.now();
  const base = resolveBaseDir(flags.baseDir);
  const { deviceBatchSize: B, splitTokens } = flags;
  using loaded = await openModel(base, { ...flags, quantize: "none" }, terminal);
  const folder = dataFolder(base, { given: flags.dataDir, run: loaded.chosen.run });
  const files = splitShards(listShards(folder));
  const measure = () => evaluateBpb({ ...loaded, files }, { B, splitTokens, log: terminal });
  const bpb = await measure();
  const figures: Record<string, number> = { train_bpb: bpb.train!, val_bpb: bpb.val! };
  await loaded.verified;
  const samples = await sampleTexts(loaded.model, finalPrompts(loaded.tokenizer, folder)); // of the exact model
  if (flags.quantize !== "none") {
    loaded.model.packForInference(flags.quantize);
    const { train, val } = await measure();
    for (const [name, exact, rounded] of [["train", bpb.train!, train!], ["val", bpb.val!, val!]] as const) {
      figures[`${name}_bpb_${flags.quantize}`] = rounded;
      figures[`${name}_lost_percent`] = 100 * (rounded / exact - 1);
    }
  }
  if (flags.markov) figures.markov2_bpb = await evaluateMarkov2(files, terminal);
  reportBaseLoss(foldersOf(base, loaded.chosen.run).report, {
    flags: { deviceBatchSize: B, splitTokens, quantize: flags.quantize },
    sec: (performance.now() - started) / 1000,
    figures,
    samples,
  });
  for (const { prompt, text } of samples) terminal.result(`${prompt}${text}`, { prompt, sample: text });
  terminal.result(
    Object.entries(figures).map(([name, value]) => `${name.padEnd(18)} ${value.toFixed(6)}`).join("\n"),
    figures,
  );
}

/** What the model continues at the end: the openings that go with the data, in full sentences, or the reference's seven. */
function finalPrompts(tokenizer: Tokenizer, folder: string): Parameters<typeof sampleTexts>[1] {
  const prompts = readPrompts(folder)?.final;
  return { tokenizer, prompts, maxTokens: prompts && FINAL_TOKENS };
}

/** The data that belongs to a model: the folder given, that of its run, or what any command would take. */
function dataFolder(base: string, { given, run }: { given?: string; run?: string }): string {
  if (given === undefined && run !== undefined) {
    const { data } = foldersOf(base, run);
    if (entries(data).some(({ name }) => name.endsWith(".parquet"))) return data;
  }
  return chooseData(base, given).folder;
}
