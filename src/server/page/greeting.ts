/** What an empty conversation shows, and the name of the model in the head: a base model is told to be one. */
import { button, byId, make } from "./dom.ts";
import type { Model } from "./stream.ts";

const CHAT_IDEAS = ["Who are you?", "What is 12 + 34?", "How many r are in strawberry?", "Why is the sky blue?"];
const TEXT_IDEAS = ["Once upon a time", "The capital of France is", "If yesterday was Friday, then tomorrow is"];

/** Greets for a model, undefined where it is not known yet; `choose` gets an idea that was clicked. */
export function showGreeting(model: Model | undefined, choose: (idea: string) => void): void {
  const completes = model?.completes === true;
  byId("greeting").textContent = completes ? "Begin a text" : "What is on your mind?";
  byId("greeting-note").textContent = completes
    ? `${model.id} is a base model: it knows no turns and writes on from the end of what you send.`
    : "A language model of your own, on your own machine.";
  byId("ideas").replaceChildren(
    ...(completes ? TEXT_IDEAS : CHAT_IDEAS).map((idea) =>
      make("li", { children: [button(idea, { class: "idea", click: () => choose(idea) })] })
    ),
  );
  const chip = byId("model");
  chip.hidden = model === undefined;
  chip.textContent = completes ? `${model.id} · base` : model?.id ?? "";
}
