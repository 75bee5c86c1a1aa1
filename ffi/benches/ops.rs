//! Times the tensor operations: `cargo bench --bench ops [-- threads]`. One line each: size, milliseconds (fastest of several), rate.
//!
//! The time is the process's CPU time divided by the threads, so that other programs on the machine disturb it little; idle threads
//! make it longer, never shorter.
#![allow(non_snake_case)]

use nanochat_cpu::*;
use std::ffi::c_void;
use std::ptr::null_mut;

const F32: i32 = 0;
const BF16: i32 = 1;

/// CPU time of the process so far.
fn cpu_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the answer.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

struct Bench {
    cx: Context,
}

impl Bench {
    /// Memory of n elements with small numbers (zero bits for half of them would make products too easy).
    fn tensor(&self, n: usize, dtype: i32) -> *mut c_void {
        let bytes = n * if dtype == F32 { 4 } else { 2 };
        let memory = self.cx.alloc(bytes as i64).unwrap();
        for i in 0..n {
            let x = ((i * 7919) % 1000) as f32 / 1000.0 - 0.5;
            unsafe {
                match dtype {
                    F32 => memory.cast::<f32>().add(i).write(x),
                    _ => memory.cast::<u16>().add(i).write((x.to_bits() >> 16) as u16),
                }
            }
        }
        memory
    }

    /// Fastest of `runs` after a warm-up, in seconds.
    fn time(&self, runs: usize, work: impl Fn(*mut Context) -> i32) -> f64 {
        let ctx = std::ptr::from_ref(&self.cx).cast_mut();
        (0..=runs)
            .map(|_| {
                let start = cpu_seconds();
                assert_eq!(work(ctx), 0, "{}", self.cx.error());
                self.cx.wait().unwrap();
                (cpu_seconds() - start) / self.cx.threads() as f64
            })
            .fold(f64::INFINITY, f64::min)
    }
}

fn attention(bench: &Bench, [B, T, H, G, D]: [usize; 5], dtype: i32) {
    let (nQ, nK, n) = (B * T * H * D, B * T * G * D, B * T * H);
    let [q, o, d_o, dq] = [(); 4].map(|_| bench.tensor(nQ, dtype));
    let [k, v, dk, dv] = [(); 4].map(|_| bench.tensor(nK, dtype));
    let [lse, delta] = [(); 2].map(|_| bench.tensor(n, F32));
    let [b, t, h, g, d] = [B, T, H, G, D].map(|n| n as i32);
    let scale = 1.0 / (D as f32).sqrt();
    let forward = bench
        .time(10, |ctx| unsafe { nc_attention_fwd(ctx, o, lse, q, k, v, null_mut(), b, t, h, g, d, -1, scale, dtype) });
    let backward = bench.time(10, |ctx| unsafe {
        nc_attention_bwd(ctx, dq, dk, dv, delta, d_o, q, k, v, o, lse, null_mut(), b, t, h, g, d, -1, scale, dtype)
    });
    // Pairs below the diagonal; a product is 2 D operations a pair: 2 forward, 5 backward.
    let pairs = (B * H * T * (T + 1) / 2) as f64;
    let rate = |products: f64, seconds: f64| products * 2.0 * D as f64 * pairs / seconds / 1e9;
    println!(
        "attention {} B{B} T{T} H{H} G{G} D{D}: forward {:.3} ms {:.0} GFLOP/s, backward {:.3} ms {:.0} GFLOP/s",
        if dtype == F32 { "f32 " } else { "bf16" },
        forward * 1e3,
        rate(2.0, forward),
        backward * 1e3,
        rate(5.0, backward),
    );
}

fn cached(bench: &Bench, [B, T, H, G, D]: [usize; 5], position: i32, dtype: i32) {
    let capacity = position as usize + T;
    let [q, o] = [(); 2].map(|_| bench.tensor(B * T * H * D, dtype));
    let [k, v] = [(); 2].map(|_| bench.tensor(B * G * capacity * D, dtype));
    let [positions, counts] = [(); 2].map(|_| bench.tensor(B, F32));
    for b in 0..B {
        unsafe {
            positions.cast::<i32>().add(b).write(position);
            counts.cast::<i32>().add(b).write(T as i32);
        }
    }
    let [b, t, h, g, d, c] = [B, T, H, G, D, capacity].map(|n| n as i32);
    let seconds = bench.time(20, |ctx| unsafe {
        nc_attention_cached_fwd(ctx, o, q, k, v, positions, counts, null_mut(), b, t, h, g, d, c, -1, 0.1, dtype)
    });
    let pairs = (B * H * T) as f64 * (f64::from(position) + (T as f64 + 1.0) / 2.0);
    println!(
        "cached {} B{B} T{T} H{H} G{G} D{D} after {position}: {:.3} ms {:.1} GFLOP/s",
        if dtype == F32 { "f32 " } else { "bf16" },
        seconds * 1e3,
        pairs * 4.0 * D as f64 / seconds / 1e9
    );
}

