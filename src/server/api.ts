/** What the handlers of all endpoints share: what they answer with, and how they read a request. */
import type { Context } from "hono";
import { ApiError } from "./errors.ts";
import type { ModelService } from "./models.ts";
import type { GenerationDefaults } from "./openai_request.ts";
import type { PageAsset } from "./page_asset.ts";
import type { Clock } from "./sse.ts";

/** What the endpoints answer with. */
export interface Api {
  readonly service: ModelService;
  readonly defaults: GenerationDefaults;
  /** Puts the calls of tools into the content too. */
  readonly showTools: boolean;
  /** Time that a request may take. */
  readonly deadlineMs?: number;
  /** The web page and the picture beside it, as files. */
  readonly page: PageAsset;
  /** Names of the devices that generate: "cpu". */
  readonly devices: readonly string[];
  /** Version of the program. */
  readonly version: string;
  /** Writes the figures of the server as Prometheus reads them. */
  readonly metrics: () => string;
  readonly clock: Clock;
  /** Hears of failures that a client is told nothing of. */
  readonly onFailure: (error: unknown) => void;
}

/**
 * Reads the body of a request.
 *
 * @throws {ApiError} 400 where it is no JSON in UTF-8.
 */
export async function readJson(c: Context): Promise<unknown> {
  const bytes = await c.req.arrayBuffer();
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (error) {
    const problem = error instanceof SyntaxError ? "the body is no valid JSON" : "the body is not UTF-8";
    throw new ApiError(400, `Cannot read the request: ${problem}, expected an object in JSON`, {
      code: "invalid_json",
    });
  }
}

/** Makes the controller of a request's work: it also ends where the client goes. */
export function requestAbort(c: Context): { abort: AbortController; signal: AbortSignal } {
  const abort = new AbortController();
  return { abort, signal: AbortSignal.any([c.req.raw.signal, abort.signal]) };
}
