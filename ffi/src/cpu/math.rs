//! Elementary functions in f32, written without branches so that loops over them become vector code.
//!
//! Only additions, multiplications and divisions in a fixed order; `ln` and `cos_turn` have no fused steps, so that every instruction set
//! gives the same bits. `exp` and `tanh` fuse them where they are told that the CPU does.

/// Adding and subtracting it rounds to the nearest integer (ties to even) for |x| < 2^22.
const ROUND: f32 = 12_582_912.0;
const LN2_HI: f32 = 0.693_359_4;
const LN2_LO: f32 = -2.121_944_4e-4;

/// Natural logarithm of a positive normal number; absolute error below 3e-7 near 1, relative elsewhere.
///
/// x = 2^e m with m in [sqrt(1/2), sqrt(2)); ln m = 2 (s + s^3/3 + s^5/5 + ...), s = (m - 1) / (m + 1).
#[inline(always)]
pub fn ln(x: f32) -> f32 {
    let shifted = x.to_bits().wrapping_sub(0x3f35_04f3); // sqrt(1/2)
    let e = (shifted as i32 >> 23) as f32;
    let m = f32::from_bits((shifted & 0x007f_ffff).wrapping_add(0x3f35_04f3));
    let s = (m - 1.0) / (m + 1.0);
    let s2 = s * s;
    let series = s2 * (2.0 / 3.0 + s2 * (2.0 / 5.0 + s2 * (2.0 / 7.0 + s2 * (2.0 / 9.0))));
    e * LN2_HI + (e * LN2_LO + (2.0 * s + s * series))
}

/// cos(2 pi x) for x in [0, 1); absolute error below 2e-7.
///
/// With a = 1/4 - |x - 1/2| it is -sin(2 pi a), |2 pi a| <= pi/2, by the Taylor series to degree 11.
#[inline(always)]
pub fn cos_turn(x: f32) -> f32 {
    let t = std::f32::consts::TAU * (0.25 - (x - 0.5).abs());
    let t2 = t * t;
    let series =
        -1.0 / 6.0 + t2 * (1.0 / 120.0 + t2 * (-1.0 / 5_040.0 + t2 * (1.0 / 362_880.0 + t2 * (-1.0 / 39_916_800.0))));
    -(t + t * t2 * series)
}

/// a b + c, rounded once where `fused`.
#[inline(always)]
fn multiply_add(fused: bool, a: f32, b: f32, c: f32) -> f32 {
    if fused { a.mul_add(b, c) } else { a * b + c }
}

/// Splits x = n ln 2 + r, |r| <= ln(2)/2, and gives (2^n, e^r - 1). |x| must be below 87.
///
/// e^r - 1 = r + r^2/2 + ... + r^7/7!, remainder below 6e-9 relative.
#[inline(always)]
fn exp_parts(fused: bool, x: f32) -> (f32, f32) {
    let add = |a, b, c| multiply_add(fused, a, b, c);
    let rounded = add(x, std::f32::consts::LOG2_E, ROUND);
    let n = rounded - ROUND;
    let r = add(-n, LN2_LO, add(-n, LN2_HI, x));
    let scale = f32::from_bits((rounded.to_bits() << 23).wrapping_add(0x3f80_0000));
    let series = [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 1.0 / 2.0];
    let series = series.into_iter().fold(1.0 / 5_040.0, |sum, term| add(r, sum, term));
    (scale, add(r * r, series, r))
}

/// e^x, clamped to x in [-87, 88]; relative error below 2e-7; NaN stays NaN.
#[inline(always)]
pub fn exp(fused: bool, x: f32) -> f32 {
    let x = if x < -87.0 { -87.0 } else { x };
    let x = if x > 88.0 { 88.0 } else { x };
    let (scale, p) = exp_parts(fused, x);
    multiply_add(fused, scale, p, scale)
}

/// tanh(x) = q / (q + 2) with q = e^(2x) - 1; relative error below 5e-7; NaN stays NaN.
#[inline(always)]
pub fn tanh(fused: bool, x: f32) -> f32 {
    let x = if x < -10.0 { -10.0 } else { x };
    let x = if x > 10.0 { 10.0 } else { x };
    let (scale, p) = exp_parts(fused, 2.0 * x);
    let q = multiply_add(fused, scale, p, scale - 1.0);
    q / (q + 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn largest_error(from: f64, to: f64, f: fn(f32) -> f32, exact: fn(f64) -> f64, relative: bool) -> f64 {
        let steps = 200_000;
        (0..=steps)
            .map(|i| {
                let x = (from + (to - from) * f64::from(i) / f64::from(steps)) as f32;
                let expected = exact(f64::from(x));
                let error = (f64::from(f(x)) - expected).abs();
                if relative && expected != 0.0 { error / expected.abs() } else { error }
            })
            .fold(0.0, f64::max)
    }

    #[test]
    fn functions_match_double_precision() {
        let exps: [fn(f32) -> f32; 2] = [|x| exp(false, x), |x| exp(true, x)];
        let tanhs: [fn(f32) -> f32; 2] = [|x| tanh(false, x), |x| tanh(true, x)];
        let cases: [(&str, f64, f64); 9] = [
            ("exp", largest_error(-86.9, 87.9, exps[0], f64::exp, true), 2e-7),
            ("exp, fused", largest_error(-86.9, 87.9, exps[1], f64::exp, true), 2e-7),
            ("tanh", largest_error(-9.0, 9.0, tanhs[0], f64::tanh, true), 5e-7),
            ("tanh, fused", largest_error(-9.0, 9.0, tanhs[1], f64::tanh, true), 5e-7),
            ("tanh near 0", largest_error(-1e-3, 1e-3, tanhs[0], f64::tanh, true), 5e-7),
            ("tanh near 0, fused", largest_error(-1e-3, 1e-3, tanhs[1], f64::tanh, true), 5e-7),
            ("ln near 1", largest_error(0.5, 2.0, ln, f64::ln, false), 3e-7),
            ("ln", largest_error(1e-9, 0.4, ln, f64::ln, true), 3e-7),
            ("cos", largest_error(0.0, 1.0, cos_turn, |x| (std::f64::consts::TAU * x).cos(), false), 2e-7),
        ];
        for (name, error, bound) in cases {
            assert!(error < bound, "{name}: {error:e}, expected below {bound:e}");
        }
    }

    #[test]
    fn functions_keep_nan_and_saturate() {
        for fused in [false, true] {
            let (exp, tanh) = (|x| exp(fused, x), |x| tanh(fused, x));
            assert!(exp(f32::NAN).is_nan() && tanh(f32::NAN).is_nan());
            assert_eq!((tanh(50.0), tanh(-50.0), tanh(f32::INFINITY)), (1.0, -1.0, 1.0));
            assert_eq!(exp(0.0), 1.0);
            assert!(exp(-1e9) < 2e-38);
        }
    }
}
