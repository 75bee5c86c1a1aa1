//! Newton-Schulz orthogonalisation, the heart of Muon: O = U V^T of X = U S V^T, roughly (singular values end near 1).
//!
//!   X = X / (|X|_F + 1e-7);  repeat: A = X X^T, B = b A + (c A) A, X = a X + B X
//!
//! (a, b, c) = (3.4445, -4.7750, 2.0315) is the quintic of nanochat/muon.py. A matrix with more rows than columns uses A = X^T X and
//! X = a X + X B, which is the same on the transposed matrix; so nothing is ever transposed in memory. A and B are symmetric: one triangle
//! is computed. bf16 rounds after every operation, as PyTorch does; products sum in fp32.
//!
//! Every X is a polynomial of G = X X^T times the first X, and these polynomials commute. So long bf16 matrices (n >= 4 m) iterate on
//! m x m matrices alone, and meet X twice: P = a I + b G + c G^2, Q = P Q, G = P P G; in the end O = Q X. That takes 0.45 of the work at
//! n = 4 m. Small eigenvalues of G grow by a^2 a step, and so do errors in them, hence G and Q are f32; rounding X and O is then all that
//! bf16 costs. f32 matrices keep the first form, which is the more exact one.

use crate::abi::{DTYPE_BF16, DTYPE_F32};
use crate::context::Context;
use crate::cpu::convert::{bf16_from_f32, f32_from_bf16};
use crate::cpu::gemm::{Product, Right, View, product};
use crate::cpu::gemm_epilogue::{Epilogue, Output};
use crate::cpu::gemm_mirror::mirror;
use crate::cpu::isa::{by_isa, isa};
use crate::guard::{Error, entry};
use crate::memory::{count, element_bytes};
use rayon::prelude::*;
use std::ffi::c_void;

const A: f32 = 3.4445;
const B: f32 = -4.7750;
const C: f32 = 2.0315;
const EPS: f32 = 1e-7;
/// Lengths, in widths, from which a bf16 matrix is orthogonalised through its Gram matrix.
const LONG: usize = 4;
/// Matrices up to this width are worked on side by side, larger ones one after the other with all threads.
const SIDE_BY_SIDE: usize = 512;

/// What one matrix needs; addresses, because tasks carry it between threads.
#[derive(Clone, Copy)]
struct Matrix {
    o: usize,
    x: usize,
    scratch: usize,
    rows: usize,
    cols: usize,
    dtype: i32,
}

impl Matrix {
    /// # Safety
    /// o, x have rows * cols elements, scratch m * n + 2 * m * m of them; only o may be x.
    unsafe fn orthogonalize(self, steps: usize) {
        let Matrix { rows, cols, dtype, .. } = self;
        if dtype == DTYPE_BF16 && rows.max(cols) >= LONG * rows.min(cols) && steps > 0 {
            // SAFETY: by contract.
            return unsafe { self.orthogonalize_by_gram(steps) };
        }
        let bytes = if dtype == DTYPE_F32 { 4 } else { 2 };
        let (m, n) = (rows.min(cols), rows.max(cols));
        let other = self.scratch as *mut u8;
        // The two buffers of X take turns so that the last step writes o.
        let (mut x, mut next) =
            if steps.is_multiple_of(2) { (self.o as *mut u8, other) } else { (other, self.o as *mut u8) };
        // SAFETY: by contract all parts exist and are disjoint, except that o may be x, which is read only by `normalize`.
        unsafe {
            let a = other.add(m * n * bytes);
            let b = a.add(m * m * bytes);
            self.normalize(x);
            for _ in 0..steps {
                let square = |ptr| Output { ptr, ld: m, dtype };
                let view = View::rows(x, cols, dtype);
                let (left, right) = if rows <= cols { (view, view.transposed()) } else { (view.transposed(), view) };
                multiply(left, right, square(a), (m, m, n), Epilogue::Plain { accumulate: false }, true);
                scale(next, a, m * m, dtype);
                let (left, right) = (View::rows(next, m, dtype), View::rows(a, m, dtype));
                multiply(left, right, square(b), (m, m, m), Epilogue::Blend { beta: B, addend: a }, true);
                let factor = View::rows(b, m, dtype);
                let (left, right) = if rows <= cols { (factor, view) } else { (view, factor) };
                let result = Output { ptr: next, ld: cols, dtype };
                multiply(left, right, result, (rows, cols, m), Epilogue::Blend { beta: A, addend: x }, false);
                std::mem::swap(&mut x, &mut next);
            }
        }
    }

