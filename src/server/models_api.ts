/** What models there are, as OpenAI lists them, and their tokenizers: `GET /v1/models`, `POST /tokenize`, `POST /detokenize`. */
import type { Context } from "hono";
import { type Api, readJson } from "./api.ts";
import type { ModelInfo } from "./models.ts";
import { findModel } from "./openai_request.ts";
import { DETOKENIZE_PARAMETERS, readParameters, TOKENIZE_PARAMETERS } from "./parameters.ts";

/** Lists the models; the first answers where a request names none. */
export function listModels(c: Context, { service }: Api): Response {
  return c.json({ object: "list", data: service.list().map(describeModel) });
}

/** Describes one model. @throws {ApiError} 404 with the list. */
export function getModel(c: Context, { service }: Api): Response {
  return c.json(describeModel(findModel(service, c.req.param("id"))));
}

function describeModel(model: ModelInfo): object {
  return {
    id: model.id,
    object: "model",
    created: model.created,
    owned_by: "nanochat",
    nanochat: {
      stage: model.stage,
      step: model.step,
      parameters: model.parameters,
      vocab_size: model.vocabSize,
      context_length: model.contextLen,
      completes: model.completes,
      is_loaded: model.isLoaded,
    },
  };
}

/** Encodes a text. @throws {ApiError | ServiceError} */
export async function tokenize(c: Context, { service }: Api): Promise<Response> {
  const { body } = readParameters<{ model?: string; prompt: string }>(await readJson(c), TOKENIZE_PARAMETERS);
  const model = findModel(service, body.model);
  const tokens = await service.tokenize(model.id, body.prompt);
  return c.json({ tokens, count: tokens.length, max_model_len: model.contextLen });
}

/** Decodes token ids. @throws {ApiError | ServiceError} also where an id is not in the vocabulary. */
export async function detokenize(c: Context, { service }: Api): Promise<Response> {
  const { body } = readParameters<{ model?: string; tokens: number[] }>(await readJson(c), DETOKENIZE_PARAMETERS);
  return c.json({ prompt: await service.detokenize(findModel(service, body.model).id, body.tokens) });
}
