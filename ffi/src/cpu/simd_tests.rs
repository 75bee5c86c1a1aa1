//! Tests of the vector operations: every instruction set of this CPU against scalar code.

use crate::cpu::convert::{bf16_from_f32, f32_from_bf16};
use crate::cpu::isa::{Isa, detected};
use crate::cpu::simd::{Kernel, Lanes, MAX_LANES, dispatch_on};

struct Exp<'a>(&'a [f32], &'a mut [f32]);
impl Kernel for Exp<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        for (x, y) in self.0.chunks_exact(V::N).zip(self.1.chunks_exact_mut(V::N)) {
            unsafe { V::load(x.as_ptr()).exp().store(y.as_mut_ptr()) };
        }
    }
}

#[test]
fn exp_matches_double_precision() {
    let x: Vec<f32> = (0..160_000).map(|i| -87.0 + i as f32 * (175.0 / 160_000.0)).collect();
    for isa in Isa::ALL.into_iter().filter(|&isa| isa <= detected()) {
        let mut y = vec![0.0; x.len()];
        unsafe { dispatch_on(isa, Exp(&x, &mut y)) };
        for (&x, &y) in x.iter().zip(&y) {
            let exact = f64::from(x).exp();
            assert!(((f64::from(y) - exact) / exact).abs() < 2e-7, "{} exp({x}) = {y}, expected {exact}", isa.name());
        }
        let mut special = [f32::NEG_INFINITY; 16];
        special[1] = f32::NAN;
        special[2] = -200.0;
        special[3] = 0.0;
        let mut y = [7.0; 16];
        unsafe { dispatch_on(isa, Exp(&special, &mut y)) };
        assert!(y[0] == 0.0 && y[1].is_nan() && y[2] == 0.0 && y[3] == 1.0, "{} {y:?}", isa.name());
    }
}

struct Transpose<'a>(&'a [f32], &'a mut [f32]);
impl Kernel for Transpose<'_> {
    type Output = usize;
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) -> usize {
        unsafe {
            let mut rows = [V::splat(0.0); MAX_LANES];
            for (row, x) in rows.iter_mut().zip(self.0.chunks_exact(V::N)).take(V::N) {
                *row = V::load(x.as_ptr());
            }
            V::transpose(&mut rows);
            for (row, y) in rows.iter().zip(self.1.chunks_exact_mut(V::N)).take(V::N) {
                row.store(y.as_mut_ptr());
            }
        }
        V::N
    }
}

#[test]
fn transpose_exchanges_lanes_and_places() {
    let x: Vec<f32> = (0..256).map(|i| i as f32).collect();
    for isa in Isa::ALL.into_iter().filter(|&isa| isa <= detected()) {
        let mut y = vec![0.0; 256];
        let n = unsafe { dispatch_on(isa, Transpose(&x, &mut y)) };
        for i in 0..n {
            for j in 0..n {
                assert_eq!(y[i * n + j], x[j * n + i], "{} ({i}, {j})", isa.name());
            }
        }
    }
}

struct Convert<'a>(&'a [f32], &'a mut [u16], &'a mut [f32], &'a mut [f32]);
impl Kernel for Convert<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        for i in (0..self.0.len()).step_by(V::N) {
            unsafe {
                let x = V::load(self.0[i..].as_ptr());
                x.store_bf16(self.1[i..].as_mut_ptr());
                V::load_bf16(self.1[i..].as_ptr()).store(self.2[i..].as_mut_ptr());
                x.store_pairs(V::splat(-3.0), self.3[i..].as_mut_ptr());
            }
        }
    }
}

#[test]
fn bf16_lanes_match_the_scalar_conversion() {
    let mut x: Vec<f32> = (0..4096u32).map(|i| f32::from_bits(i.wrapping_mul(0x9e37_79b9))).collect();
    x[..4].copy_from_slice(&[f32::NAN, f32::INFINITY, -0.0, f32::from_bits(0x7f80_0001)]);
    for isa in Isa::ALL.into_iter().filter(|&isa| isa <= detected()) {
        let (mut y, mut z, mut pairs) = (vec![0u16; x.len()], vec![0.0; x.len()], vec![0.0; x.len()]);
        unsafe { dispatch_on(isa, Convert(&x, &mut y, &mut z, &mut pairs)) };
        for i in 0..x.len() {
            assert_eq!(y[i], bf16_from_f32(x[i]), "{} {}", isa.name(), x[i]);
            assert_eq!(z[i].to_bits(), f32_from_bf16(y[i]).to_bits());
            assert_eq!(pairs[i].to_bits(), u32::from(y[i]) | u32::from(bf16_from_f32(-3.0)) << 16);
        }
    }
}