    /// The same for a long bf16 matrix.
    ///
    /// # Safety
    /// As `orthogonalize`; m * n >= 4 * m * m, so that four f32 squares and a bf16 X fit the scratch.
    unsafe fn orthogonalize_by_gram(self, steps: usize) {
        let Matrix { rows, cols, .. } = self;
        let m = rows.min(cols);
        // SAFETY: by contract the parts are disjoint, and none is o or x.
        unsafe {
            let [g, mut q, mut p, mut spare] = [0, 1, 2, 3].map(|i| (self.scratch as *mut f32).add(i * m * m));
            let x = (self.scratch as *mut f32).add(4 * m * m).cast::<u8>();
            self.normalize(x);
            let square = |ptr: *mut f32| Output { ptr: ptr.cast(), ld: m, dtype: DTYPE_F32 };
            let view = |ptr: *mut f32| View::rows(ptr.cast(), m, DTYPE_F32);
            let plain = Epilogue::Plain { accumulate: false };
            let times = |y, a, b, epilogue| multiply(view(a), view(b), square(y), (m, m, m), epilogue, true);

            let long = View::rows(x, cols, DTYPE_BF16);
            let (left, right) = if rows <= cols { (long, long.transposed()) } else { (long.transposed(), long) };
            multiply(left, right, square(g), (m, m, rows.max(cols)), plain, true);
            for step in 0..steps {
                scale(spare.cast(), g.cast(), m * m, DTYPE_F32);
                times(p, spare, g, Epilogue::Blend { beta: B, addend: g.cast() });
                for i in 0..m {
                    *p.add(i * m + i) += A;
                }
                let factor = p;
                if step == 0 {
                    std::mem::swap(&mut q, &mut p);
                } else {
                    times(spare, factor, q, plain);
                    std::mem::swap(&mut q, &mut spare);
                }
                if step + 1 < steps {
                    times(spare, factor, g, plain);
                    times(g, factor, spare, plain);
                }
            }
            let (left, right) = if rows <= cols { (view(q), long) } else { (long, view(q)) };
            let o = Output { ptr: self.o as *mut u8, ld: cols, dtype: DTYPE_BF16 };
            multiply(left, right, o, (rows, cols, m), plain, false);
        }
    }

    /// y = x / (|x| + eps); y is o or the scratch.
    unsafe fn normalize(self, y: *mut u8) {
        let (n, mut x) = (self.rows * self.cols, self.x as *const u8);
        // SAFETY: by the contract of `orthogonalize`.
        unsafe {
            if y.cast_const() == x {
                x = self.scratch as *const u8;
                std::ptr::copy_nonoverlapping(
                    y,
                    self.scratch as *mut u8,
                    n * if self.dtype == DTYPE_F32 { 4 } else { 2 },
                );
            }
            if self.dtype == DTYPE_F32 {
                let divisor = norm(std::slice::from_raw_parts(x.cast::<f32>(), n), squares) + EPS;
                each(y, x, n, |y, x| divide(y, x, divisor));
            } else {
                let round = |x: f32| f32_from_bf16(bf16_from_f32(x));
                let divisor = round(round(norm(std::slice::from_raw_parts(x.cast::<u16>(), n), squares_bf16)) + EPS);
                each(y, x, n, |y, x| divide_bf16(y, x, divisor));
            }
        }
    }
}

by_isa! {
    fn divide(y: &mut [f32], x: &[f32], divisor: f32) {
        for (y, x) in y.iter_mut().zip(x) {
            *y = x / divisor;
        }
    }
}

by_isa! {
    fn divide_bf16(y: &mut [u16], x: &[u16], divisor: f32) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = bf16_from_f32(f32_from_bf16(x) / divisor);
        }
    }
}

by_isa! {
    fn multiply_by(y: &mut [f32], x: &[f32], factor: f32) {
        for (y, x) in y.iter_mut().zip(x) {
            *y = factor * x;
        }
    }
}

