/** What the server tells of its requests: one line each, without what was said in them unless that is asked for. */
import type { Log } from "../data/log.ts";
import type { Exchange } from "./listener.ts";
import { type GenerationEvent, type GenerationRequest, type ModelService, withGenerate } from "./models.ts";

const LONGEST_PATH = 200;

/** Says who asked for what, and how it ended. */
export function exchangeLine({ address, method, path, status, id, ms, isWhole }: Exchange): string {
  const shown = path.length > LONGEST_PATH ? `${path.slice(0, LONGEST_PATH)}...` : path;
  return `${address} ${method} ${shown} ${status} in ${(ms / 1000).toFixed(2)} s${isWhole ? "" : ", cut off"} ${id}`
    .trimEnd();
}

/** Wraps a service so that the texts of its requests and answers are told too. */
export function logTexts(service: ModelService, log: Log): ModelService {
  return withGenerate(service, (request, signal) => tellTexts(service, { request, signal, log }));
}

async function* tellTexts(
  service: ModelService,
  { request, signal, log }: { request: GenerationRequest; signal: AbortSignal; log: Log },
): AsyncGenerator<GenerationEvent> {
  const answers: string[] = Array(request.choices).fill("");
  log.info(`${request.model} is asked ${JSON.stringify(request.prompt)}`);
  try {
    for await (const event of service.generate(request, signal)) {
      if (event.type === "piece") answers[event.choice] += event.text;
      yield event;
    }
  } finally {
    for (const answer of answers) log.info(`${request.model} answers ${JSON.stringify(answer)}`);
  }
}
