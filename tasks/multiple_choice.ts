/**
 * Multiple-choice questions: how they are shown, and what every task of that kind shares.
 *
 * The letter stands behind the choice and without a blank, so that the prompt shows the same token that the answer must be
 * (nanochat tasks/common.py).
 */
import type { Conversation } from "../src/data/conversation.ts";
import type { Rows } from "../src/data/task_data.ts";
import { hubOrder, type Task } from "./task.ts";

/** A question with its letters. */
export interface MultipleChoice extends Conversation {
  /** Subject, where the data set has subjects. */
  readonly subject?: string;
  /** Letters that may be answered, in the order of the choices. */
  readonly letters: readonly string[];
}

/** A row's question in the form that all these tasks share. */
export interface Question {
  /** The question alone. */
  readonly question: string;
  /** Texts to choose from. */
  readonly choices: readonly string[];
  /** Letter of each choice. */
  readonly letters: readonly string[];
  /** Letter of the right one. */
  readonly answer: string;
  /** Subject, where the data set has subjects. */
  readonly subject?: string;
}

/** Shows a question with its choices. */
export function renderMultipleChoice({ question, choices, letters }: Omit<Question, "answer">): string {
  const lines = choices.map((choice, i) => `- ${choice}=${letters[i]}\n`).join("");
  return `Multiple Choice question: ${question}\n${lines}\nRespond only with the letter of the correct answer.`;
}

/** Gives the letters of a multiple-choice conversation. @throws {TypeError} where it has none. */
export function lettersOf(conversation: Conversation): readonly string[] {
  const { letters } = conversation as Partial<MultipleChoice>;
  if (letters === undefined) {
    throw new TypeError("Cannot judge the letter: the conversation has no letters, expected some");
  }
  return letters;
}

/** Makes a task of rows, in the order of the hub's shuffle; `read` takes a row apart. */
export function multipleChoiceTask(rows: Rows, read: (rows: Rows, index: number) => Question): Task {
  const order = hubOrder(rows.length);
  return {
    kind: "categorical",
    length: rows.length,
    conversation: (index): MultipleChoice => {
      const row = read(rows, order(index));
      const { subject, letters, answer } = row;
      const messages = [
        { role: "user", content: renderMultipleChoice(row) },
        { role: "assistant", content: answer },
      ] as const;
      return subject === undefined ? { messages, letters } : { messages, subject, letters };
    },
    evaluate: (conversation, answer) => {
      const letters = lettersOf(conversation);
      if (!letters.includes(answer)) {
        throw new RangeError(
          `Cannot judge the answer ${JSON.stringify(answer)}: expected one of ${letters.join(", ")}`,
        );
      }
      return answer === conversation.messages.at(-1)!.content;
    },
  };
}
