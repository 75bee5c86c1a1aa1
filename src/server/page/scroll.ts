/** Keeps the end of the thread in view while it grows, until the reader scrolls away from it; then only a button offers to go back. */

const NEAR_PX = 56;

/** Follows the end of a scrolled element. */
export class Follower {
  readonly #element: HTMLElement;
  readonly #button: HTMLElement;
  #follows = true;
  #lastTop = 0;

  /** Watches the element; the button is shown where its end is out of view. */
  constructor(element: HTMLElement, button: HTMLElement) {
    this.#element = element;
    this.#button = button;
    element.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    // The wheel speaks before the scroll event: a reader who turns it upwards wins over text that comes in the same frame.
    element.addEventListener("wheel", ({ deltaY }) => deltaY < 0 && this.#leave(), { passive: true });
    button.addEventListener("click", () => this.toEnd());
    new ResizeObserver(() => this.grew()).observe(element);
  }

  /** The content grew, or the window changed. */
  grew(): void {
    if (this.#follows) this.#element.scrollTop = this.#element.scrollHeight;
    this.#show();
  }

  /** Goes to the end and stays there. */
  toEnd(): void {
    this.#follows = true;
    this.grew();
  }

  #gap(): number {
    const { scrollHeight, scrollTop, clientHeight } = this.#element;
    return scrollHeight - scrollTop - clientHeight;
  }

  #leave(): void {
    if (this.#element.scrollHeight > this.#element.clientHeight) this.#follows = false;
  }

  #scrolled(): void {
    const top = this.#element.scrollTop;
    if (this.#gap() < NEAR_PX) this.#follows = true;
    else if (top < this.#lastTop) this.#follows = false;
    this.#lastTop = top;
    this.#show();
  }

  #show(): void {
    this.#button.hidden = this.#follows || this.#gap() < NEAR_PX;
  }
}
