import { assertEquals } from "@std/assert";
import { addAnswer, addPiece, addQuestion, type Conversation, newConversation, textOf } from "./chat.ts";
import { type Channel, MemoryShelf, type Shelf, Store } from "./store.ts";

/** Tabs hear each other at once. */
class TestChannels {
  readonly #heard: ((id: string) => void)[] = [];

  open(): Channel {
    let own: ((id: string) => void) | undefined;
    return {
      post: (id) => this.#heard.filter((heard) => heard !== own).forEach((heard) => heard(id)),
      listen: (heard) => {
        own = heard;
        this.#heard.push(heard);
      },
    };
  }
}

function tab(shelf: Shelf, channels = new TestChannels()) {
  const log = { changed: [] as string[], unsaved: [] as string[] };
  const listener = {
    changed: (id: string) => void log.changed.push(id),
    unsaved: (reason: string) => void log.unsaved.push(reason),
  };
  return { store: new Store(shelf, { channel: channels.open(), listener }), ...log };
}

function asked(text: string): Conversation {
  const conversation = newConversation();
  addQuestion(conversation, { text, parent: null });
  return conversation;
}

const questions = (conversation: Conversation | undefined) => conversation?.turns.map(textOf);
const settled = () => new Promise((resolve) => setTimeout(resolve));

Deno.test("Store keeps conversations for the next visit, the newest first", async () => {
  const shelf = new MemoryShelf();
  const { store } = tab(shelf);
  const [a, b] = [asked("a"), asked("b")];
  b.updated = a.updated + 1;
  await store.save(a);
  await store.save(b);
  const { store: later } = tab(shelf);
  assertEquals(await later.load(), 0);
  assertEquals(later.list().map(({ title }) => title), ["b", "a"]);
  await later.remove(a.id);
  const { store: last } = tab(shelf);
  await last.load();
  assertEquals(last.list().map(({ title }) => title), ["b"]);
});

Deno.test("two tabs that write to one conversation lose nothing", async () => {
  const [shelf, channels] = [new MemoryShelf(), new TestChannels()];
  const [one, two] = [tab(shelf, channels), tab(shelf, channels)];
  const mine = asked("first");
  await one.store.save(mine);
  await settled();
  const theirs = two.store.get(mine.id)!;
  assertEquals(questions(theirs), ["first"]);
  addQuestion(mine, { text: "of one", parent: mine.turns[0].id });
  addQuestion(theirs, { text: "of two", parent: mine.turns[0].id });
  await Promise.all([one.store.save(mine), two.store.save(theirs)]);
  await settled();
  const { store } = tab(shelf);
  await store.load();
  assertEquals(questions(store.get(mine.id))?.sort(), ["first", "of one", "of two"]);
  assertEquals(questions(theirs)?.sort(), ["first", "of one", "of two"]);
  assertEquals(two.changed.includes(mine.id), true);
});

Deno.test("an answer that grows keeps its identity through writes", async () => {
  const { store } = tab(new MemoryShelf());
  const conversation = asked("q");
  const answer = addAnswer(conversation, { parent: conversation.head!, model: "d4" });
  const writes = Array.from({ length: 5 }, (_, i) => {
    addPiece(answer, { type: "text", text: String(i) });
    return store.save(conversation);
  });
  await Promise.all(writes);
  assertEquals(conversation.turns[1] === answer, true);
  assertEquals(textOf(answer), "01234");
});

Deno.test("a removed conversation leaves the other tabs, and comes back by save()", async () => {
  const [shelf, channels] = [new MemoryShelf(), new TestChannels()];
  const [one, two] = [tab(shelf, channels), tab(shelf, channels)];
  const conversation = asked("a");
  await one.store.save(conversation);
  await settled();
  await one.store.remove(conversation.id);
  await settled();
  assertEquals([one.store.list(), two.store.list()], [[], []]);
  await one.store.save(conversation);
  await settled();
  assertEquals(two.store.list().length, 1);
});

/** A shelf that has no room while `isFull`. */
class FullShelf extends MemoryShelf {
  isFull = true;

  override update(id: string, change: (stored: Conversation | undefined) => Conversation): Promise<Conversation> {
    if (!this.isFull) return super.update(id, change);
    return Promise.reject(new DOMException("full", "QuotaExceededError"));
  }
}

Deno.test("without room conversations stay in memory, are told, and are kept later", async () => {
  const shelf = new FullShelf();
  const { store, unsaved } = tab(shelf);
  await store.save(asked("a"));
  await store.save(asked("b"));
  assertEquals(unsaved, Array(2 + 1).fill("this browser has no room left for them"));
  assertEquals([store.unsavedCount, store.list().length], [2, 2]);
  shelf.isFull = false;
  await store.retry();
  assertEquals([store.unsavedCount, unsaved.at(-1)], [0, ""]);
  assertEquals((await shelf.all()).length, 2);
});

Deno.test("load() leaves what it cannot read where it is", async () => {
  const shelf = new MemoryShelf();
  await shelf.update("broken", () => ({ id: "broken", turns: "x" }) as unknown as Conversation);
  await shelf.update("fine", () => asked("fine"));
  const { store } = tab(shelf);
  assertEquals(await store.load(), 1);
  assertEquals(store.list().map(({ title }) => title), ["fine"]);
  assertEquals((await shelf.all()).length, 2);
});

Deno.test("add() joins a conversation that is here already", async () => {
  const { store } = tab(new MemoryShelf());
  const mine = asked("a");
  await store.save(mine);
  const theirs = structuredClone(mine);
  addQuestion(theirs, { text: "more", parent: mine.turns[0].id });
  await store.add([theirs, asked("other")]);
  assertEquals(questions(mine), ["a", "more"]);
  assertEquals(store.list().length, 2);
});
