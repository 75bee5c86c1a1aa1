/** The key that clients must send: compared by digest, so that neither its length nor its beginning can be found out by the clock. */
import { createHash, timingSafeEqual } from "node:crypto";

const VISIBLE = /^[\x21-\x7e]+$/;
const SHORTEST = 8;
const LONGEST = 512;

/** A key of which only the digest is kept. */
export class ApiKey {
  readonly #digest: Uint8Array;

  /**
   * Takes a key.
   *
   * @throws {RangeError} where it is too short to be one, or no header can hold it; the message does not show it.
   */
  constructor(text: string) {
    if (text.length < SHORTEST || text.length > LONGEST || !VISIBLE.test(text)) {
      const is = VISIBLE.test(text)
        ? `it has ${text.length} characters`
        : "it is empty, or has blanks or other invisible characters";
      throw new RangeError(`Cannot use the key: ${is}, expected ${SHORTEST} to ${LONGEST} visible ASCII characters`);
    }
    this.#digest = digest(text);
  }

  /** Compares a header `Authorization: Bearer KEY`, in the same time whatever it holds. */
  isIn(authorization: string | undefined): boolean {
    const given = /^bearer +(\S+)$/i.exec(authorization?.trim() ?? "")?.[1] ?? ""; // linear in what a stranger sends
    return timingSafeEqual(digest(given), this.#digest);
  }
}

function digest(text: string): Uint8Array {
  return createHash("sha256").update(text).digest();
}
