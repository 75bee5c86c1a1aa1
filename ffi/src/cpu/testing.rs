//! What the tests of the operations share: a context with typed uploads and downloads, and seeded inputs.

use crate::Context;
use crate::cpu::convert::{bf16_from_f32, f32_from_bf16};
use crate::cpu::philox::philox4x32;
use crate::cpu::simd::Element;
use std::ffi::c_void;

/// A context to call C functions with. Memory lives as long as it does.
pub struct Rig {
    pub cx: Context,
}

impl Rig {
    pub fn new(threads: usize) -> Self {
        Rig { cx: Context::new(threads).unwrap() }
    }

    pub fn ctx(&self) -> *mut Context {
        std::ptr::from_ref(&self.cx).cast_mut()
    }

    /// Device memory that holds `x`.
    pub fn put<T: Copy + 'static>(&self, x: &[T]) -> *mut c_void {
        let pointer = self.cx.alloc(size_of_val(x) as i64).unwrap();
        self.cx.memory::<T>(pointer, x.len(), "x").unwrap().get_mut().copy_from_slice(x);
        pointer
    }

    /// Device memory of `n` elements that hold junk, so that an output that is not written shows.
    pub fn junk<T: Copy + 'static>(&self, n: usize) -> *mut c_void {
        self.put(&vec![0x4du8; n * size_of::<T>()])
    }

    /// What `n` elements at `pointer` hold after everything enqueued so far.
    pub fn get<T: Copy + 'static>(&self, pointer: *mut c_void, n: usize) -> Vec<T> {
        self.cx.wait().unwrap();
        self.cx.memory::<T>(pointer, n, "x").unwrap().get().to_vec()
    }

    /// Fails the test with the library's message unless the status is 0.
    pub fn ok(&self, status: i32) {
        assert_eq!(status, 0, "{}", self.cx.error());
    }

    /// The message of a call that must fail with `expected`, at once or in the queue.
    pub fn fails(&self, status: i32, expected: i32) -> String {
        let (status, message) = match (status, self.cx.wait()) {
            (0, Err(error)) => (error.status, error.message),
            (status, _) => (status, self.cx.error()),
        };
        assert_eq!(status, expected, "{message}");
        message
    }
}

/// The seed of this run's random inputs, printed for the failure report.
pub fn seed() -> u64 {
    let seed = std::env::var("NANOCHAT_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    println!("NANOCHAT_TEST_SEED={seed}");
    seed
}

/// `n` numbers in [-amplitude, amplitude); `stream` tells inputs of one test apart.
pub fn random(n: usize, stream: u32, amplitude: f32) -> Vec<f32> {
    let seed = seed();
    let key = [seed as u32, (seed >> 32) as u32];
    let number = |i: usize| (philox4x32([i as u32, stream, 3, 0], key)[0] >> 8) as f32 / 8_388_608.0 - 1.0;
    (0..n).map(|i| number(i) * amplitude).collect()
}

/// Rounds to bf16 and back.
pub fn rounded(x: &[f32]) -> Vec<f32> {
    x.iter().map(|&x| f32_from_bf16(bf16_from_f32(x))).collect()
}

pub fn to_bf16(x: &[f32]) -> Vec<u16> {
    x.iter().map(|&x| bf16_from_f32(x)).collect()
}

pub fn from_bf16(x: &[u16]) -> Vec<f32> {
    x.iter().map(|&x| f32_from_bf16(x)).collect()
}

/// Fails at the first element further than `tolerance` from the expected one.
pub fn assert_close(name: &str, actual: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(actual.len(), expected.len(), "{name}");
    for (i, (&a, &e)) in actual.iter().zip(expected).enumerate() {
        assert!((f64::from(a) - e).abs() <= tolerance, "{name}[{i}]: {a}, expected {e} within {tolerance:e}");
    }
}

/// `random` numbers in [-1, 1), rounded to an element type.
pub fn elements<E: Element>(n: usize, stream: u32) -> Vec<E> {
    random(n, stream, 1.0).into_iter().map(E::from_f32).collect()
}

pub fn widen<E: Element>(x: &[E]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x.to_f32())).collect()
}

/// Asserts that all elements agree up to the rounding of their type and of f32 sums of `depth` terms of their size.
pub fn close<E: Element>(name: &str, actual: &[E], expected: &[f64], depth: usize) {
    close_at(name, actual, expected, depth, 0.1);
}

/// As `close`, where terms of size `scale` cancel in small results.
pub fn close_at<E: Element>(name: &str, actual: &[E], expected: &[f64], depth: usize, scale: f64) {
    assert_eq!(actual.len(), expected.len(), "{name}: length");
    let scale = expected.iter().fold(scale, |a, b| a.max(b.abs()));
    let unit = if E::IS_F32 { 2f64.powi(-24) } else { 2f64.powi(-8) };
    let bound = scale * (unit * 2.0 + 2f64.powi(-22) * (depth as f64).sqrt().max(4.0));
    for (i, (a, e)) in actual.iter().zip(expected).enumerate() {
        let a = f64::from(a.to_f32());
        assert!((a - e).abs() <= bound, "{name}[{i}] = {a}, expected {e} within {bound:e}");
    }
}

/// Runs `work` on pools of 1, 2 and 3 threads and asserts equal results.
pub fn same_on_any_pool<T: PartialEq>(work: impl Fn(&Rig) -> T) {
    let first = work(&Rig::new(1));
    for threads in [2, 3] {
        assert!(first == work(&Rig::new(threads)), "{threads} threads give other bits than one");
    }
}
