/** `nanochat serve`: the web page and the API over trained models, until it is stopped. */
import { resolveBaseDir, type Stage } from "../data/base_dir.ts";
import type { Quantization } from "../model/gpt.ts";
import { chooseModel, type ChosenModel, findModel } from "../model/models.ts";
import { describeSteps, findCheckpoint } from "../model/checkpoint_folder.ts";
import { CheckpointError } from "../model/checkpoint_error.ts";
import { ApiKey } from "../server/api_key.ts";
import { isLoopback, parseHost, parseOrigin } from "../server/hosts.ts";
import { readPage } from "../server/page_asset.ts";
import { ModelPool } from "../server/pool.ts";
import { type ServeOptions, WebServer } from "../server/serve.ts";
import { readApiKey } from "./api_key.ts";
import { UsageError } from "./flags.ts";
import type { Terminal } from "./progress.ts";
import { EXIT, listenForStop } from "./signals.ts";
import { VERSION_NUMBER } from "./version.ts";

/** Flags of the command. */
export interface ServeFlags {
  readonly baseDir?: string;
  readonly source: Stage | "";
  readonly modelTag?: string;
  /** -1 = the largest. */
  readonly step: number;
  /** Names by commas; without it the one model that source, tag and step choose. */
  readonly model?: string;
  /** Devices. */
  readonly gpus: number;
  readonly maxLoaded: number;
  /** 0 = what memory allows. */
  readonly rows: number;
  readonly queue: number;
  readonly temperature: number;
  readonly topK: number;
  readonly maxTokens: number;
  /** Seconds. */
  readonly timeout: number;
  readonly showTools: boolean;
  readonly host: string;
  readonly port: number;
  readonly apiKey?: string;
  readonly apiKeyFile?: string;
  readonly auth: boolean;
  readonly allowedHost?: string;
  readonly cors?: string;
  /** Seconds. */
  readonly grace: number;
  readonly logPrompts: boolean;
  readonly deviceType: "cpu" | "cuda" | "";
  readonly threads: number;
  readonly dtype: string;
  readonly quantize: Quantization;
}

/** Runs the command; returns the exit code. */
export async function serve(flags: ServeFlags, terminal: Terminal): Promise<number> {
  const access = await readAccess(flags, terminal);
  if (access.key === undefined && !isLoopback(flags.host) && flags.auth) {
    terminal.error(
      `Cannot serve on ${flags.host}: everyone who reaches this machine could ask, expected a key; set NANOCHAT_API_KEY ` +
        "or --api-key-file, or write --no-auth",
    );
    return EXIT.REFUSED;
  }
  const page = await readPage();
  const models = chooseModels(resolveBaseDir(flags.baseDir), flags, terminal);
  const stopped = Promise.withResolvers<void>();
  using _stop = listenForStop({
    first: () => {
      terminal.warn(`Stopping; answers that are running have ${flags.grace} s to end, a second Ctrl-C stops at once`);
      stopped.resolve();
    },
    second: () => Deno.exit(EXIT.STOPPED_AT_ONCE),
  });
  const { deviceType, gpus: devices, threads, dtype, quantize, rows, maxLoaded, queue: maxQueued } = flags;
  if (devices > 1 && deviceType !== "cuda") {
    throw new UsageError(
      `Cannot serve on ${devices} GPUs: the CPU is one device, expected --device-type=cuda beside it`,
    );
  }
  const run = { deviceType, threads, dtype, quantize, rows };
  const pool = new ModelPool(models, { ...run, devices, maxLoaded, maxQueued });
  try {
    const server = await WebServer.open(pool, {
      ...access,
      page,
      app: appOptions(flags),
      ...surroundings(flags, terminal),
    });
    terminal.result(server.url, { url: server.url });
    await Promise.race([stopped.promise, pool.load(pool.list()[0].id)]);
    terminal.info(`Talk at ${server.url}; programs that speak OpenAI's API find it at ${server.url}/v1; Ctrl-C stops`);
    await stopped.promise;
    await server.close(flags.grace * 1000);
  } catch (error) {
    await pool.close(0);
    throw error;
  }
  return EXIT.DONE;
}

