/** Runs the generations of one request: several prompts beside each other, their choices counted through. */
import type { GenerationEvent, GenerationRequest, ModelService } from "./models.ts";

/** What is heard of the answers to a request; an echoed prompt is a piece of each of its choices. */
export type AnswerEvent = Exclude<GenerationEvent, { type: "prompt" }>;

/** Prompts of one request that run at a time; the others wait, so that no request fills the queue. */
const PROMPTS_AT_ONCE = 8;

/**
 * Generates for every prompt; the choices of prompt i begin at i * choices.
 *
 * @throws {ServiceError} where one of them fails; the others are aborted then.
 */
export async function* generateAll(
  service: ModelService,
  requests: readonly GenerationRequest[],
  signal: AbortSignal,
): AsyncGenerator<AnswerEvent> {
  const failed = new AbortController();
  const either = AbortSignal.any([signal, failed.signal]);
  const waiting = requests.map((request, i) => numbered(service.generate(request, either), i, request.choices));
  const running = new Map<AsyncGenerator<AnswerEvent>, Promise<Step>>();
  try {
    while (waiting.length + running.size > 0) {
      while (waiting.length > 0 && running.size < PROMPTS_AT_ONCE) advance(waiting.shift()!, running);
      const { events, result } = await Promise.race(running.values());
      if (result.done) {
        running.delete(events);
      } else {
        advance(events, running);
        yield result.value;
      }
    }
  } finally {
    failed.abort();
    for (const events of running.keys()) events.return(undefined).catch(() => {});
  }
}

interface Step {
  readonly events: AsyncGenerator<AnswerEvent>;
  readonly result: IteratorResult<AnswerEvent>;
}

function advance(events: AsyncGenerator<AnswerEvent>, running: Map<AsyncGenerator<AnswerEvent>, Promise<Step>>): void {
  const step = events.next().then((result) => ({ events, result }));
  step.catch(() => {}); // told at the next race; a slow reader may be long in coming
  running.delete(events); // behind the others: each gets its turn
  running.set(events, step);
}

async function* numbered(
  events: AsyncIterable<GenerationEvent>,
  iPrompt: number,
  choices: number,
): AsyncGenerator<AnswerEvent> {
  const first = iPrompt * choices;
  for await (const event of events) {
    if (event.type === "start") yield event;
    else if (event.type !== "prompt") yield { ...event, choice: first + event.choice };
    else {
      const { text, tokens } = event;
      for (let i = 0; i < choices; i++) yield { type: "piece", choice: first + i, kind: "text", text, tokens };
    }
  }
}
