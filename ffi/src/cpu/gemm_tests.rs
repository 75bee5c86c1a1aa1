//! Tests of the matrix product: every instruction set of this CPU against a plain f64 loop, and the bits it promises.

use super::convert::{bf16_from_f32, f32_from_bf16};
use super::gemm::{Product, Right, View, gemm, pack_right, packed_units, product};
use super::gemm_epilogue::{Epilogue, Output};
use super::gemm_mirror::mirror;
use super::isa::{Isa, detected};
use super::testing::seed;
use crate::abi::{DTYPE_BF16, DTYPE_F32};

/// Elements of one dtype, as the library sees them.
#[derive(Clone, Debug, PartialEq)]
enum Elements {
    F32(Vec<f32>),
    Bf16(Vec<u16>),
}

impl Elements {
    fn new(values: &[f32], dtype: i32) -> Self {
        match dtype {
            DTYPE_F32 => Elements::F32(values.to_vec()),
            _ => Elements::Bf16(values.iter().map(|&x| bf16_from_f32(x)).collect()),
        }
    }
    fn zeros(n: usize, dtype: i32) -> Self {
        Self::new(&vec![0.0; n], dtype)
    }
    fn ptr(&mut self) -> *mut u8 {
        match self {
            Elements::F32(x) => x.as_mut_ptr().cast(),
            Elements::Bf16(x) => x.as_mut_ptr().cast(),
        }
    }
    fn at(&self, i: usize) -> f32 {
        match self {
            Elements::F32(x) => x[i],
            Elements::Bf16(x) => f32_from_bf16(x[i]),
        }
    }
}

/// Deterministic values in [-1, 1).
struct Values(u64);

impl Values {
    fn new(salt: u64) -> Self {
        Values(seed() ^ salt.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        self.0 >> 33
    }
    fn size(&mut self, most: usize) -> usize {
        1 + self.next() as usize % most
    }
    fn take(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| (self.next() % 2048) as f32 / 1024.0 - 1.0).collect()
    }
}

fn isas() -> impl Iterator<Item = Isa> {
    Isa::ALL.into_iter().filter(|&isa| isa <= detected())
}

/// Largest error allowed for a sum of k products of values in [-1, 1), rounded to dtype.
fn tolerance(k: usize, dtype: i32, size: f64) -> f64 {
    let sum = 2.0 * f64::from(f32::EPSILON) * (k as f64).sqrt().max(1.0) * (k as f64).sqrt().max(1.0);
    sum + if dtype == DTYPE_BF16 { size.abs() / 128.0 } else { f64::from(f32::EPSILON) * size.abs() * 4.0 }
}

const DTYPES: [i32; 2] = [DTYPE_F32, DTYPE_BF16];

/// A stored matrix of logical shape rows x columns, possibly transposed in memory and with gaps between its lines.
struct Stored {
    elements: Elements,
    rs: usize,
    cs: usize,
}

impl Stored {
    fn new(values: &mut Values, rows: usize, columns: usize, dtype: i32) -> Self {
        let gap = values.size(4) - 1;
        let (rs, cs, n) = match values.size(3) {
            1 => (columns + gap, 1, (rows - 1) * (columns + gap) + columns),
            2 => (1, rows + gap, (columns - 1) * (rows + gap) + rows),
            _ => (2 * columns + gap, 2, (rows - 1) * (2 * columns + gap) + 2 * columns - 1),
        };
        Stored { elements: Elements::new(&values.take(n), dtype), rs, cs }
    }
    fn view(&mut self) -> View {
        let dtype = if matches!(self.elements, Elements::F32(_)) { DTYPE_F32 } else { DTYPE_BF16 };
        View { ptr: self.elements.ptr(), rs: self.rs as isize, cs: self.cs as isize, dtype }
    }
    fn at(&self, i: usize, j: usize) -> f32 {
        self.elements.at(i * self.rs + j * self.cs)
    }
}

fn sum(a: &Stored, b: &Stored, i: usize, j: usize, k: usize, relu2: bool) -> f64 {
    let map = |x: f32| if relu2 { f64::from(x.max(0.0)).powi(2) } else { f64::from(x) };
    (0..k).map(|p| f64::from(a.at(i, p)) * map(b.at(p, j))).sum()
}