/** Says what the routes need of the flags. */
function appOptions(
  { deviceType, gpus, temperature, topK, maxTokens, timeout, showTools }: ServeFlags,
): ServeOptions["app"] {
  return {
    devices: Array.from({ length: gpus }, (_, i) => deviceType === "cuda" ? `cuda:${i}` : deviceType || "cpu"),
    version: VERSION_NUMBER,
    defaults: { temperature, topK, maxTokens },
    deadlineMs: timeout * 1000,
    showTools,
  };
}

/** Says where the server listens, on which machine, and where it tells what happens. */
function surroundings({ host, port, logPrompts }: ServeFlags, log: Terminal) {
  const addresses = Deno.networkInterfaces().map(({ address }) => address);
  return { host, port, machine: { hostname: Deno.hostname(), addresses }, log, logTexts: logPrompts };
}

/** Reads who may ask. */
async function readAccess(
  flags: ServeFlags,
  terminal: Terminal,
): Promise<Pick<ServeOptions, "allowedHosts" | "origins" | "key">> {
  return {
    allowedHosts: listOf(flags.allowedHost, "--allowed-host", (name) => parseHost(name)?.name),
    origins: listOf(flags.cors, "--cors", parseOrigin),
    key: await readKey(flags, terminal),
  };
}

/** Reads the values of a list; "" and undefined are none. */
function listOf(list: string | undefined, flag: string, read: (text: string) => string | undefined): string[] {
  return (list ?? "").split(",").map((text) => text.trim()).filter((text) => text !== "").map((text) => {
    const value = read(text);
    if (value !== undefined) return value;
    const expected = flag === "--cors" ? 'origins such as "https://example.org"' : 'names such as "chat.example.org"';
    throw new UsageError(`Cannot read ${flag}: ${JSON.stringify(text)}, expected ${expected}`);
  });
}

/** Reads the key that clients must send. */
async function readKey(flags: ServeFlags, terminal: Terminal): Promise<ApiKey | undefined> {
  const key = await readApiKey(flags);
  const mode = flags.apiKeyFile ? (await Deno.stat(flags.apiKeyFile)).mode ?? 0 : 0;
  if ((mode & 0o077) !== 0) {
    terminal.warn(`Other users of this machine may read the key in "${flags.apiKeyFile}"; "chmod 600" keeps them out`);
  }
  return key === undefined ? undefined : new ApiKey(key);
}

/** Finds the models that may be asked for, the default one first. */
function chooseModels(base: string, flags: ServeFlags, log: Terminal): ChosenModel[] {
  const { source, modelTag: tag, step, model } = flags;
  const names = (model ?? "").split(",").map((name) => name.trim()).filter((name) => name !== "");
  if (names.length === 0) {
    const chosen = chooseModel(base, { source: source || undefined, tag, step: step < 0 ? undefined : step, log });
    log.info(chosen.why);
    return [chosen];
  }
  if (source || tag || step >= 0) {
    throw new UsageError(
      "Cannot choose models: --model is given beside --source, --model-tag or --step, expected one way",
    );
  }
  return names.map((text) => namedModel(base, text, log));
}

/** Finds `NAME` or `NAME@STEP`. */
function namedModel(base: string, text: string, log: Terminal): ChosenModel {
  const [_, name, at] = /^(.*?)(?:@(\d+))?$/.exec(text)!;
  const model = findModel(base, name);
  const step = at === undefined ? undefined : Number(at);
  const found = findCheckpoint(model.folder, { step, modelOnly: true, log });
  if (found === undefined) {
    const is = `${describeSteps(model.steps)}, none of which can be used`;
    throw new CheckpointError(
      "missing",
      `Cannot serve "${name}": it holds ${is}; "nanochat models inspect ${name}" says why`,
    );
  }
  return { ...found, name: model.name, source: model.stage, tag: model.tag, run: model.run, why: "" };
}
