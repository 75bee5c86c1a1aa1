/** Settings that stay in this browser, and the ranges that they are held to; what is stored is checked like anything from outside. */

/** How answers are made and shown. */
export interface ChatSettings {
  readonly temperature: number;
  /** 0 = all tokens. */
  readonly topK: number;
  readonly topP: number;
  /** null = another one for each answer. */
  readonly seed: number | null;
  /** null = the default of the server. */
  readonly maxTokens: number | null;
  readonly systemPrompt: string;
  /** null = the server's first one. */
  readonly model: string | null;
  readonly withProbabilities: boolean;
  readonly theme: "system" | "light" | "dark";
}

/** What the reference's page sends where nothing was chosen. */
export const DEFAULT_SETTINGS: ChatSettings = {
  ...{ temperature: 0.8, topK: 50, topP: 1, seed: null, maxTokens: 512, systemPrompt: "", model: null },
  ...{ withProbabilities: false, theme: "system" },
};

/** A number's range. */
export interface Range {
  readonly least: number;
  readonly most: number;
  readonly isWhole: boolean;
}

/** The ranges of the numbers. */
export const SETTING_RANGES = {
  temperature: { least: 0, most: 2, isWhole: false },
  topK: { least: 0, most: 200, isWhole: true },
  topP: { least: 0.01, most: 1, isWhole: false },
  seed: { least: 0, most: 2 ** 31 - 1, isWhole: true },
  maxTokens: { least: 1, most: 4096, isWhole: true },
} as const satisfies Record<string, Range>;

/** Name of a setting that is a number. */
export type NumberSetting = keyof typeof SETTING_RANGES;

const NULLABLE: readonly NumberSetting[] = ["seed", "maxTokens"];
const THEMES: readonly ChatSettings["theme"][] = ["system", "light", "dark"];

/** Whether a value is in the range of a setting. */
export function isInRange(name: NumberSetting, value: number): boolean {
  const { least, most, isWhole } = SETTING_RANGES[name];
  return value >= least && value <= most && (!isWhole || Number.isInteger(value));
}

/** Reads settings; each value that is not as it should be becomes the default. */
export function readSettings(text: string | null): ChatSettings {
  let from: Record<string, unknown> = {};
  try {
    from = JSON.parse(text ?? "{}") ?? {};
  } catch {
    // Somebody else wrote it: the defaults hold.
  }
  const numbers = Object.keys(SETTING_RANGES).map((key) => {
    const name = key as NumberSetting;
    const value = from[name];
    const isEmpty = value === null && NULLABLE.includes(name);
    return [name, isEmpty || (typeof value === "number" && isInRange(name, value)) ? value : DEFAULT_SETTINGS[name]];
  });
  return {
    ...DEFAULT_SETTINGS,
    ...Object.fromEntries(numbers),
    systemPrompt: typeof from.systemPrompt === "string" ? from.systemPrompt : DEFAULT_SETTINGS.systemPrompt,
    model: typeof from.model === "string" ? from.model : null,
    withProbabilities: from.withProbabilities === true,
    theme: THEMES.find((theme) => theme === from.theme) ?? DEFAULT_SETTINGS.theme,
  };
}
