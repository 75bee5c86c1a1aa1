//! What the tests of the operations share: a context with typed uploads and downloads, and seeded inputs.

use crate::Context;
use crate::cpu::convert::{bf16_from_f32, f32_from_bf16};
use crate::cpu::philox::philox4x32;
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
