/**
 * Errors as clients see them: OpenAI's object `{ error: { message, type, param, code } }`, whose fields the official clients turn into
 * exceptions, and `{ detail }` of the reference's endpoint (FastAPI).
 */
import { HTTPException } from "hono/http-exception";
import type { ContentfulStatusCode } from "hono/utils/http-status";
import { ServiceError, type ServiceErrorCode } from "./models.ts";

/** An answer other than success, for whoever sent the request. */
export class ApiError extends HTTPException {
  /** A word for programs: "model_not_found". */
  readonly code: string;
  /** The parameter at fault, as a path: "messages[0].role". */
  readonly param: string | null;
  /** Further headers of the answer. */
  readonly headers: Readonly<Record<string, string>>;

  constructor(
    status: ContentfulStatusCode,
    message: string,
    { code, param = null, headers = {}, cause }: {
      code: string;
      param?: string | null;
      headers?: Readonly<Record<string, string>>;
      cause?: unknown;
    },
  ) {
    super(status, { message, cause });
    this.name = "ApiError";
    this.code = code;
    this.param = param;
    this.headers = headers;
  }
}

/** A body that the reference's endpoint cannot read: 422, with the place of the value, as FastAPI tells it. */
export class UnreadableError extends ApiError {
  /** Names and numbers from the body inwards. */
  readonly location: readonly (string | number)[];

  constructor(message: string, location: readonly (string | number)[]) {
    super(422, message, { code: "invalid_type" });
    this.name = "UnreadableError";
    this.location = location;
  }
}

/** Statuses of the reasons for which the models refuse a request. */
const STATUS: Readonly<Record<ServiceErrorCode, ContentfulStatusCode>> = {
  model_not_found: 404,
  busy: 429,
  closing: 503,
  context_length_exceeded: 400,
  invalid_value: 400,
  deadline: 504,
  failed: 500,
};

/** OpenAI's words for classes of errors. */
const TYPE: Readonly<Record<number, string>> = {
  401: "authentication_error",
  403: "permission_error",
  429: "rate_limit_error",
};

/** Converts whatever a handler threw; what was not meant for a client becomes a 500 that tells nothing of it. */
export function toApiError(error: unknown): ApiError {
  if (error instanceof ApiError) return error;
  if (error instanceof ServiceError) return fromService(error);
  if (error instanceof HTTPException) return new ApiError(error.status, error.message, { code: "http_error" });
  return new ApiError(500, "Cannot answer: the server failed, its log says why", { code: "failed", cause: error });
}

function fromService({ code, message, retryAfterSec, cause }: ServiceError): ApiError {
  const headers: Record<string, string> = {};
  if (retryAfterSec !== undefined) headers["retry-after"] = String(Math.max(1, Math.ceil(retryAfterSec)));
  // The official clients would ask again at once: the same work for the same end.
  if (code === "deadline") headers["x-should-retry"] = "false";
  return new ApiError(STATUS[code], message, {
    code: code === "busy" ? "rate_limit_exceeded" : code,
    param: code === "model_not_found" ? "model" : null,
    headers,
    cause,
  });
}

/** Gives an error in OpenAI's form. */
export function openAiError({ status, message, code, param }: ApiError): object {
  const type = TYPE[status] ?? (status < 500 ? "invalid_request_error" : "server_error");
  return { error: { message, type, param, code } };
}

/** Gives an error in the reference's form. */
export function referenceError(error: ApiError): object {
  const { message, code } = error;
  return { detail: error instanceof UnreadableError ? [{ type: code, loc: error.location, msg: message }] : message };
}