by_isa! {
    fn multiply_by_bf16(y: &mut [u16], x: &[u16], factor: f32) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = bf16_from_f32(factor * f32_from_bf16(x));
        }
    }
}

/// Sums of one part of a norm, each of every LANES-th element.
const LANES: usize = 8;

by_isa! {
    fn squares(x: &[f32]) -> f64 {
        let mut lanes = [0f64; LANES];
        for x in x.chunks(LANES) {
            for (lane, &x) in lanes.iter_mut().zip(x) {
                *lane += f64::from(x) * f64::from(x);
            }
        }
        lanes.iter().sum()
    }
}

by_isa! {
    fn squares_bf16(x: &[u16]) -> f64 {
        let mut lanes = [0f64; LANES];
        for x in x.chunks(LANES) {
            for (lane, &x) in lanes.iter_mut().zip(x) {
                let x = f64::from(f32_from_bf16(x));
                *lane += x * x;
            }
        }
        lanes.iter().sum()
    }
}

/// C = epilogue(A B) with sizes (m, n, k).
unsafe fn multiply(a: View, b: View, c: Output, (m, n, k): (usize, usize, usize), epilogue: Epilogue, symmetric: bool) {
    let b = Right::View { view: b, relu2: false };
    // SAFETY: by the contract of `orthogonalize`.
    unsafe {
        product(isa(), &Product { m, n, k, a, b, c, epilogue, symmetric });
        if symmetric {
            mirror(isa(), &c, m);
        }
    }
}

/// y = C x
unsafe fn scale(y: *mut u8, x: *const u8, n: usize, dtype: i32) {
    // SAFETY: by the contract of `orthogonalize`.
    unsafe {
        if dtype == DTYPE_F32 {
            each(y, x, n, |y, x| multiply_by(y, x, C));
        } else {
            each(y, x, n, |y, x| multiply_by_bf16(y, x, C));
        }
    }
}

const CHUNK: usize = 1 << 14;

/// Runs `body` on chunks of y and x.
///
/// # Safety
/// Both have n elements of type E and do not overlap; nobody else uses y.
unsafe fn each<E>(y: *mut u8, x: *const u8, n: usize, body: impl Fn(&mut [E], &[E]) + Sync + Send) {
    let (y, x) = (y as usize, x as usize);
    (0..n.div_ceil(CHUNK)).into_par_iter().for_each(|chunk| {
        let (from, length) = (chunk * CHUNK, CHUNK.min(n - chunk * CHUNK));
        // SAFETY: by contract; chunks are disjoint.
        unsafe {
            let y = std::slice::from_raw_parts_mut((y as *mut E).add(from), length);
            body(y, std::slice::from_raw_parts((x as *const E).add(from), length));
        }
    });
}

