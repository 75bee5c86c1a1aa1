export interface DurationOptions {
  style?: "narrow" | "digital" | "full";
  ignoreZero?: boolean;
}
export declare function format(ms: number, options?: DurationOptions): string;
