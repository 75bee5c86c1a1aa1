/**
 * The rows of the op table for attention: of whole sequences with its gradient, and over a cache, for inference.
 */
import { dtypeCode } from "./dtype.ts";
import type { Op, Tape } from "./tape.ts";
import type { Tensor } from "./tensor.ts";

const code = (x: Tensor) => dtypeCode(x.dtype);

// ---- attention -----------------------------------------------------------------------------------------------------------------------

interface AttentionArgs {
  readonly q: Tensor; // (B, T, H*D)
  readonly k: Tensor; // (B, T, G*D)
  readonly v: Tensor; // (B, T, G*D)
  readonly D: number;
  readonly lengths: Tensor | null; // (B) i32: valid tokens of each row
  readonly window: number; // query i sees keys i-window..i; -1 = all before it
}

function attentionSizes({ q, k, D }: AttentionArgs): { B: number; T: number; H: number; G: number } {
  const [B, T, width] = q.shape;
  return { B, T, H: width / D, G: k.shape[2] / D };
}

const attentionOp: Op<AttentionArgs, { o: Tensor; lse: Tensor }> = {
  forward(t, args) {
    const { B, T, H, G } = attentionSizes(args);
    const { q, k, v, D, lengths, window } = args;
    const o = t.saved(q.shape, q.dtype);
    const lse = t.saved([B, H, T], "f32");
    t.nc.attention_fwd(
      ...[t.ctx, o.pointer, lse.pointer, q.pointer, k.pointer, v.pointer, lengths?.pointer ?? null] as const,
      ...[B, T, H, G, D, window, 1 / Math.sqrt(D), code(q)] as const,
    );
    return { o, lse };
  },
  backward(t, args, { o, lse }) {
    const { B, T, H, G } = attentionSizes(args);
    const { q, k, v, D, lengths, window } = args;
    const delta = t.scratch([B, H, T], "f32");
    const targets = [q, k, v].map((x) => t.gradientTarget(x));
    if (targets.some(({ accumulate }) => accumulate)) {
      throw new Error("Cannot run attention backward: q, k or v has another consumer, expected attention alone");
    }
    const [dq, dk, dv] = targets;
    t.nc.attention_bwd(
      ...[t.ctx, dq.pointer, dk.pointer, dv.pointer, delta.pointer, t.gradient(o).pointer] as const,
      ...[q.pointer, k.pointer, v.pointer, o.pointer, lse.pointer, lengths?.pointer ?? null] as const,
      ...[B, T, H, G, D, window, 1 / Math.sqrt(D), code(q)] as const,
    );
  },
  cost(args, half) {
    const { B, T, H } = attentionSizes(args);
    const flops = 2 * B * H * T * T * args.D; // causal: half of the 4 B H T^2 D of full attention
    const bytes = 2 * (args.q.bytes + args.k.bytes);
    return half === "forward" ? { flops, bytes } : { flops: 2.5 * flops, bytes: 2.5 * bytes };
  },
};

/** Attends causally: softmax(q k^T / sqrt(D)) v per head, query head h with key/value head floor(h*G/H): (B, T, H*D). */
export function attention(
  t: Tape,
  qkv: { q: Tensor; k: Tensor; v: Tensor },
  options: { D: number; lengths?: Tensor | null; window?: number },
): Tensor {
  const { D, lengths = null, window = -1 } = options;
  return t.apply("attention", attentionOp, { ...qkv, D, lengths, window }).o;
}

// ---- attention over a cache (inference) ----------------------------------------------------------------------------------------------

/** Keys and values of one layer, (B, G, capacity, D) each, and how full each row is. */
export interface LayerCache {
  /** Keys, normalised and rotated. */
  readonly k: Tensor;
  /** Values. */
  readonly v: Tensor;
  /** (B) i32: tokens cached before this chunk. */
  readonly positions: Tensor;
  /** (B) i32: valid new tokens of this chunk; 0 = idle row. */
  readonly counts: Tensor;
}

function appendToCache(
  t: Tape,
  { k, v }: { k: Tensor; v: Tensor },
  { D, cache }: { D: number; cache: LayerCache },
): void {
  const [B, T, width] = k.shape;
  t.nc.kv_append(
    ...[t.ctx, cache.k.pointer, cache.v.pointer, k.pointer, v.pointer] as const,
    ...[cache.positions.pointer, cache.counts.pointer, B, T, width / D, D, cache.k.shape[2], code(k)] as const,
  );
}

interface CachedArgs extends AttentionArgs {
  readonly cache: LayerCache;
}

/** Up to so many queries of a key head CUDA splits the keys over the device: what one block has rows for (kernels_cu/attention_cached.cu). */
const FEW_QUERIES = 16;
/** Keys that give one partial result. */
const SPLIT_KEYS = 64;

const cachedAttentionOp: Op<CachedArgs, { o: Tensor }> = {
  forward(t, args) {
    const { B, T, H, G } = attentionSizes(args);
    const { q, k, v, D, window, cache } = args;
    const capacity = cache.k.shape[2];
    const o = t.saved(q.shape, q.dtype);
    appendToCache(t, { k, v }, { D, cache });
    const isFew = T * H / G <= FEW_QUERIES;
    const scratch = isFew ? t.scratch([B * T * H, Math.ceil(capacity / SPLIT_KEYS), D + 2], "f32") : null;
    t.nc.attention_cached_fwd(
      ...[
        t.ctx,
        o.pointer,
        q.pointer,
        cache.k.pointer,
        cache.v.pointer,
        cache.positions.pointer,
        cache.counts.pointer,
        scratch?.pointer ?? null,
      ] as const,
      ...[B, T, H, G, D, capacity, window, 1 / Math.sqrt(D), code(q)] as const,
    );
    return { o };
  },
  cost: ({ q, cache }) => ({ flops: 4 * q.size * cache.k.shape[2], bytes: 2 * cache.k.bytes }),
};

/** Appends a chunk to the cache and attends to everything cached: (B, T, H*D). Batch-invariant; no gradient. */
export function cachedAttention(
  t: Tape,
  qkv: { q: Tensor; k: Tensor; v: Tensor },
  options: { D: number; cache: LayerCache; window?: number },
): Tensor {
  const { D, cache, window = -1 } = options;
  return t.apply("attention_cached", cachedAttentionOp, { ...qkv, D, cache, lengths: null, window }).o;
}

/**
 * Fills empty cache rows with a chunk and attends to the chunk alone, with the kernel of training: twice as fast as `cachedAttention`
 * on long chunks, but the bits depend on where a prompt is cut. No gradient.
 */
export function firstAttention(
  t: Tape,
  qkv: { q: Tensor; k: Tensor; v: Tensor },
  { D, cache }: { D: number; cache: LayerCache },
): Tensor {
  appendToCache(t, qkv, { D, cache });
  return attention(t, qkv, { D, lengths: cache.counts });
}
