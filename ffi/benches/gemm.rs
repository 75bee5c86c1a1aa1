//! Our matrix products beside the gemm crate (fp32), in the same process and in turns:
//! `cargo bench --features baseline --bench gemm [-- <part of a name>]`. Figures are GFLOP/s, medians (and best) of the rounds, by the
//! processor time that this process used: other work on the machine then counts as little as it can. `--wall` takes the clock.

use nanochat_cpu::convert::bf16_from_f32;
use nanochat_cpu::gemm::{Product, Right, View, gemm, pack_right, packed_units, product};
use nanochat_cpu::gemm_epilogue::{Epilogue, Output};
use nanochat_cpu::gemm_int8::{Quantised, pack_quantised, product_int8, quantised_units};
use nanochat_cpu::isa::isa;

const F32: i32 = 0;
const BF16: i32 = 1;
const ROUNDS: usize = 9;

/// rows, outputs, inputs of a linear layer.
const SHAPES: [(usize, usize, usize); 10] = [
    (1, 3072, 768),
    (16, 3072, 768),
    (16, 32768, 768),
    (4096, 256, 256),
    (4096, 1024, 256),
    (4096, 256, 1024),
    (4096, 4096, 256),
    (1024, 65536, 256),
    (2048, 768, 3072),
    (2048, 2048, 2048),
];

struct Matrix {
    f32s: Vec<f32>,
    bf16s: Vec<u16>,
    columns: usize,
}

impl Matrix {
    fn new(rows: usize, columns: usize) -> Self {
        let f32s: Vec<f32> = (0..rows * columns).map(|i| ((i * 7919) % 1031) as f32 / 512.0 - 1.0).collect();
        let bf16s = f32s.iter().map(|&x| bf16_from_f32(x)).collect();
        Matrix { f32s, bf16s, columns }
    }
    fn view(&self, dtype: i32) -> View {
        let ptr = if dtype == F32 { self.f32s.as_ptr().cast() } else { self.bf16s.as_ptr().cast() };
        View::rows(ptr, self.columns, dtype)
    }
    fn output(&mut self, dtype: i32) -> Output {
        let ptr = if dtype == F32 { self.f32s.as_mut_ptr().cast() } else { self.bf16s.as_mut_ptr().cast() };
        Output { ptr, ld: self.columns, dtype }
    }
}

/// Seconds by the clock, or of processor time divided by the threads.
fn now(wall: bool) -> f64 {
    let clock = if wall { libc::CLOCK_MONOTONIC } else { libc::CLOCK_PROCESS_CPUTIME_ID };
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one timespec.
    unsafe { libc::clock_gettime(clock, &mut time) };
    let seconds = time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9;
    if wall { seconds } else { seconds / rayon::current_num_threads() as f64 }
}

/// Runs the candidates in turns and prints median (best) of each.
fn race(name: &str, flops: f64, wall: bool, candidates: &mut [(&str, &mut dyn FnMut())]) {
    let mut times = vec![Vec::new(); candidates.len()];
    for round in 0..=ROUNDS {
        for ((_, run), times) in candidates.iter_mut().zip(&mut times) {
            let start = now(wall);
            run();
            if round > 0 {
                times.push(now(wall) - start); // round 0 warms up
            }
        }
    }
    print!("{name:28}");
    for ((label, _), times) in candidates.iter().zip(&mut times) {
        times.sort_by(f64::total_cmp);
        print!("  {label} {:4.0} ({:4.0})", flops / times[ROUNDS / 2] / 1e9, flops / times[0] / 1e9);
    }
    println!();
}

/// The gemm crate on the same views.
fn baseline(c: &Output, a: View, b: View, m: usize, n: usize, k: usize) {
    // SAFETY: the matrices have these sizes.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.ptr.cast::<f32>(),
            1,
            c.ld as isize,
            false,
            a.ptr.cast::<f32>(),
            a.cs,
            a.rs,
            b.ptr.cast::<f32>(),
            b.cs,
            b.rs,
            0.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::Rayon(0),
        );
    }
}

