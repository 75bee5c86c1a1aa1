/**
 * The formats of the files that the program writes for itself. Each of them names its format and version, `{"format", "version", ...}` at
 * its beginning; what another program defined (Parquet, conversations as JSON lines, exports) follows that program.
 *
 * A change that an older program would misread raises the version. Files of 0.1.0 that carried no version are read as version 1.
 */

/** What stands at the head of a file. */
export interface Format {
  readonly format: string;
  readonly version: number;
}

/** All formats. */
export const FORMATS = {
  checkpoint: { format: "nanochat checkpoint", version: 1 },
  tensors: { format: "nanochat", version: 1 },
  tokenizer: { format: "nanochat tokenizer", version: 1 },
  events: { format: "nanochat events", version: 1 },
  run: { format: "nanochat run", version: 1 },
  reportHeader: { format: "nanochat report header", version: 1 },
  reportSection: { format: "nanochat report section", version: 1 },
  report: { format: "nanochat report", version: 1 },
  core: { format: "nanochat CORE results", version: 1 },
  chat: { format: "nanochat chat results", version: 1 },
  prompts: { format: "nanochat prompts", version: 1 },
  persona: { format: "nanochat persona", version: 1 },
  taskSet: { format: "nanochat task set", version: 1 },
  export: { format: "nanochat export", version: 1 },
} as const satisfies Record<string, Format>;

/**
 * Says what is wrong with the head of a file, `{format, version}` as they were read; undefined = nothing.
 *
 * @param options.lacking true: a file without format is one of 0.1.0
 */
export function formatProblem(
  head: unknown,
  { expected, lacking = false }: { expected: Format; lacking?: boolean },
): string | undefined {
  const { format, version } = (head ?? {}) as Partial<Format>;
  if (format === undefined && lacking && (version === undefined || version === 1)) return undefined;
  if (format !== expected.format) return `its format is ${JSON.stringify(format)}, expected "${expected.format}"`;
  if (version === expected.version) return undefined;
  return `its format version is ${JSON.stringify(version)}, expected ${expected.version}`;
}