/// Frobenius norm: f64 sums of PARTS parts, added in order.
fn norm<E: Sync>(x: &[E], squares: impl Fn(&[E]) -> f64 + Sync) -> f32 {
    const PARTS: usize = 64;
    let part = x.len().div_ceil(PARTS).next_multiple_of(LANES).max(LANES);
    let mut sums = [0f64; PARTS];
    sums.par_iter_mut().zip(x.par_chunks(part)).with_min_len(8).for_each(|(sum, part)| *sum = squares(part));
    sums.iter().sum::<f64>().sqrt() as f32
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_newton_schulz(
    ctx: *mut Context,
    o: *mut c_void,
    x: *mut c_void,
    scratch: *mut c_void,
    batch: i32,
    rows: i32,
    cols: i32,
    steps: i32,
    dtype: i32,
) -> i32 {
    unsafe {
        entry(ctx, |cx| {
            if dtype != DTYPE_F32 && dtype != DTYPE_BF16 {
                let message = format!("Cannot orthogonalise: dtype {dtype}, expected f32 or bf16");
                return Err(Error::invalid(message));
            }
            let steps = count(&[steps])?;
            let (rows_u, cols_u, batch_u) = (count(&[rows])?, count(&[cols])?, count(&[batch])?);
            let small = rows.min(cols);
            let n = count(&[rows, cols])?;
            let need = n.saturating_add(count(&[small, small])?.saturating_mul(2));
            let o = cx.tensor(o, count(&[batch, rows, cols])?, dtype, "o")?;
            let x = cx.tensor(x, count(&[batch, rows, cols])?, dtype, "x")?;
            let scratch_bytes = batch_u.saturating_mul(need).saturating_mul(4).saturating_add(4096);
            let scratch = cx.memory::<f32>(scratch, scratch_bytes / 4, "scratch")?;
            let bytes = element_bytes(dtype)?;
            cx.enqueue("nc_newton_schulz", move || {
                let one = |i: usize| {
                    let at = i * n * bytes;
                    let matrix = Matrix {
                        o: o.as_ptr() as usize + at,
                        x: x.as_ptr() as usize + at,
                        scratch: scratch.as_ptr() as usize + i * need * 4,
                        rows: rows_u,
                        cols: cols_u,
                        dtype,
                    };
                    matrix.orthogonalize(steps);
                };
                if rows_u.min(cols_u) <= SIDE_BY_SIDE {
                    (0..batch_u).into_par_iter().with_max_len(1).for_each(one);
                } else {
                    (0..batch_u).for_each(one);
                }
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{Rig, from_bf16, to_bf16};
    use std::collections::HashMap;

    struct Tensor {
        shape: Vec<usize>,
        bytes: Vec<u8>,
    }

    impl Tensor {
        fn f32s(&self) -> Vec<f32> {
            self.bytes.as_chunks::<4>().0.iter().map(|&x| f32::from_le_bytes(x)).collect()
        }
        fn bf16s(&self) -> Vec<u16> {
            self.bytes.as_chunks::<2>().0.iter().map(|&x| u16::from_le_bytes(x)).collect()
        }
    }

    /// The golden file: in.X, and the reference's results bf16.X and fp32.X.
    fn golden() -> HashMap<String, Tensor> {
        let folder =
            std::env::var("NANOCHAT_GOLDEN").unwrap_or(concat!(env!("CARGO_MANIFEST_DIR"), "/../dev/golden").into());
        let file = std::fs::read(format!("{folder}/optim/newton_schulz.safetensors")).unwrap();
        let header = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        let text = std::str::from_utf8(&file[8..8 + header]).unwrap();
        let entry =
            regex::Regex::new(r#""([\w.]+)":\{"dtype":"\w+","shape":\[([\d,]*)\],"data_offsets":\[(\d+),(\d+)\]\}"#);
        let tensors: HashMap<_, _> = entry
            .unwrap()
            .captures_iter(text)
            .map(|c| {
                let shape = c[2].split(',').map(|d| d.parse().unwrap()).collect();
                let (from, to): (usize, usize) = (c[3].parse().unwrap(), c[4].parse().unwrap());
                (c[1].to_string(), Tensor { shape, bytes: file[8 + header + from..8 + header + to].to_vec() })
            })
            .collect();
        assert!(tensors.len() >= 44, "{} tensors", tensors.len());
        tensors
    }

    /// Runs the steps of nc_newton_schulz on bytes of `dtype`.
    fn run(x: &[u8], shape: &[usize], dtype: i32, steps: i32, in_place: bool) -> Vec<u8> {
        let rig = Rig::new(2);
        let [rows, cols] = shape[shape.len() - 2..] else { unreachable!() };
        let batch: usize = shape[..shape.len() - 2].iter().product();
        let (m, n) = (rows.min(cols), rows.max(cols));
        let scratch = rig.put(&vec![0u8; batch * (m * n + 2 * m * m) * 4 + 4096]);
        let input = rig.put(x);
        let output = if in_place { input } else { rig.put(&vec![0u8; x.len()]) };
        let [batch, rows, cols] = [batch, rows, cols].map(|size| size as i32);
        rig.ok(unsafe { nc_newton_schulz(rig.ctx(), output, input, scratch, batch, rows, cols, steps, dtype) });
        rig.get(output, x.len())
    }

    /// ||a - b|| / ||b||, the absolute error where b is zero.
    fn relative(a: &[f32], b: &[f32]) -> f64 {
        let square = |x: f32| f64::from(x) * f64::from(x);
        let error = a.iter().zip(b).map(|(&x, &y)| square(x - y)).sum::<f64>().sqrt();
        let size = b.iter().map(|&y| square(y)).sum::<f64>().sqrt();
        if size == 0.0 { error } else { error / size }
    }

    #[test]
    fn newton_schulz_follows_the_reference_in_both_dtypes() {
        let tensors = golden();
        let mut cases = 0;
        for (name, input) in tensors.iter().filter_map(|(name, t)| Some((name.strip_prefix("in.")?, t))) {
            let expected = tensors[&format!("fp32.{name}")].f32s();
            let bytes = run(&input.bytes, &input.shape, DTYPE_F32, 5, false);
            let actual = Tensor { shape: vec![], bytes }.f32s();
            let error = relative(&actual, &expected);
            let allowed = if name == "lowrank" { 3e-4 } else { 1e-5 };
            println!("fp32 {name} {:?}: {error:.1e} (allowed {allowed:.0e})", input.shape);
            assert!(error <= allowed, "fp32 {name}: {error:e}");
            let rounded: Vec<u8> = to_bf16(&input.f32s()).into_iter().flat_map(u16::to_le_bytes).collect();
            let actual = Tensor { shape: vec![], bytes: run(&rounded, &input.shape, DTYPE_BF16, 5, true) };
            let (actual, expected) = (from_bf16(&actual.bf16s()), from_bf16(&tensors[&format!("bf16.{name}")].bf16s()));
            let error = relative(&actual, &expected);
            println!("bf16 {name} {:?}: {error:.1e} (allowed 8e-2)", input.shape);
            if name == "lowrank" {
                assert!(actual.iter().all(|x| x.is_finite())); // directions of zero singular values are noise in bf16
            } else {
                assert!(error <= 8e-2, "bf16 {name}: {error:e}");
            }
            cases += 1;
        }
        assert_eq!(cases, 11);
    }

    #[test]
    fn newton_schulz_in_place_equals_apart_after_any_number_of_steps() {
        let x = &golden()["in.wide"];
        let (m, n, long) = (8, 33, 1);
        let values: Vec<f32> = (0..m * n).map(|i| ((i * 37 + 11) % 101) as f32 / 50.0 - 1.0).collect();
        let long_bytes: Vec<u8> = to_bf16(&values).into_iter().flat_map(u16::to_le_bytes).collect();
        for steps in [0, 1, 4, 5] {
            let f32s = |in_place| run(&x.bytes, &x.shape, DTYPE_F32, steps, in_place);
            assert_eq!(f32s(true), f32s(false), "{steps} steps");
            for shape in [[long, m, n], [long, n, m]] {
                let bf16s = |in_place| run(&long_bytes, &shape, DTYPE_BF16, steps, in_place);
                assert_eq!(bf16s(true), bf16s(false), "{steps} steps of {shape:?}");
            }
        }
    }

    #[test]
    fn newton_schulz_of_long_bf16_matrices_follows_f32() {
        for (shape, steps) in [([2, 8, 32], 5), ([1, 33, 7], 5), ([3, 1, 9], 5), ([1, 40, 200], 5), ([2, 64, 16], 1)] {
            let size = shape.iter().product::<usize>();
            let values: Vec<f32> = (0..size).map(|i| ((i * i * 31 + i * 17) % 211) as f32 / 100.0 - 1.0).collect();
            let rounded = to_bf16(&values);
            let exact: Vec<u8> = from_bf16(&rounded).into_iter().flat_map(f32::to_le_bytes).collect();
            let expected = Tensor { shape: vec![], bytes: run(&exact, &shape, DTYPE_F32, steps, false) }.f32s();
            let bytes = rounded.into_iter().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
            let actual = Tensor { shape: vec![], bytes: run(&bytes, &shape, DTYPE_BF16, steps, false) };
            let error = relative(&from_bf16(&actual.bf16s()), &expected);
            assert!(error <= 8e-3, "{shape:?}: {error:.1e}"); // the two roundings to bf16, the first one amplified
        }
    }

    #[test]
    fn newton_schulz_keeps_zero_at_zero() {
        assert!(run(&[0; 4 * 8 * 12], &[1, 8, 12], DTYPE_F32, 5, false).iter().all(|&x| x == 0));
        assert!(run(&[0; 2 * 12 * 8], &[1, 12, 8], DTYPE_BF16, 5, false).iter().all(|&x| x == 0));
    }
}
