/** The browser that tests of the web page use: a Chromium of this machine, without a window. */
import { join } from "@std/path";
import { type Browser, chromium } from "playwright-core";

/** Installs what the tests need; the fonts are for pictures. */
export const INSTALL_BROWSER =
  "apt-get install -y --no-install-recommends chromium fonts-dejavu-core fonts-noto-color-emoji";

const NAMES = ["chromium", "chromium-browser", "google-chrome"];
const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"];

/** Finds the browser; undefined where there is none. */
export function findBrowser(): string | undefined {
  const folders = (Deno.env.get("PATH") ?? "").split(":");
  return NAMES.flatMap((name) => folders.map((folder) => join(folder, name))).find((path) => {
    try {
      return Deno.statSync(path).isFile;
    } catch {
      return false;
    }
  });
}

/**
 * Starts the browser.
 *
 * @throws {Error} where there is none, with the command that installs it.
 */
export function startBrowser(): Promise<Browser> {
  const executablePath = findBrowser();
  if (executablePath === undefined) {
    throw new Error(`Cannot open the page: no Chromium on the PATH; install it with: ${INSTALL_BROWSER}`);
  }
  const args = [...FLAGS, "--disable-component-update", "--no-first-run"];
  return chromium.launch({ executablePath, headless: true, args });
}