fn main() {
    let wanted = std::env::args().skip(1).find(|a| !a.starts_with('-')).unwrap_or_default();
    let wall = std::env::args().any(|a| a == "--wall");
    println!("isa {}, {} threads, GFLOP/s median (best) of {ROUNDS}", isa().name(), rayon::current_num_threads());
    // From a worker, as the queue calls products.
    rayon::scope(|_| {
        for (m, n, k) in SHAPES {
            let (x, w, dy) = (Matrix::new(m, k), Matrix::new(n, k), Matrix::new(m, n));
            let (mut y, mut dx, mut dw) = (Matrix::new(m, n), Matrix::new(m, k), Matrix::new(n, k));
            let flops = 2.0 * (m * n * k) as f64;
            let cases = [
                ("fwd", &x, &w, true, false, m, n, k),
                ("bwd_x", &dy, &w, false, false, m, k, n),
                ("bwd_w", &dy, &x, false, true, n, k, m),
            ];
            for (kind, a, b, b_transposed, a_transposed, rows, columns, depth) in cases {
                let name = format!("{kind} {m}x{n}x{k}");
                if !name.contains(&wanted) {
                    continue;
                }
                let a_view = |dtype| if a_transposed { a.view(dtype).transposed() } else { a.view(dtype) };
                let b_view = |dtype| if b_transposed { b.view(dtype).transposed() } else { b.view(dtype) };
                let c = match kind {
                    "fwd" => &mut y,
                    "bwd_x" => &mut dx,
                    _ => &mut dw,
                };
                // activations have the compute dtype, weight gradients are f32
                let (single, half) = (c.output(F32), if kind == "bwd_w" { c.output(F32) } else { c.output(BF16) });
                let pack = |dtype| {
                    let mut packed = vec![0u32; packed_units(isa(), depth, columns, dtype)];
                    unsafe { pack_right(isa(), packed.as_mut_ptr(), b_view(dtype), depth, columns, dtype) };
                    packed
                };
                let (packed_f32, packed_bf16) = (pack(F32), pack(BF16));
                let run = |c: Output, dtype| {
                    let (a, b) = (a_view(dtype), b_view(dtype));
                    unsafe { gemm(c.ptr, c.dtype, c.ld, a, b, rows, columns, depth, false) };
                };
                let run_packed = |c: Output, dtype, packed: &[u32]| {
                    let b = Right::Packed { ptr: packed.as_ptr(), dtype };
                    let epilogue = Epilogue::Plain { accumulate: false };
                    let (m, n, k, a) = (rows, columns, depth, a_view(dtype));
                    unsafe { product(isa(), &Product { m, n, k, a, b, c, epilogue, symmetric: false }) };
                };
                let mut quantised = vec![0u32; quantised_units(isa(), columns, depth)];
                if kind == "fwd" {
                    unsafe { pack_quantised(isa(), quantised.as_mut_ptr(), b.view(F32), columns, depth) };
                }
                let run_int8 = || {
                    let (w, epilogue) =
                        (Quantised { ptr: quantised.as_ptr(), width: columns }, Epilogue::Plain { accumulate: false });
                    unsafe { product_int8(isa(), (rows, columns, depth), a.view(F32), w, single, epilogue) };
                };
                let candidates: &mut [(&str, &mut dyn FnMut())] = &mut [
                    ("crate", &mut || baseline(&single, a_view(F32), b_view(F32), rows, columns, depth)),
                    ("f32", &mut || run(single, F32)),
                    ("f32 packed", &mut || run_packed(single, F32, &packed_f32)),
                    ("bf16", &mut || run(half, BF16)),
                    ("bf16 packed", &mut || run_packed(half, BF16, &packed_bf16)),
                    ("int8", &mut || run_int8()),
                ];
                let count = if kind == "fwd" { 6 } else { 5 };
                race(&name, flops, wall, &mut candidates[..count]);
            }
        }
    });
}
