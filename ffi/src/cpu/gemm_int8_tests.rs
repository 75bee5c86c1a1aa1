//! Tests of int8 products: bit for bit the plain loop of gemm_int8.rs in every instruction set, and what the entries accept.

use super::*;
use crate::abi::{DTYPE_BF16, DTYPE_I8, LAYOUT_PACKED, LAYOUT_ROWS, PACK_BACKWARD, PACK_FORWARD};
use crate::abi::{STATUS_INVALID, STATUS_UNSUPPORTED};
use crate::cpu::convert::bf16_from_f32;
use crate::cpu::gemm_kernel::{Expected, kernel, panels_at_once};
use crate::cpu::isa::{detected, has_int8_dot};
use crate::cpu::lm_head::cases::{CAP, Case};
use crate::cpu::testing::{Rig, assert_close, random, rounded, to_bf16};
use crate::cpu::{nc_linear_bwd_x, nc_linear_fwd, nc_lm_head_loss, nc_lm_head_score, nc_pack, nc_pack_bytes};
use std::ffi::c_void;

const NULL: *mut c_void = std::ptr::null_mut();

fn isas() -> impl Iterator<Item = Isa> {
    Isa::ALL.into_iter().filter(|&isa| isa <= detected())
}

/// The specification: a row as integers and their scale.
fn plain(row: &[f32]) -> (Vec<i32>, f32) {
    let largest = row.iter().fold(0f32, |most, x| most.max(x.abs()));
    let inverse = if largest == 0.0 { 0.0 } else { 127.0 / largest };
    (row.iter().map(|x| (x * inverse).round_ties_even() as i32).collect(), largest / 127.0)
}

/// h (m, n) of x (m, k) and w (n, k).
fn plain_product(x: &[f32], w: &[f32], k: usize) -> Vec<f32> {
    let rows = |x: &[f32]| x.chunks(k).map(plain).collect::<Vec<_>>();
    let (x, w) = (rows(x), rows(w));
    let dot = |x: &[i32], w: &[i32]| x.iter().zip(w).map(|(x, w)| i64::from(x * w)).sum::<i64>() as i32;
    x.iter().flat_map(|(qx, sx)| w.iter().map(|(qw, sw)| dot(qx, qw) as f32 * sx * sw).collect::<Vec<_>>()).collect()
}

fn packed(isa: Isa, w: &[f32], n: usize, k: usize) -> Vec<u32> {
    let mut packed = vec![0x4d4d_4d4d; quantised_units(isa, n, k)];
    unsafe { pack_quantised(isa, packed.as_mut_ptr(), View::rows(w.as_ptr().cast(), k, DTYPE_F32), n, k) };
    packed
}

/// y (m, n) = h + residual in f32, x in f32.
fn run(isa: Isa, threads: usize, x: &[f32], w: &[u32], (n, k): (usize, usize), residual: &[f32]) -> Vec<f32> {
    let mut y = residual.to_vec();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| {
        let c = Output { ptr: y.as_mut_ptr().cast(), ld: n, dtype: DTYPE_F32 };
        let (x_rows, w) = (View::rows(x.as_ptr().cast(), k, DTYPE_F32), Quantised { ptr: w.as_ptr(), width: n });
        unsafe { product_int8(isa, (x.len() / k, n, k), x_rows, w, c, Epilogue::Residual { residual: c.ptr }) };
    });
    y
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn product_int8_equals_the_plain_loop_bit_for_bit() {
    let fixed = [(1, 1, 1), (1, 100, 257), (16, 70, 64), (3, 33, 1030), (2, 3, 9000)];
    let drawn = (0..12u32).map(|i| {
        let size = |axis: u32, most: f32| 1 + ((random(1, 10 + 3 * i + axis, 0.5)[0] + 0.5) * most) as usize;
        (size(0, 40.0), size(1, 80.0), size(2, 300.0))
    });
    for (m, n, k) in fixed.into_iter().chain(drawn) {
        let (mut x, w) = (random(m * k, 1, 3.0), random(n * k, 2, 0.3));
        x[..k].iter_mut().step_by(2).for_each(|x| *x *= 1e-3); // outliers beside small numbers
        let residual = random(m * n, 3, 1.0);
        let h = plain_product(&x, &w, k);
        let expected: Vec<f32> = h.iter().zip(&residual).map(|(h, r)| h + r).collect();
        for isa in isas() {
            let packed = packed(isa, &w, n, k);
            for threads in [1, 3] {
                let y = run(isa, threads, &x, &packed, (n, k), &residual);
                assert_eq!(bits(&y), bits(&expected), "{} {m}x{n}x{k}, {threads} threads", isa.name());
            }
            // A row alone.
            let last = (m - 1) * n;
            let y = run(isa, 2, &x[(m - 1) * k..], &packed, (n, k), &residual[last..]);
            assert_eq!(bits(&y), bits(&expected[last..]), "{} {n}x{k}, one row", isa.name());
        }
    }
}

