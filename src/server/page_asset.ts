/** The web page as the server hands it out: the file that `dev/build_page.ts` made, and a security policy that fits exactly this file. */
import { createHash } from "node:crypto";
import { assetPath } from "../native/installation.ts";

/** The page and what goes with it. */
export interface PageAsset {
  readonly html: string;
  readonly logo: string;
  /** `Content-Security-Policy` of the page: no script and no style but its own, no connection but to this server. */
  readonly policy: string;
}

/**
 * Reads the page.
 *
 * @throws {Error} where it was not made, with the command that makes it.
 */
export async function readPage(): Promise<PageAsset> {
  const path = assetPath("page");
  try {
    const [html, logo] = await Promise.all([Deno.readTextFile(path), Deno.readTextFile(assetPath("logo"))]);
    return { html, logo, policy: policyOf(html) };
  } catch (cause) {
    if (!(cause instanceof Deno.errors.NotFound)) throw cause;
    throw new Error(`Cannot open the web page: no file at ${path}; run "deno task build:page"`, { cause });
  }
}

/** Makes the policy of a page from the hashes of its scripts and styles. */
export function policyOf(html: string): string {
  const hashes = (name: string) =>
    Array.from(html.matchAll(new RegExp(`<${name}\\b[^>]*>([\\s\\S]*?)</${name}>`, "g")), ([_, content]) => {
      return `'sha256-${createHash("sha256").update(content).digest("base64")}'`;
    }).join(" ");
  return [
    "default-src 'none'",
    `script-src ${hashes("script")}`,
    `style-src ${hashes("style")}`,
    "connect-src 'self'",
    "img-src 'self' data:",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    // HTML becomes nodes only where the sanitizer's own policy let it through.
    "require-trusted-types-for 'script'",
    "trusted-types dompurify",
  ].join("; ");
}