/// Ops bound by memory: bytes moved per second.
fn memory_bound(bench: &Bench, dtype: i32) {
    let (B, T, H, D) = (8, 512, 2, 128);
    let (rows, C, V) = (B * T, H * D, 65536);
    let (n, wide, size) = (rows * C, rows * C * 4, if dtype == F32 { 4 } else { 2 });
    let [x, y, dy] = [(); 3].map(|_| bench.tensor(wide, dtype));
    let [rstd, cos, sin] = [rows * H, T * D / 2, T * D / 2].map(|n| bench.tensor(n, F32));
    let (w, ids) = (bench.tensor(V * C, F32), bench.tensor(rows, F32));
    for i in 0..rows {
        unsafe { ids.cast::<i32>().add(i).write(((i * i * 31) % V) as i32) };
    }
    let [b, t, h, d, r, c] = [B, T, H, D, rows, C].map(|n| n as i32);
    let null = null_mut();
    let report = |name: &str, bytes: usize, seconds: f64| {
        let kind = if dtype == F32 { "f32 " } else { "bf16" };
        println!("{name} {kind}: {:.3} ms {:.1} GB/s", seconds * 1e3, bytes as f64 / seconds / 1e9);
    };
    unsafe {
        let seconds = bench.time(20, |ctx| nc_add(ctx, y, x, dy, wide as i64, dtype));
        report("add (4096, 1024)", 3 * wide * size, seconds);
        let seconds = bench.time(20, |ctx| nc_relu2_fwd(ctx, y, x, wide as i64, dtype));
        report("relu2 (4096, 1024)", 2 * wide * size, seconds);
        let seconds = bench.time(20, |ctx| nc_relu2_bwd(ctx, y, dy, x, wide as i64, 0, dtype));
        report("relu2 backward (4096, 1024)", 3 * wide * size, seconds);
        let seconds = bench.time(20, |ctx| nc_cast(ctx, y, w, wide as i64, BF16, F32));
        report("cast f32 to bf16 (4096, 1024)", wide * 6, seconds);
        let seconds = bench.time(20, |ctx| nc_rmsnorm_fwd(ctx, y, rstd, x, r, c, 1e-7, dtype));
        report("rmsnorm (4096, 256)", 2 * n * size, seconds);
        let seconds = bench.time(20, |ctx| nc_rmsnorm_bwd(ctx, y, dy, x, rstd, r, c, 1, dtype));
        report("rmsnorm backward, adding (4096, 256)", 4 * n * size, seconds);
        let seconds =
            bench.time(20, |ctx| nc_qk_rope_norm_fwd(ctx, y, rstd, x, cos, sin, null, b, t, h, d, t, 1e-7, 1.0, dtype));
        report("qk_rope_norm (8, 512, 2, 128)", 2 * n * size, seconds);
        let seconds = bench
            .time(20, |ctx| nc_qk_rope_norm_bwd(ctx, y, dy, x, rstd, cos, sin, null, b, t, h, d, t, 1.0, 0, dtype));
        report("qk_rope_norm backward (8, 512, 2, 128)", 3 * n * size, seconds);
        let seconds = bench.time(20, |ctx| nc_embedding_fwd(ctx, y, w, ids, r, c, V as i32, dtype, F32));
        report("embedding (4096, 256) of V 65536", n * (4 + size), seconds);
        let seconds = bench.time(20, |ctx| nc_embedding_bwd(ctx, w, dy, ids, r, c, V as i32, 1, dtype));
        report("embedding backward, adding", n * (8 + size), seconds);
        let seconds = bench.time(5, |ctx| nc_embedding_bwd(ctx, w, dy, ids, r, c, V as i32, 0, dtype));
        report("embedding backward, overwriting", n * (8 + size) + V * C * 4, seconds);
        if dtype == F32 {
            let seconds = bench.time(20, |ctx| nc_softcap_fwd(ctx, y, x, 16, 65536, 65536, 15.0, F32));
            report("softcap (16, 65536)", 16 * 65536 * 8, seconds);
        }
    }
}

fn sampling(bench: &Bench) {
    for (rows, top_k, top_p) in [(1, 0, 1.0f32), (1, 50, 1.0), (1, 0, 0.9), (16, 50, 1.0)] {
        let V = 65536;
        let logits = bench.tensor(rows * V, F32);
        let [ids, logprobs, samples, draws, temperatures, ks, ps] = [(); 7].map(|_| bench.tensor(rows, F32));
        let seeds = bench.tensor(2 * rows, F32);
        for r in 0..rows {
            unsafe {
                samples.cast::<i32>().add(r).write(0);
                draws.cast::<i32>().add(r).write(r as i32);
                temperatures.cast::<f32>().add(r).write(1.0);
                ks.cast::<i32>().add(r).write(top_k);
                ps.cast::<f32>().add(r).write(top_p);
            }
        }
        let seconds = bench.time(20, |ctx| unsafe {
            let none = std::ptr::null_mut();
            let [n, V] = [rows, V].map(|n| n as i32);
            nc_sample(
                ctx,
                ids,
                logprobs,
                logits,
                seeds,
                samples,
                draws,
                temperatures,
                ks,
                ps,
                none,
                none,
                none,
                n,
                V,
                0,
            )
        });
        println!("sample ({rows}, {V}) top-k {top_k} top-p {top_p}: {:.3} ms", seconds * 1e3);
    }
}

fn main() {
    let threads = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(0);
    let bench = Bench { cx: Context::new(threads).unwrap() };
    println!("{} threads", bench.cx.threads());
    for dtype in [F32, BF16] {
        for sizes in [[8, 512, 2, 2, 128], [8, 512, 4, 2, 64], [8, 512, 8, 8, 32], [1, 2048, 6, 6, 128]] {
            attention(&bench, sizes, dtype);
        }
        for (sizes, position) in [([1, 1, 2, 2, 128], 500), ([16, 1, 6, 6, 128], 1000), ([1, 512, 6, 6, 128], 0)] {
            cached(&bench, sizes, position, dtype);
        }
        memory_bound(&bench, dtype);
    }
    sampling(&bench);
}
