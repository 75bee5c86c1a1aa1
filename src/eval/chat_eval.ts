/** Evaluation of chat models (scripts/chat_eval.py of nanochat): ChatCORE = mean of (accuracy - baseline) / (1 - baseline) over the tasks. */

/** What one task came to. */
export interface ChatAccuracy {
  /** Share of right answers. */
  readonly accuracy: number;
  /** Share that guessing reaches. */
  readonly baseline: number;
}

/** Averages the accuracies of all tasks, each centred on what guessing reaches. */
export function chatCore(tasks: readonly ChatAccuracy[]): number {
  const centred = tasks.map(({ accuracy, baseline }) => (accuracy - baseline) / (1 - baseline));
  return centred.reduce((sum, value) => sum + value, 0) / centred.length;
}
