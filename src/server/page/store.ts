/**
 * The conversations of this browser, in IndexedDB. A write joins what another tab wrote meanwhile; a write that the browser refuses
 * (no room, private window) keeps the conversation in memory, says so, and is tried again with the next one: nothing is lost silently.
 */
import { type Conversation, mergeConversations } from "./chat.ts";
import { readConversation } from "./transfer.ts";

/** Where conversations lie; `update` is one transaction. */
export interface Shelf {
  all(): Promise<unknown[]>;
  get(id: string): Promise<unknown>;
  /** Replaces what is there by what `change` makes of it, and gives that. */
  update(id: string, change: (stored: Conversation | undefined) => Conversation): Promise<Conversation>;
  remove(id: string): Promise<void>;
}

/** Tells other tabs which conversation changed. */
export interface Channel {
  post(id: string): void;
  listen(heard: (id: string) => void): void;
}

/** What the store tells the page. */
export interface StoreListener {
  /** The list, or a conversation of it, changed. */
  changed(id: string): void;
  /** `unsavedCount` changed, for this reason. */
  unsaved(reason: string): void;
}

/** All conversations, newest first, with the state of the shelf behind them. */
export class Store {
  readonly #shelf: Shelf;
  readonly #channel: Channel;
  readonly #listener: StoreListener;
  readonly #conversations = new Map<string, Conversation>();
  readonly #unsaved = new Set<string>();
  /** Writes of one conversation follow each other. */
  readonly #writes = new Map<string, Promise<void>>();