#[test]
fn product_equals_the_plain_loop_for_odd_sizes_strides_and_dtypes() {
    let mut values = Values::new(1);
    for round in 0..60 {
        // every fourth product has a depth that needs several blocks of sums
        let (m, n) = (values.size(70), values.size(70));
        let k = if round % 4 == 0 { 500 + values.size(800) } else { values.size(70) };
        let (da, db, dc) = (DTYPES[values.size(2) - 1], DTYPES[values.size(2) - 1], DTYPES[values.size(2) - 1]);
        let (mut a, mut b) = (Stored::new(&mut values, m, k, da), Stored::new(&mut values, k, n, db));
        let (accumulate, relu2) = (values.size(2) == 1, values.size(4) == 1);
        let ld = n + values.size(3) - 1;
        let old = values.take(m * ld);
        for isa in isas() {
            let mut c = Elements::new(&old, dc);
            let before = c.clone();
            let output = Output { ptr: c.ptr(), ld, dtype: dc };
            let b_view = Right::View { view: b.view(), relu2 };
            let epilogue = Epilogue::Plain { accumulate };
            let p = Product { m, n, k, a: a.view(), b: b_view, c: output, epilogue, symmetric: false };
            unsafe { product(isa, &p) };
            for i in 0..m {
                for j in 0..ld {
                    let actual = f64::from(c.at(i * ld + j));
                    if j >= n {
                        assert_eq!(c.at(i * ld + j), before.at(i * ld + j), "gap ({i}, {j})");
                        continue;
                    }
                    let expected =
                        sum(&a, &b, i, j, k, relu2) + if accumulate { f64::from(before.at(i * ld + j)) } else { 0.0 };
                    // squares are rounded to bf16 when they are packed as pairs
                    let squares = if relu2 && db == DTYPE_BF16 { (k as f64).sqrt() / 128.0 } else { 0.0 };
                    let allowed = tolerance(k, dc, expected) + squares;
                    assert!(
                        (actual - expected).abs() <= allowed,
                        "{} {m}x{n}x{k} dtypes {da} {db} {dc} at ({i}, {j}): {actual}, expected {expected}",
                        isa.name()
                    );
                }
            }
        }
    }
}

#[test]
fn product_without_depth_is_zero() {
    for isa in isas() {
        for dtype in DTYPES {
            let mut c = Elements::new(&[3.0; 6], dtype);
            let mut empty = Elements::zeros(0, dtype);
            let view = View::rows(empty.ptr(), 0, dtype);
            let output = Output { ptr: c.ptr(), ld: 3, dtype };
            let epilogue = Epilogue::Plain { accumulate: false };
            let b = Right::View { view, relu2: false };
            unsafe { product(isa, &Product { m: 2, n: 3, k: 0, a: view, b, c: output, epilogue, symmetric: false }) };
            assert_eq!(c, Elements::zeros(6, dtype));
        }
    }
}

#[test]
fn epilogues_equal_the_plain_loop() {
    let mut values = Values::new(2);
    for dtype in DTYPES {
        for (m, n, k) in [(1, 1, 1), (5, 40, 30), (25, 33, 600), (14, 70, 1030)] {
            let (mut a, mut b) = (Stored::new(&mut values, m, k, dtype), Stored::new(&mut values, k, n, dtype));
            let other = Elements::new(&values.take(m * n), dtype);
            let old = Elements::new(&values.take(m * n), dtype);
            for isa in isas() {
                for kind in 0..6 {
                    let (mut c, mut aux) = (old.clone(), other.clone());
                    let epilogue = match kind {
                        0 => Epilogue::Residual { residual: aux.ptr() },
                        1 => Epilogue::Relu2 { aux: aux.ptr() },
                        2 => Epilogue::Relu2 { aux: std::ptr::null_mut() },
                        3 => Epilogue::Relu2Backward { aux: aux.ptr(), accumulate: false },
                        4 => Epilogue::Relu2Backward { aux: aux.ptr(), accumulate: true },
                        _ => Epilogue::Blend { beta: -1.5, addend: aux.ptr() },
                    };
                    let b_view = Right::View { view: b.view(), relu2: false };
                    let output = Output { ptr: c.ptr(), ld: n, dtype };
                    let p = Product { m, n, k, a: a.view(), b: b_view, c: output, epilogue, symmetric: false };
                    unsafe { product(isa, &p) };
                    for at in 0..m * n {
                        let h = sum(&a, &b, at / n, at % n, k, false);
                        let (x, y) = (f64::from(other.at(at)), f64::from(old.at(at)));
                        let (expected, slope) = match kind {
                            0 => (h + x, 1.0),
                            1 | 2 => (h.max(0.0).powi(2), 2.0 * h.abs() + 1.0),
                            3 => (h * 2.0 * x.max(0.0), 2.0),
                            4 => (h * 2.0 * x.max(0.0) + y, 2.0),
                            _ => (-1.5 * x + h, 1.0),
                        };
                        let allowed = slope * tolerance(k, dtype, h.abs() + x.abs() + y.abs());
                        let actual = f64::from(c.at(at));
                        let place = format!("{} kind {kind} dtype {dtype} {m}x{n}x{k} at {at}", isa.name());
                        assert!((actual - expected).abs() <= allowed, "{place}: {actual}, expected {expected}");
                        if kind == 1 {
                            let aux = f64::from(aux.at(at));
                            assert!((aux - h).abs() <= tolerance(k, dtype, h), "{place}: aux {aux}, expected {h}");
                        } else {
                            assert_eq!(aux.at(at), other.at(at), "{place}: aux is an input");
                        }
                    }
                }
            }
        }
    }
}

