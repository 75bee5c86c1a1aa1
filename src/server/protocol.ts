/**
 * What the pool and a worker tell each other. Messages are copied from thread to thread, in order; each is about the model that the worker
 * holds, one at a time. Ids are the pool's.
 */
import type { LoadOptions } from "../engine/load.ts";
import type { ChosenModel } from "../model/models.ts";
import type { GenerationEvent, GenerationRequest, ServiceErrorCode } from "./models.ts";

/** How a model is run. */
export interface RunOptions extends Pick<LoadOptions, "deviceType" | "index" | "dtype" | "quantize"> {
  /** CPU threads; 0 = physical cores that the process may use, less one for HTTP. */
  readonly threads?: number;
  /** Answers that are generated at once; 0 = what suits memory. */
  readonly rows?: number;
  /** Ended answers that are kept for prompts which begin like them; as many as there are rows. */
  readonly cacheRows?: number;
}

/** What a worker is told. */
export type ToWorker =
  /** Opens a model; it closes the one before. */
  | { readonly type: "open"; readonly chosen: ChosenModel; readonly options: RunOptions }
  | { readonly type: "generate"; readonly id: number; readonly request: GenerationRequest }
  | { readonly type: "tokenize"; readonly id: number; readonly text: string }
  | { readonly type: "detokenize"; readonly id: number; readonly ids: readonly number[] }
  | { readonly type: "cancel"; readonly id: number }
  /** Frees the model and ends the thread. */
  | { readonly type: "close" };

/** What a worker tells. */
export type FromWorker =
  | { readonly type: "opened"; readonly rows: number }
  /** What a step brought: events by request, and the tokens among them. */
  | {
    readonly type: "step";
    readonly events: readonly (readonly [id: number, events: readonly GenerationEvent[]])[];
    readonly tokens: number;
  }
  | { readonly type: "result"; readonly id: number; readonly value: string | readonly number[] }
  | { readonly type: "refused"; readonly id: number; readonly code: ServiceErrorCode; readonly message: string }
  /** The model cannot go on; the worker holds none until the next "open". */
  | { readonly type: "failed"; readonly message: string }
  | { readonly type: "closed" };
