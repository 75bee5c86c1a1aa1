/** Conversations between the page and the person's files. */
import type { Conversation } from "./chat.ts";
import { saveFile } from "./dom.ts";
import { toast } from "./notices.ts";
import type { Store } from "./store.ts";
import { exportText, importText, MAX_IMPORT_BYTES } from "./transfer.ts";

/** Hands conversations to the person as a file. */
export function exportFile(conversations: readonly Conversation[]): void {
  if (conversations.length === 0) return toast("There is no conversation to export yet.");
  const day = new Date().toISOString().slice(0, 10);
  saveFile(`nanochat-${day}.json`, exportText(conversations));
}

/** Takes the conversations of a file, or says why not. */
export async function importFile(file: File, store: Store): Promise<void> {
  try {
    if (file.size > MAX_IMPORT_BYTES) throw new RangeError("Cannot import the file: it is larger than 64 MiB");
    const conversations = importText(await file.text());
    await store.add(conversations);
    const { length } = conversations;
    toast(length === 1 ? "One conversation imported." : `${length} conversations imported.`);
  } catch (error) {
    toast((error as Error).message);
  }
}
