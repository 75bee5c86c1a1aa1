/** An exported model in transformers: logits, greedy tokens, tokenizer and chat template equal ours. */
import { assert, assertEquals } from "@std/assert";
import { join } from "@std/path";
import { readSafetensors } from "../../../dev/parity/parity.ts";
import { askPeer, peerTest } from "../../../dev/peers.ts";
import { ROOT } from "../../../dev/setup.ts";
import { type Conversation, renderConversation, renderForCompletion } from "../../data/conversation.ts";
import { GPT } from "../../model/gpt.ts";
import { Arena } from "../../tensor/arena.ts";
import { Tape } from "../../tensor/tape.ts";
import { fillModel, MODEL_FOLDER, withGoldenModel } from "./export_testing.ts";

const STEPS = 12;
const PROMPTS = [[491, 256, 300, 77], [491, 10, 20, 30, 40, 50], [491]];
const FP32_TOLERANCE = 3e-5; // absolute, on logits of -15 to 15: the golden data's own
const ROUNDED_TOLERANCE = 1e-2; // observed: 4.4e-3
const BF16_TOLERANCE = 0.3;

interface Judged {
  readonly class: string;
  readonly problems: string[];
  readonly dtype: string;
  readonly eps: number;
  readonly stops: number[];
  readonly logits: number[];
  readonly greedy: number[][];
  readonly ids: number[][];
  readonly decoded: string[];
  readonly conversations: number[][];
  readonly completions: number[][];
}

/** A forward pass over whole rows: logits (B, T, V). */
async function logitsOf(model: GPT, ids: Int32Array<ArrayBuffer>, shape: readonly number[]): Promise<Float32Array> {
  using arena = new Arena(model.device, 64 << 20);
  const tape = new Tape(model.device, arena, { training: false });
  const x = model.device.from(ids, [...shape], "i32");
  return await model.device.readFloats(model.logits(tape, model.forward(tape, x)));
}

async function greedyOf(model: GPT, prompt: readonly number[]): Promise<number[]> {
  const ids = [...prompt];
  for (let i = 0; i < STEPS; i++) {
    const logits = await logitsOf(model, Int32Array.from(ids), [1, ids.length]);
    const last = logits.subarray(-model.config.vocabSize);
    ids.push(last.indexOf(Math.max(...last)));
  }
  return ids.slice(prompt.length);
}

function largestDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  assertEquals(a.length, b.length);
  return Array.from(a, (x, i) => Math.abs(x - b[i])).reduce((most, x) => Math.max(most, x), 0);
}

/** Cuts a continuation behind the first token that ends it. */
function untilStop(ids: readonly number[], stops: readonly number[]): number[] {
  const end = ids.findIndex((id) => stops.includes(id));
  return ids.slice(0, end < 0 ? undefined : end + 1);
}

const isAnswered = ({ messages }: Conversation) => messages.length > 1 && messages.at(-1)!.role === "assistant";

/** Whether a template gives the very ids: no name of a special token in a text, no two text parts side by side. */
function isRenderedExactly(conversation: Conversation): boolean {
  const text = JSON.stringify(conversation);
  return !text.includes("<|") && !/"type":"text","text":"[^"]*"\},\{"type":"text"/.test(text);
}

peerTest(
  "full",
  "transformers opens an exported model and computes what ours computes",
  () =>
    withGoldenModel(async ({ model, config, device, tokenizer, weights, exported }) => {
      const io = readSafetensors(Deno.readFileSync(join(MODEL_FOLDER, "io.safetensors")));
      const { data, shape } = io.get("idx")!;
      const ids = data as Int32Array<ArrayBuffer>;
      const rows = Array.from({ length: shape[0] }, (_, b) => Array.from(ids.slice(b * shape[1], (b + 1) * shape[1])));
      const folder = join(ROOT, "dev", "golden", "tokenizer");
      const read = (name: string) => JSON.parse(Deno.readTextFileSync(join(folder, name)));
      const texts = read("encodings_tok512.json").encodings.map(({ text }: { text: string }) => text);
      const conversations: Conversation[] = read("conversations_tok500.json").conversations
        .map(({ conversation }: { conversation: Conversation }) => conversation);
      const question = { ids: rows, prompts: PROMPTS, steps: STEPS, texts };
      const messages = conversations.map(({ messages }) => messages);
      const ask = async (dtype: string) => {
        const folder = await exported("hf", `--dtype=${dtype}`);
        return await askPeer<Judged>("transformers_folder.py", { ...question, folder, conversations: messages });
      };
      const judged = await ask("fp32");
      assertEquals([judged.class, judged.problems, judged.dtype], ["NanoChatForCausalLM", [], "torch.float32"]);
      assertEquals([judged.eps, judged.stops], [2 ** -23, [495, 491]]);

      using exact = new GPT(device, config, { dtype: "f32", training: false, roundRotary: false });
      fillModel(exact, weights);
      const error = largestDifference(judged.logits, await logitsOf(exact, ids, shape));
      const rounded = largestDifference(judged.logits, await logitsOf(model, ids, shape));
      console.log(
        `logits differ by ${error.toExponential(1)}, from ours with rounded tables by ${rounded.toExponential(1)}`,
      );
      assert(error < FP32_TOLERANCE && rounded < ROUNDED_TOLERANCE, `${error}, ${rounded}`);
      assert(rounded > error, "the tables are rounded in ours alone");
      for (const [i, prompt] of PROMPTS.entries()) {
        for (const ours of [exact, model]) {
          assertEquals(judged.greedy[i], untilStop(await greedyOf(ours, prompt), judged.stops));
        }
      }
      texts.forEach((text: string, i: number) =>
        assertEquals(judged.ids[i], tokenizer.encode(text), JSON.stringify(text))
      );
      assertEquals(judged.decoded, texts);
      const answered = conversations.filter(isAnswered);
      const ours = [
        ...conversations.map((each) => renderConversation(tokenizer, each, 1e6).ids),
        ...answered.map((each) => renderForCompletion(tokenizer, each)),
      ];
      const theirs = [...judged.conversations, ...judged.completions];
      assertEquals(theirs.length, ours.length);
      const exactly = [...conversations, ...answered].map(isRenderedExactly);
      assert(exactly.filter((is) => is).length > exactly.length / 2);
      for (const [i, ids] of ours.entries()) {
        if (exactly[i]) assertEquals(theirs[i], ids, `conversation ${i}`);
        else assertEquals(tokenizer.decode(theirs[i]), tokenizer.decode(ids), `conversation ${i}`);
      }

      const half = await ask("bf16");
      assertEquals([half.problems, half.dtype], [[], "torch.bfloat16"]);
      assert(largestDifference(half.logits, judged.logits) < BF16_TOLERANCE);
    }),
);
