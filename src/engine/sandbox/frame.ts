/**
 * What a sandbox process writes: a frame (the nonce of this run and one letter for the verdict), then three sections, each a length
 * (u32, little endian) and bytes: what the program printed to stdout and stderr, and the text of its exception.
 *
 * The frame is made before the program runs. The sections are the program's own words: they are shown, and decide nothing.
 */

/** How a program ended inside the process. `timeout` is said by the parent, which also says `memory` and `error` when it must. */
export type Kind = "ok" | "timeout" | "memory" | "denied" | "assertion" | "error";

/** A verdict and what came with it. */
export interface Answer {
  readonly kind: Kind;
  /** What the program printed, cut to the cap. */
  readonly stdout: string;
  readonly stderr: string;
  /** "Type: message" of its exception; "" without one. */
  readonly error: string;
}

const KINDS: Readonly<Record<string, Kind>> = { O: "ok", A: "assertion", D: "denied", M: "memory", E: "error" };
/** Bytes of the text of an exception, as child.js caps it. */
const ERROR_CAP = 1024;

/** Letters of a nonce: 128 random bits in hexadecimal. */
export const NONCE_LENGTH = 32;

/** Makes the nonce of one run. */
export function makeNonce(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Returns the most bytes that an answer has. */
export function answerLimit(outputBytes: number): number {
  return NONCE_LENGTH + 1 + 3 * 4 + 2 * outputBytes + ERROR_CAP;
}

/** Reads all that a process wrote; undefined where it is anything but one whole answer with this nonce. */
export function readAnswer(bytes: Uint8Array, nonce: string): Answer | undefined {
  const head = new TextDecoder().decode(bytes.subarray(0, NONCE_LENGTH + 1));
  const kind = KINDS[head.slice(NONCE_LENGTH)];
  if (head.slice(0, NONCE_LENGTH) !== nonce || kind === undefined) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const texts: string[] = [];
  let at = NONCE_LENGTH + 1;
  for (let section = 0; section < 3; section++) {
    if (at + 4 > bytes.length) return undefined;
    const end = at + 4 + view.getUint32(at, true);
    if (end > bytes.length) return undefined;
    texts.push(new TextDecoder().decode(bytes.subarray(at + 4, end)));
    at = end;
  }
  const [stdout, stderr, error] = texts;
  return at === bytes.length ? { kind, stdout, stderr, error } : undefined;
}
