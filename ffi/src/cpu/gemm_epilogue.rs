//! Epilogues: what happens to a tile of sums h while it is in the cache, before it becomes a part of C.

use crate::abi::DTYPE_F32;
use crate::cpu::convert::{bf16_from_f32, f32_from_bf16};
use crate::cpu::gemm_kernel::Expected;
use crate::cpu::isa::Isa;

/// From sums h to elements c. Pointers address element (0, 0) of matrices with C's dtype and row stride.
#[derive(Clone, Copy, Debug)]
pub enum Epilogue {
    /// c (+)= h
    Plain { accumulate: bool },
    /// c = h + residual; residual may be C itself
    Residual { residual: *const u8 },
    /// aux = h if aux is given; c = max(h, 0)^2 of the h that aux holds, so that the gradient sees the same h
    Relu2 { aux: *mut u8 },
    /// c (+)= h * 2 max(aux, 0)
    Relu2Backward { aux: *const u8, accumulate: bool },
    /// c = beta addend + h, each term rounded to C's dtype as separate operations would
    Blend { beta: f32, addend: *const u8 },
}

impl Epilogue {
    /// Whether f32 sums may be collected in C itself.
    pub fn is_plain(&self) -> bool {
        matches!(self, Epilogue::Plain { .. })
    }
}

/// The output matrix: row-major, `ld` elements a row.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    pub ptr: *mut u8,
    pub ld: usize,
    pub dtype: i32,
}

trait Element: Copy {
    fn widen(self) -> f32;
    fn round(x: f32) -> Self;
}

impl Element for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
    #[inline(always)]
    fn round(x: f32) -> f32 {
        x
    }
}

impl Element for u16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32_from_bf16(self)
    }
    #[inline(always)]
    fn round(x: f32) -> u16 {
        bf16_from_f32(x)
    }
}

/// Writes C[i0.., j0..] (rows, columns) from sums with `ld` elements a row.
///
/// # Safety
/// The CPU has `isa`; sums and all matrices have the elements of the tile; nobody else uses them.
pub unsafe fn finish(
    isa: Isa,
    epilogue: &Epilogue,
    output: &Output,
    sums: *const f32,
    ld: usize,
    (i0, rows): (usize, usize),
    (j0, columns): (usize, usize),
) {
    let at = i0 * output.ld + j0;
    // SAFETY: by contract.
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 | Isa::Avx512Bf16 => avx512(epilogue, output, sums, ld, at, rows, columns),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => avx2(epilogue, output, sums, ld, at, rows, columns),
            _ => any(epilogue, output, sums, ld, at, rows, columns),
        }
    }
}

/// What the epilogue of the tile at C[i][j] will read and write, for panels of `nr` columns.
#[inline(always)]
pub fn expected(epilogue: &Epilogue, output: &Output, i: usize, j: usize, nr: usize) -> Expected {
    let size = if output.dtype == DTYPE_F32 { 4 } else { 2 };
    let other = match *epilogue {
        Epilogue::Residual { residual: other }
        | Epilogue::Relu2Backward { aux: other, .. }
        | Epilogue::Blend { addend: other, .. } => other,
        Epilogue::Relu2 { aux } => aux.cast_const(),
        Epilogue::Plain { .. } => std::ptr::null(),
    };
    let at = |start: *const u8| if start.is_null() { start } else { start.wrapping_add((i * output.ld + j) * size) };
    Expected { places: [at(output.ptr), at(other)], stride: output.ld * size, lines: (nr * size).div_ceil(64) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn avx512(e: &Epilogue, output: &Output, sums: *const f32, ld: usize, at: usize, rows: usize, columns: usize) {
    // SAFETY: by the contract of `finish`.
    unsafe { any(e, output, sums, ld, at, rows, columns) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2(e: &Epilogue, output: &Output, sums: *const f32, ld: usize, at: usize, rows: usize, columns: usize) {
    // SAFETY: by the contract of `finish`.
    unsafe { any(e, output, sums, ld, at, rows, columns) }
}

#[inline(always)]
unsafe fn any(e: &Epilogue, output: &Output, sums: *const f32, ld: usize, at: usize, rows: usize, columns: usize) {
    for i in 0..rows {
        // SAFETY: by the contract of `finish`.
        unsafe {
            let (at, sums) = (at + i * output.ld, sums.add(i * ld));
            match (output.dtype == DTYPE_F32, columns) {
                // A full tile of the widest kernels: a constant length makes straight vector code.
                (true, 32) => row::<f32>(e, output.ptr.cast(), sums, at, 32),
                (false, 32) => row::<u16>(e, output.ptr.cast(), sums, at, 32),
                (true, _) => row::<f32>(e, output.ptr.cast(), sums, at, columns),
                (false, _) => row::<u16>(e, output.ptr.cast(), sums, at, columns),
            }
        }
    }
}

/// One row of a tile: elements at..at + n of C.
#[inline(always)]
unsafe fn row<E: Element>(epilogue: &Epilogue, c: *mut E, sums: *const f32, at: usize, n: usize) {
    // SAFETY: by the contract of `finish`.
    unsafe {
        let c = c.add(at);
        match *epilogue {
            Epilogue::Plain { accumulate: false } => each(n, |j| *c.add(j) = E::round(*sums.add(j))),
            Epilogue::Plain { accumulate: true } => {
                each(n, |j| *c.add(j) = E::round((*c.add(j)).widen() + *sums.add(j)));
            }
            Epilogue::Residual { residual } => {
                let r = residual.cast::<E>().add(at);
                each(n, |j| *c.add(j) = E::round(*sums.add(j) + (*r.add(j)).widen()));
            }
            Epilogue::Relu2 { aux } if aux.is_null() => each(n, |j| *c.add(j) = relu2(E::round(*sums.add(j)))),
            Epilogue::Relu2 { aux } => {
                let aux = aux.cast::<E>().add(at);
                each(n, |j| {
                    let h = E::round(*sums.add(j));
                    *aux.add(j) = h;
                    *c.add(j) = relu2(h);
                });
            }
            Epilogue::Relu2Backward { aux, accumulate } => {
                let aux = aux.cast::<E>().add(at);
                each(n, |j| {
                    let g = *sums.add(j) * (2.0 * (*aux.add(j)).widen().max(0.0));
                    *c.add(j) = E::round(if accumulate { (*c.add(j)).widen() + g } else { g });
                });
            }
            Epilogue::Blend { beta, addend } => {
                let d = addend.cast::<E>().add(at);
                each(n, |j| {
                    let scaled = E::round(beta * (*d.add(j)).widen());
                    *c.add(j) = E::round(scaled.widen() + E::round(*sums.add(j)).widen());
                });
            }
        }
    }
}

#[inline(always)]
fn each(n: usize, mut body: impl FnMut(usize)) {
    for j in 0..n {
        body(j);
    }
}

#[inline(always)]
fn relu2<E: Element>(h: E) -> E {
    let x = h.widen().max(0.0);
    E::round(x * x)
}