/// Runs C = A B with C of `dtype` on a pool of `threads`.
fn on_pool(threads: usize, isa: Isa, m: usize, n: usize, k: usize, a: View, b: Right, dtype: i32) -> Elements {
    let mut c = Elements::zeros(m * n, dtype);
    let output = Output { ptr: c.ptr(), ld: n, dtype };
    let epilogue = Epilogue::Plain { accumulate: false };
    let p = Product { m, n, k, a, b, c: output, epilogue, symmetric: false };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| unsafe { product(isa, &p) });
    c
}

#[test]
fn bits_do_not_depend_on_threads_rows_or_layout() {
    let mut values = Values::new(3);
    for dtype in DTYPES {
        // The last one needs several passes over k, with sums kept between them for bf16.
        for (m, n, k) in [(100, 300, 700), (40, 70, 9000)] {
            let (mut x, mut w) = (Elements::new(&values.take(m * k), dtype), Elements::new(&values.take(n * k), dtype));
            let a = View::rows(x.ptr(), k, dtype);
            let view = View::rows(w.ptr(), k, dtype).transposed();
            let rows = Right::View { view, relu2: false };
            for isa in isas() {
                let mut packed = vec![0u32; packed_units(isa, k, n, dtype)];
                unsafe { pack_right(isa, packed.as_mut_ptr(), view, k, n, dtype) };
                let prepacked = Right::Packed { ptr: packed.as_ptr(), dtype };
                for c_dtype in DTYPES {
                    let expected = on_pool(1, isa, m, n, k, a, rows, c_dtype);
                    for threads in [2, 3] {
                        assert_eq!(on_pool(threads, isa, m, n, k, a, rows, c_dtype), expected, "{threads} threads");
                    }
                    for count in [1, 2, 3, 5, 7, 13, 16, 25, m] {
                        for b in [rows, prepacked] {
                            let y = on_pool(2, isa, count, n, k, a, b, c_dtype);
                            for at in 0..count * n {
                                assert_eq!(y.at(at), expected.at(at), "{} with {count} rows at {at}", isa.name());
                            }
                        }
                    }
                    // columns taken alone
                    let columns = on_pool(2, isa, m, 3, k, a, rows, c_dtype);
                    for at in 0..m * 3 {
                        assert_eq!(columns.at(at), expected.at(at / 3 * n + at % 3), "3 columns at {at}");
                    }
                }
            }
        }
    }
}

#[test]
fn symmetric_product_with_mirror_equals_the_full_one() {
    let mut values = Values::new(4);
    for dtype in DTYPES {
        for (m, k) in [(1, 5), (70, 40), (131, 300)] {
            let mut x = Elements::new(&values.take(m * k), dtype);
            let a = View::rows(x.ptr(), k, dtype);
            let b = Right::View { view: a.transposed(), relu2: false };
            for isa in isas() {
                let full = on_pool(2, isa, m, m, k, a, b, dtype);
                let mut c = Elements::zeros(m * m, dtype);
                let output = Output { ptr: c.ptr(), ld: m, dtype };
                let epilogue = Epilogue::Plain { accumulate: false };
                unsafe {
                    product(isa, &Product { m, n: m, k, a, b, c: output, epilogue, symmetric: true });
                    mirror(isa, &output, m);
                }
                assert_eq!(c, full, "{} {m}x{k}", isa.name());
            }
        }
    }
}

#[test]
fn gemm_called_from_many_tasks_at_once_keeps_its_scratch_apart() {
    use rayon::prelude::*;
    let mut values = Values::new(5);
    let (m, n, k) = (60, 90, 300);
    let mut x = Elements::new(&values.take(m * k), DTYPE_F32);
    let mut w = Elements::new(&values.take(k * n), DTYPE_F32);
    let (x, w) = (x.ptr() as usize, w.ptr() as usize);
    let run = || {
        let mut c = vec![0f32; m * n];
        let a = View::rows(x as *const u8, k, DTYPE_F32);
        let b = View::rows(w as *const u8, n, DTYPE_F32);
        unsafe { gemm(c.as_mut_ptr().cast(), DTYPE_F32, n, a, b, m, n, k, false) };
        c
    };
    let expected = run();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    pool.install(|| (0..64).into_par_iter().for_each(|i| assert_eq!(run(), expected, "product {i}")));
}
