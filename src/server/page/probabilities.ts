/** An answer as its tokens, tinted by how sure the model was; the pointer, or the arrow keys, show what might have stood there. */
import type { TokenChance } from "./chat.ts";
import { byId, make } from "./dom.ts";

/** Steps of the tint, from sure to surprised. */
const LEVELS = [0.9, 0.6, 0.3, 0.1];

/** Writes a probability from its logarithm. */
export function percent(logprob: number): string {
  const value = 100 * Math.exp(logprob);
  if (value >= 99.95) return "100 %";
  return value >= 0.1 ? `${value.toFixed(1)} %` : "< 0.1 %";
}

/** Shows letters that are not seen otherwise. */
function visible(text: string): string {
  return text === "" ? "∅" : text.replace(/\n/g, "⏎").replace(/\t/g, "⇥").replace(/^ | $/g, "␣");
}

function levelOf({ logprob }: TokenChance): number {
  const chance = Math.exp(logprob);
  const level = LEVELS.findIndex((least) => chance >= least);
  return level < 0 ? LEVELS.length : level;
}

/** The tokens of an answer on the page. */
export class TokenView {
  readonly element = make("div", {
    class: "tokens",
    attributes: {
      tabindex: "0",
      role: "group",
      "aria-label": "Tokens with their probabilities; arrow keys go through",
    },
  });
  readonly #tokens: TokenChance[] = [];
  #chosen = -1;

  constructor() {
    this.element.addEventListener("pointerover", ({ target }) => {
      if (target instanceof HTMLElement && target !== this.element) this.#choose(this.#indexOf(target));
    });
    this.element.addEventListener("pointerleave", () => this.#choose(-1));
    this.element.addEventListener("blur", () => this.#choose(-1));
    this.element.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step === undefined) return;
      event.preventDefault();
      this.#choose(Math.min(Math.max(this.#chosen + step, 0), this.#tokens.length - 1));
    });
  }

  /** Shows the tokens of now, of which there are only ever more. */
  show(tokens: readonly TokenChance[]): void {
    for (const token of tokens.slice(this.#tokens.length)) {
      this.#tokens.push(token);
      this.element.append(make("span", { class: `token level-${levelOf(token)}`, text: token.text }));
    }
  }

  #indexOf(element: HTMLElement): number {
    return [...this.element.children].indexOf(element);
  }

  #choose(index: number): void {
    this.element.children[this.#chosen]?.classList.remove("chosen");
    this.#chosen = index;
    const element = this.element.children[index] as HTMLElement | undefined;
    element?.classList.add("chosen");
    if (element === undefined) hideTip();
    else showTip(element, this.#tokens[index]);
  }
}

function hideTip(): void {
  byId("tip").hidden = true;
}

function showTip(at: HTMLElement, token: TokenChance): void {
  const row = (text: string, logprob: number, isChosen: boolean) => {
    const bar = make("span", { class: "tip-bar" });
    bar.style.setProperty("--share", String(Math.exp(logprob)));
    return make("div", {
      class: isChosen ? "tip-row chosen" : "tip-row",
      children: [make("code", { text: visible(text) }), bar, make("span", { text: percent(logprob) })],
    });
  };
  const isListed = token.top.some(({ text }) => text === token.text);
  const rows = token.top.map(({ text, logprob }) => row(text, logprob, text === token.text));
  const tip = byId("tip");
  tip.replaceChildren(...(isListed ? rows : [row(token.text, token.logprob, true), ...rows]));
  tip.hidden = false;
  const place = at.getBoundingClientRect();
  const size = tip.getBoundingClientRect();
  const left = Math.min(Math.max(8, place.left), innerWidth - size.width - 8);
  const above = place.top - size.height - 8;
  tip.style.setProperty("left", `${left}px`);
  tip.style.setProperty("top", `${above >= 8 ? above : place.bottom + 8}px`);
}
