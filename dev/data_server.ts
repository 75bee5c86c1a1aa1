/**
 * A local server that plays the hosts of `nanochat data fetch` and `nanochat data download` with the files of a data folder
 * (`NANOCHAT_DATA`): `deno run -A dev/data_server.ts FOLDER` prints its address, to be given as --base-url.
 */
import { existsSync } from "node:fs";
import { join, relative } from "@std/path";
import { readText } from "../src/data/text_file.ts";
import { findAsset } from "../src/data/assets.ts";
import { readManifest, taskSetFolder } from "../src/data/task_data.ts";
import { makeZip, type ZipEntry } from "../src/data/zip_testing.ts";

/** A running server. */
export interface DataServer extends AsyncDisposable {
  /** Address for --base-url. */
  readonly url: string;
  /** Paths that were asked for, in order. */
  readonly requests: readonly string[];
}

/** Serves a data folder on a free port of this machine until it is disposed. */
export function serveData(root: string): DataServer {
  const requests: string[] = [];
  const server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen() {} }, async (request) => {
    const { pathname, origin } = new URL(request.url);
    requests.push(pathname);
    return await answer(root, { path: decodeURIComponent(pathname), origin }) ?? new Response("", { status: 404 });
  });
  return {
    url: `http://127.0.0.1:${server.addr.port}`,
    requests,
    [Symbol.asyncDispose]: () => server.shutdown(),
  };
}

async function answer(root: string, { path, origin }: { path: string; origin: string }): Promise<Response | undefined> {
  const set = /^\/api\/datasets\/([^/]+\/[^/]+)\/parquet\/([^/]+)\/([^/]+)$/.exec(path);
  if (set) {
    const folder = join("task_data", taskSetFolder({ repo: set[1], subset: set[2], split: set[3] }));
    if (!existsSync(join(root, folder))) return undefined;
    return Response.json(readManifest(join(root, folder)).map((name) => `${origin}/${folder}/${name}`));
  }
  if (path === "/words_alpha.txt") return new Response(await readText(findAsset(root, "words")));
  if (path === "/identity_conversations.jsonl") return new Response(await readText(findAsset(root, "identity")));
  if (path === "/eval_bundle.zip") return new Response(await makeZip(bundleEntries(findAsset(root, "eval-bundle"))));
  const shard = /^(?:\/base_data)?\/(shard_\d{5}\.parquet)$/.exec(path); // at the root for data download, below it for run
  const file = shard ? join(root, "pretrain", shard[1]) : join(root, path);
  if (relative(root, file).startsWith("..") || !path.endsWith(".parquet") || !existsSync(file)) return undefined;
  return new Response(await Deno.readFile(file));
}

/** Files of the bundle below `eval_bundle/`, as the reference's zip file has them. */
function bundleEntries(folder: string): ZipEntry[] {
  const walk = (path: string): ZipEntry[] =>
    Array.from(Deno.readDirSync(path)).flatMap(({ name, isDirectory }) => {
      const inner = join(path, name);
      if (isDirectory) return walk(inner);
      return [{ name: join("eval_bundle", relative(folder, inner)), data: Deno.readFileSync(inner) }];
    });
  return walk(folder);
}

if (import.meta.main) {
  const folder = Deno.args[0] ?? Deno.env.get("NANOCHAT_DATA");
  if (folder === undefined) throw new Error("Cannot serve: no folder is given, expected an argument or NANOCHAT_DATA");
  console.log(serveData(folder).url);
}
