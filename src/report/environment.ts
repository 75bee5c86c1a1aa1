/**
 * Where a report comes from: program, machine, state of the checkout and size of the code. Read once when a report is reset and kept in
 * `header.json`, so that the card tells when the run started and on what.
 */
import { extname, join } from "@std/path";
import { formatProblem, FORMATS } from "../data/formats.ts";
import { HEADER_FILE } from "./sections.ts";

/** Facts about program and machine. */
export interface Environment {
  /** When the run started, ISO 8601. */
  readonly started: string;
  /** Version of the program and its runtime. */
  readonly program: string;
  readonly platform: string;
  readonly cpu: string;
  readonly cores: number;
  readonly memoryBytes: number;
  /** State of the checkout; null for a built binary. */
  readonly git: { branch: string; commit: string; clean: boolean; subject: string } | null;
  /** Size of the sources; null for a built binary. */
  readonly code: { files: number; lines: number; characters: number; tokens: number; lockLines: number } | null;
}

/** Kinds of files that count as code. */
const CODE = new Set([".ts", ".rs", ".cu", ".cuh", ".h", ".md", ".toml", ".html", ".css", ".sh", ".py"]);
const SUBJECT_CHARACTERS = 80;
const CHARACTERS_PER_TOKEN = 4; // the reference's estimate

/** What runs. */
export interface Program {
  /** "nanochat 0.2.0 (deno 2.9.6, ...)". */
  readonly version: string;
  /** Folder of the sources, where it runs from a checkout. */
  readonly checkout?: string;
}

/** Describes this machine and, where the program runs from a checkout, its sources. */
export function readEnvironment({ version, checkout }: Program): Environment {
  return {
    started: new Date().toISOString(),
    program: version,
    platform: `${Deno.build.os} ${Deno.osRelease()} ${Deno.build.arch}`,
    cpu: cpuName(),
    cores: navigator.hardwareConcurrency,
    memoryBytes: Deno.systemMemoryInfo().total,
    ...(checkout === undefined ? { git: null, code: null } : { git: gitState(checkout), code: codeSize(checkout) }),
  };
}

/** Writes the header of a report that begins now. */
export function writeHeader(folder: string, environment: Environment): void {
  Deno.mkdirSync(folder, { recursive: true });
  Deno.writeTextFileSync(
    join(folder, HEADER_FILE),
    JSON.stringify({ ...FORMATS.reportHeader, ...environment }, null, 2) + "\n",
  );
}

/** Reads the header of a report; null where none was written or it cannot be read. */
export function readHeader(folder: string): Environment | null {
  try {
    const { format, version, ...environment } = JSON.parse(Deno.readTextFileSync(join(folder, HEADER_FILE)));
    const problem = formatProblem({ format, version }, { expected: FORMATS.reportHeader, lacking: true });
    return problem ? null : environment;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof SyntaxError) return null;
    throw error;
  }
}

/** Gives the name of the processor as its maker writes it; "unknown" where the system does not tell. */
export function cpuName(): string {
  try {
    return /^model name\s*:\s*(.*)$/m.exec(Deno.readTextFileSync("/proc/cpuinfo"))?.[1] ?? "unknown";
  } catch {
    return "unknown"; // another system than Linux
  }
}

function git(checkout: string, args: readonly string[]): string | null {
  try {
    const { success, stdout } = new Deno.Command("git", { args: ["-C", checkout, ...args], stderr: "null" })
      .outputSync();
    return success ? new TextDecoder().decode(stdout).trim() : null;
  } catch {
    return null; // no git on this machine
  }
}

/** Gives the commit of a checkout; null where git does not tell. */
export function readCommit(checkout: string): string | null {
  return git(checkout, ["rev-parse", "HEAD"]);
}

function gitState(checkout: string): Environment["git"] {
  const commit = git(checkout, ["rev-parse", "--short", "HEAD"]);
  if (commit === null) return null;
  return {
    branch: git(checkout, ["rev-parse", "--abbrev-ref", "HEAD"]) ?? "",
    commit,
    clean: git(checkout, ["status", "--porcelain"]) === "",
    subject: [...git(checkout, ["log", "-1", "--format=%s"]) ?? ""].slice(0, SUBJECT_CHARACTERS).join(""),
  };
}

/** Counts the files under version control that are code. */
function codeSize(checkout: string): Environment["code"] {
  const names = git(checkout, ["ls-files"])?.split("\n").filter((name) => CODE.has(extname(name)));
  if (!names?.length) return null;
  let lines = 0;
  let characters = 0;
  for (const name of names) {
    const text = Deno.readTextFileSync(join(checkout, name));
    lines += text.split("\n").length - 1;
    characters += text.length;
  }
  const lock = Deno.readTextFileSync(join(checkout, "deno.lock"));
  return {
    files: names.length,
    lines,
    characters,
    tokens: Math.floor(characters / CHARACTERS_PER_TOKEN),
    lockLines: lock.split("\n").length - 1,
  };
}