  /** Makes an empty store; `load` fills it. */
  constructor(shelf: Shelf, { channel, listener }: { channel: Channel; listener: StoreListener }) {
    this.#shelf = shelf;
    this.#channel = channel;
    this.#listener = listener;
    channel.listen((id) => void this.#refresh(id).catch(() => {})); // what cannot be read stays as it is
  }

  /** Reads the shelf; what cannot be read stays there untouched. Returns how many could not. */
  async load(): Promise<number> {
    let unreadable = 0;
    for (const value of await this.#shelf.all()) {
      try {
        const conversation = readConversation(value, "a kept conversation");
        if (!this.#conversations.has(conversation.id)) this.#conversations.set(conversation.id, conversation);
      } catch {
        unreadable++;
      }
    }
    return unreadable;
  }

  /** Lists the conversations, the one that changed last first. */
  list(): Conversation[] {
    return [...this.#conversations.values()].sort((a, b) => b.updated - a.updated || (a.id < b.id ? -1 : 1));
  }

  /** Gives a conversation. */
  get(id: string): Conversation | undefined {
    return this.#conversations.get(id);
  }

  /** How many conversations are only in memory. */
  get unsavedCount(): number {
    return this.#unsaved.size;
  }

  /** Keeps a conversation, and those that could not be kept before. */
  async save(conversation: Conversation): Promise<void> {
    this.#conversations.set(conversation.id, conversation);
    await Promise.all([...new Set([...this.#unsaved, conversation.id])].map((id) => this.#write(id)));
  }

  /** Tries again to keep what could not be kept. */
  async retry(): Promise<void> {
    await Promise.all([...this.#unsaved].map((id) => this.#write(id)));
  }

  /** Removes a conversation; `save` brings it back. */
  async remove(id: string): Promise<void> {
    this.#conversations.delete(id);
    this.#forget(id);
    await this.#writes.get(id);
    await this.#shelf.remove(id).catch(() => {});
    this.#channel.post(id);
  }

  /** Takes conversations of a file; those that are here already get the turns that they lack. */
  async add(conversations: readonly Conversation[]): Promise<void> {
    for (const each of conversations) {
      const mine = this.#conversations.get(each.id);
      if (mine !== undefined) adopt(mine, mergeConversations(mine, each));
      await this.save(mine ?? { ...each, version: 0 });
    }
  }

  #write(id: string): Promise<void> {
    const write = (this.#writes.get(id) ?? Promise.resolve()).then(() => this.#writeNow(id));
    this.#writes.set(id, write);
    return write;
  }

  async #writeNow(id: string): Promise<void> {
    const mine = this.#conversations.get(id);
    if (mine === undefined) return; // removed meanwhile
    try {
      const kept = await this.#shelf.update(id, (stored) => {
        const parted = stored !== undefined && stored.version !== mine.version;
        const joined = parted ? mergeConversations(mine, stored) : mine;
        return { ...joined, version: Math.max(stored?.version ?? 0, mine.version) + 1 };
      });
      const grew = kept.turns.length > mine.turns.length;
      // Turns that were added while the transaction ran are in `mine` alone: they go with the next write.
      adopt(mine, grew ? mergeConversations(mine, kept) : mine);
      mine.version = kept.version;
      this.#forget(id);
      this.#channel.post(id);
      if (grew) this.#listener.changed(id);
    } catch (error) {
      this.#unsaved.add(id);
      this.#listener.unsaved(reasonOf(error));
    }
  }

  #forget(id: string): void {
    if (this.#unsaved.delete(id)) this.#listener.unsaved("");
  }

  /** Takes over what another tab wrote or removed. */
  async #refresh(id: string): Promise<void> {
    const value = await this.#shelf.get(id);
    const mine = this.#conversations.get(id);
    if (value === undefined) {
      if (mine !== undefined && !this.#unsaved.has(id)) this.#conversations.delete(id);
    } else {
      const stored = readConversation(value, "a kept conversation");
      if (mine === undefined) this.#conversations.set(id, stored);
      else if (stored.version > mine.version) {
        const { version } = mine; // its own next write still has to join
        adopt(mine, { ...mergeConversations(mine, stored), version });
      } else return;
    }
    this.#listener.changed(id);
  }
}

/** Gives an object that others hold the state of another one; answers that grow keep their identity. */
function adopt(mine: Conversation, state: Conversation): void {
  if (mine !== state) Object.assign(mine, state);
}

function reasonOf(error: unknown): string {
  const { name } = error as Error;
  if (name === "QuotaExceededError") return "this browser has no room left for them";
  return "this browser does not let the page keep them";
}

/** Keeps conversations while the page is open; for browsers without IndexedDB, and for tests. */
export class MemoryShelf implements Shelf {
  readonly #values = new Map<string, Conversation>();

  all(): Promise<unknown[]> {
    return Promise.resolve([...this.#values.values()].map((value) => structuredClone(value)));
  }

  get(id: string): Promise<unknown> {
    return Promise.resolve(structuredClone(this.#values.get(id)));
  }

  update(id: string, change: (stored: Conversation | undefined) => Conversation): Promise<Conversation> {
    const value = structuredClone(change(structuredClone(this.#values.get(id))));
    this.#values.set(id, value);
    return Promise.resolve(structuredClone(value));
  }

  remove(id: string): Promise<void> {
    this.#values.delete(id);
    return Promise.resolve();
  }
}

const DATABASE = "nanochat";
const TABLE = "conversations";

/** Conversations in the browser's database. */
export class DatabaseShelf implements Shelf {
  readonly #database: IDBDatabase;

  private constructor(database: IDBDatabase) {
    this.#database = database;
  }

  /** Opens the database. @throws where the browser has none or does not let us. */
  static open(): Promise<DatabaseShelf> {
    return new Promise((resolve, reject) => {
      const request = indexedDB.open(DATABASE, 1);
      request.onupgradeneeded = () => request.result.createObjectStore(TABLE, { keyPath: "id" });
      request.onsuccess = () => {
        request.result.onversionchange = () => request.result.close();
        resolve(new DatabaseShelf(request.result));
      };
      request.onerror = () => reject(request.error);
      request.onblocked = () => reject(new Error("Cannot open the database: another tab holds an older one"));
    });
  }

  all(): Promise<unknown[]> {
    return this.#transact("readonly", (table, done) => {
      const request = table.getAll();
      request.onsuccess = () => done(request.result);
    });
  }

  get(id: string): Promise<unknown> {
    return this.#transact("readonly", (table, done) => {
      const request = table.get(id);
      request.onsuccess = () => done(request.result);
    });
  }

  update(id: string, change: (stored: Conversation | undefined) => Conversation): Promise<Conversation> {
    return this.#transact("readwrite", (table, done, fail) => {
      const request = table.get(id);
      request.onsuccess = () => {
        try {
          const value = change(request.result);
          table.put(value);
          done(value);
        } catch (error) {
          fail(error);
        }
      };
    });
  }

  remove(id: string): Promise<void> {
    return this.#transact("readwrite", (table, done) => {
      table.delete(id);
      done(undefined);
    });
  }

  /** Runs a transaction; its value counts once the browser says that it is complete. */
  #transact<T>(
    mode: IDBTransactionMode,
    body: (table: IDBObjectStore, done: (value: T) => void, fail: (error: unknown) => void) => void,
  ): Promise<T> {
    return new Promise((resolve, reject) => {
      let result: T;
      const transaction = this.#database.transaction(TABLE, mode);
      transaction.oncomplete = () => resolve(result);
      transaction.onabort = () => reject(transaction.error ?? new Error("Cannot write: the browser gave up"));
      body(transaction.objectStore(TABLE), (value) => result = value, (error) => {
        reject(error);
        transaction.abort();
      });
    });
  }
}

/** Speaks to the other tabs of this page. */
export function tabChannel(): Channel {
  const channel = new BroadcastChannel(DATABASE);
  return {
    post: (id) => channel.postMessage(id),
    listen: (heard) => channel.onmessage = ({ data }) => typeof data === "string" && heard(data),
  };
}