#[test]
fn product_int8_has_the_same_bits_whichever_instruction_set_quantises() {
    for isa in isas() {
        let test = "cpu::gemm_int8::tests::product_int8_equals_the_plain_loop_bit_for_bit";
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        let output = child.args(["--exact", test]).env("NANOCHAT_CPU_ISA", isa.name()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{}: {text}", isa.name());
    }
}

#[test]
fn kernels_of_bytes_equal_the_plain_sums_for_the_largest_bytes() {
    let units = 37;
    let byte = |stream, i: usize| random(i, stream, 256.0);
    for isa in isas() {
        let tile = tile(isa);
        for dot in [false, true].into_iter().filter(|dot| !dot || has_int8_dot(isa)) {
            for rows in 1..=tile.mr {
                for panels in [1, panels_at_once(isa, rows)] {
                    let a: Vec<i8> = byte(1, units * tile.mr * 4).iter().map(|&x| (x as i8).max(-127)).collect();
                    let b: Vec<u8> = byte(2, panels * units * tile.nr * 4).iter().map(|&x| x.abs() as u8).collect();
                    let at = |i: usize, j: usize| {
                        let b = &b[j / tile.nr * units * tile.nr * 4..];
                        let of = |k: usize, width: usize, line: usize| (k / 4 * width + line) * 4 + k % 4;
                        (0..units * 4)
                            .map(|k| i32::from(a[of(k, tile.mr, i)]) * i32::from(b[of(k, tile.nr, j % tile.nr)]))
                            .sum::<i32>()
                    };
                    let mut acc = vec![-5i32; rows * panels * tile.nr];
                    for (add, start) in [(false, 0), (true, 1)] {
                        let run = kernel(isa, Unit::Quad { dot }, rows, panels, add);
                        let (a, b, ld) = (a.as_ptr().cast(), b.as_ptr().cast(), panels * tile.nr);
                        unsafe {
                            run(units, a, b, units * tile.nr, acc.as_mut_ptr().cast(), ld, add, b, &Expected::NONE)
                        };
                        let expected: Vec<i32> =
                            (0..acc.len()).map(|at_| (1 + start) * at(at_ / ld, at_ % ld)).collect();
                        assert_eq!(acc, expected, "{} {rows} rows, {panels} panels, dot {dot}", isa.name());
                    }
                }
            }
        }
    }
}

#[test]
fn product_int8_keeps_its_sums_where_they_wrap_on_the_way_and_its_rows_apart() {
    let k = MOST_DEPTH; // 127 * 255 * k does not fit an i32
    let w = vec![0.5; k];
    let mut x = vec![2.0; 4 * k];
    x[k..2 * k].fill(0.0);
    x[2 * k..3 * k].fill(f32::MIN_POSITIVE / 4.0); // counts as zero
    x[3 * k + 7] = f32::NAN;
    for isa in isas() {
        let y = run(isa, 2, &x, &packed(isa, &w, 1, k), (1, k), &[0.0, 1.0, 1.0, 1.0]);
        assert!((y[0] / k as f32 - 1.0).abs() < 1e-6, "{}: {}, expected {k}", isa.name(), y[0]);
        assert_eq!((y[1], y[2], y[3].is_nan()), (1.0, 1.0, true), "{}", isa.name());
        x[3 * k + 7] = f32::NEG_INFINITY;
        assert!(run(isa, 2, &x[3 * k..], &packed(isa, &w, 1, k), (1, k), &[0.0])[0].is_nan());
    }
}

/// A context with a weight (n, k) in i8.
fn quantised(rig: &Rig, w: &[f32], n: usize, k: usize) -> *mut c_void {
    let mut bytes = 0i64;
    let (n, k) = (n as i32, k as i32);
    rig.ok(unsafe { nc_pack_bytes(rig.ctx(), std::ptr::from_mut(&mut bytes).cast(), n, k, PACK_FORWARD, DTYPE_I8) });
    assert_eq!(bytes as usize, 4 * quantised_units(crate::cpu::isa::isa(), n as usize, k as usize));
    let packed = rig.cx.alloc(bytes).unwrap();
    rig.ok(unsafe { nc_pack(rig.ctx(), packed, rig.put(w), n, k, PACK_FORWARD, DTYPE_I8, DTYPE_F32) });
    packed
}

#[test]
fn linear_of_i8_equals_the_plain_loop_in_f32_and_bf16() {
    let (m, n, k) = (5, 39, 23);
    let rig = Rig::new(2);
    let (x, w) = (rounded(&random(m * k, 4, 2.0)), random(n * k, 5, 1.0));
    let h = plain_product(&x, &w, k);
    let weight = quantised(&rig, &w, n, k);
    let [M, N, K] = [m, n, k].map(|n| n as i32);
    for (dtype, px) in [(DTYPE_F32, rig.put(&x)), (DTYPE_BF16, rig.put(&to_bf16(&x)))] {
        let (y, aux) = (rig.junk::<f32>(m * n), rig.junk::<f32>(m * n));
        rig.ok(unsafe {
            let (epilogue, layout) = (1, LAYOUT_PACKED);
            nc_linear_fwd(
                rig.ctx(),
                y,
                aux,
                px,
                weight,
                NULL,
                NULL,
                NULL,
                M,
                N,
                K,
                epilogue,
                layout,
                dtype,
                dtype,
                DTYPE_I8,
            )
        });
        let square = |h: &f32| h.max(0.0) * h.max(0.0);
        if dtype == DTYPE_F32 {
            assert_eq!(rig.get::<f32>(aux, m * n), h);
            assert_eq!(rig.get::<f32>(y, m * n), h.iter().map(square).collect::<Vec<_>>());
        } else {
            assert_eq!(rig.get::<u16>(aux, m * n), to_bf16(&h));
            let squares = rounded(&h).iter().map(|h| bf16_from_f32(square(h))).collect::<Vec<_>>();
            assert_eq!(rig.get::<u16>(y, m * n), squares);
        }
    }
}

#[test]
fn i8_is_refused_where_it_means_nothing() {
    let rig = Rig::new(1);
    let (ctx, p) = (rig.ctx(), rig.put(&[0f32; 4096]));
    let forward = |layout, dtype_x| unsafe {
        nc_linear_fwd(ctx, p, NULL, p, p, NULL, NULL, NULL, 4, 4, 4, 0, layout, DTYPE_F32, dtype_x, DTYPE_I8)
    };
    assert!(rig.fails(forward(LAYOUT_ROWS, DTYPE_F32), STATUS_INVALID).contains("layout 0 of i8, expected PACKED"));
    rig.fails(forward(LAYOUT_PACKED, DTYPE_I8), STATUS_UNSUPPORTED);
    let long = MOST_DEPTH as i32 + 1;
    let mut bytes = [0u8; 8];
    let mut size = |k, direction| unsafe { nc_pack_bytes(ctx, bytes.as_mut_ptr(), 4, k, direction, DTYPE_I8) };
    rig.fails(size(4, PACK_BACKWARD), STATUS_UNSUPPORTED);
    assert!(rig.fails(size(long, PACK_FORWARD), STATUS_INVALID).contains("K is 131073, expected at most 131072"));
    rig.fails(unsafe { nc_pack(ctx, p, p, 4, 4, PACK_FORWARD, DTYPE_I8, DTYPE_I8) }, STATUS_UNSUPPORTED);
    rig.fails(
        unsafe { nc_linear_bwd_x(ctx, p, p, p, NULL, NULL, NULL, 4, 4, 4, 0, 0, LAYOUT_PACKED, 0, 0, DTYPE_I8) },
        STATUS_INVALID,
    );
    let loss =
        |dx| unsafe { nc_lm_head_loss(ctx, p, dx, NULL, p, p, p, p, p, 1, 4, 4, 4, 1, CAP, 0, DTYPE_F32, DTYPE_I8) };
    rig.fails(loss(p), STATUS_INVALID);
}

#[test]
fn lm_head_of_i8_scores_as_a_weight_of_the_same_integers() {
    for dtype in [DTYPE_F32, DTYPE_BF16] {
        let case = Case::new([9, 24, 130, 192], dtype);
        let h = plain_product(&case.x, &case.w[..case.V * case.C], case.C);
        let h = if dtype == DTYPE_F32 { h } else { rounded(&h) };
        let expected: Vec<f64> = (0..case.rows)
            .map(|row| match usize::try_from(case.targets[row]) {
                Ok(target) => {
                    let cap = f64::from(CAP);
                    let l: Vec<f64> =
                        h[row * case.V..][..case.V].iter().map(|&h| cap * (f64::from(h) / cap).tanh()).collect();
                    l.iter().map(|l| l.exp()).sum::<f64>().ln() - l[target]
                }
                Err(_) => 0.0,
            })
            .collect();
        let rig = Rig::new(2);
        let weight = quantised(&rig, &case.w, case.Vp, case.C);
        let (x, targets, scratch) = (case.put(&rig, &case.x), rig.put(&case.targets), case.scratch(&rig, 4));
        let [rows, C, V, Vp] = [case.rows, case.C, case.V, case.Vp].map(|n| n as i32);
        let losses = rig.junk::<f32>(case.rows);
        rig.ok(unsafe {
            let none = (NULL, NULL);
            nc_lm_head_loss(
                rig.ctx(),
                losses,
                none.0,
                none.1,
                x,
                weight,
                targets,
                NULL,
                scratch,
                rows,
                C,
                V,
                Vp,
                4,
                CAP,
                0,
                dtype,
                DTYPE_I8,
            )
        });
        let first = rig.get::<f32>(losses, case.rows);
        assert_close("losses", &first, &expected, 1e-5);
        let again = rig.junk::<f32>(case.rows);
        rig.ok(unsafe {
            nc_lm_head_score(
                rig.ctx(),
                again,
                NULL,
                NULL,
                NULL,
                x,
                weight,
                targets,
                scratch,
                rows,
                C,
                V,
                Vp,
                4,
                0,
                CAP,
                dtype,
                DTYPE_I8,
            )
        });
        assert_eq!(rig.get::<f32>(again, case.rows), first);
    }
}
