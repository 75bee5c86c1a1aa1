/** SIGINT and SIGTERM: the first asks the work to finish its step and save, the second one stops at once. */

/** Exit codes of the program. */
export const EXIT = {
  DONE: 0,
  FAILED: 1,
  USAGE: 2,
  REFUSED: 3,
  STOPPED: 75,
  STOPPED_AT_ONCE: 130,
  KILLED: 143,
} as const;

/** A pending or arrived request to stop. */
export interface StopRequest extends Disposable {
  /** Aborts at the first signal. */
  readonly signal: AbortSignal;
}

/** What happens beside the abort. */
export interface StopHandlers {
  /** Called at the first signal with its name. */
  first(signal: Deno.Signal): void;
  /** Called at the second one; does not return in the program. */
  second(signal: Deno.Signal): void;
}

/** Listens for SIGINT and SIGTERM until disposed. */
export function listenForStop({ first, second }: StopHandlers): StopRequest {
  const controller = new AbortController();
  const signals: Deno.Signal[] = ["SIGINT", "SIGTERM"];
  const listeners = signals.map((name) => () => {
    if (controller.signal.aborted) return second(name);
    first(name);
    controller.abort(name);
  });
  signals.forEach((name, i) => Deno.addSignalListener(name, listeners[i]));
  return {
    signal: controller.signal,
    [Symbol.dispose]: () => signals.forEach((name, i) => Deno.removeSignalListener(name, listeners[i])),
  };
}
