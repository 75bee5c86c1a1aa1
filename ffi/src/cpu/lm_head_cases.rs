//! Seeded cases of the loss and the scores, with plain loops in f64 as their specification.

use super::*;
use crate::cpu::nc_lm_head_loss;
use crate::cpu::testing::{Rig, from_bf16, random, rounded, to_bf16};

pub const CAP: f32 = 15.0;

/// Inputs of one case; x and w are exact in `dtype`.
pub struct Case {
    pub rows: usize,
    pub C: usize,
    pub V: usize,
    pub Vp: usize,
    pub dtype: i32,
    pub x: Vec<f32>,
    pub w: Vec<f32>,
    pub targets: Vec<i32>,
    pub weights: Vec<f32>,
}

pub struct Results {
    pub losses: Vec<f32>,
    pub dx: Vec<f32>,
    pub dw: Vec<f32>,
}

impl Case {
    pub fn new([rows, C, V, Vp]: [usize; 4], dtype: i32) -> Self {
        let exact = |x: Vec<f32>| if dtype == DTYPE_F32 { x } else { rounded(&x) };
        // Logits of a few units and more: the soft cap bends them.
        let (x, w) = (exact(random(rows * C, 0, 2.0)), exact(random(Vp * C, 1, 6.0 / (C as f32).sqrt())));
        let ids = random(rows, 2, 0.5);
        let targets = ids.iter().enumerate().map(|(i, u)| if i % 5 == 3 { -1 } else { ((u + 0.5) * V as f32) as i32 });
        Case { rows, C, V, Vp, dtype, x, w, targets: targets.collect(), weights: random(rows, 3, 0.5) }
    }

    pub fn put(&self, rig: &Rig, x: &[f32]) -> *mut c_void {
        if self.dtype == DTYPE_F32 { rig.put(x) } else { rig.put(&to_bf16(x)) }
    }

    pub fn scratch(&self, rig: &Rig, chunk: usize) -> *mut c_void {
        let bytes = chunk * self.Vp * (4 + element_bytes(self.dtype).unwrap()) + SCRATCH_SPARE;
        rig.put(&vec![0xffu8; bytes])
    }

    /// Runs the op on poisoned outputs (or on dw = 1 when accumulating).
    pub fn run(&self, threads: usize, chunk: usize, accumulate: bool) -> Results {
        let rig = Rig::new(threads);
        let nan = |n: usize| vec![f32::NAN; n];
        let losses = rig.put(&nan(self.rows));
        let dx = self.put(&rig, &nan(self.rows * self.C));
        let dw = rig.put(&if accumulate { vec![1.0; self.Vp * self.C] } else { nan(self.Vp * self.C) });
        let (x, w) = (self.put(&rig, &self.x), self.put(&rig, &self.w));
        let (targets, weights) = (rig.put(&self.targets), rig.put(&self.weights));
        let scratch = self.scratch(&rig, chunk);
        let [rows, C, V, Vp, chunk] = [self.rows, self.C, self.V, self.Vp, chunk].map(|n| n as i32);
        let (add, dtype) = (i32::from(accumulate), self.dtype);
        // SAFETY: a live context and its memory.
        rig.ok(unsafe {
            nc_lm_head_loss(
                rig.ctx(),
                losses,
                dx,
                dw,
                x,
                w,
                targets,
                weights,
                scratch,
                rows,
                C,
                V,
                Vp,
                chunk,
                CAP,
                add,
                dtype,
                dtype,
            )
        });
        let n = self.rows * self.C;
        Results {
            losses: rig.get(losses, self.rows),
            dx: if dtype == DTYPE_F32 { rig.get(dx, n) } else { from_bf16(&rig.get(dx, n)) },
            dw: rig.get(dw, self.Vp * self.C),
        }
    }

    /// Capped logits of a row in f64 (h rounded to bf16 in a bf16 model).
    pub fn logits(&self, x: &[f64], w: &[f64], row: usize) -> Vec<f64> {
        (0..self.V)
            .map(|j| {
                let h: f64 = (0..self.C).map(|c| x[row * self.C + c] * w[j * self.C + c]).sum();
                let h = if self.dtype == DTYPE_BF16 { f64::from(rounded(&[h as f32])[0]) } else { h };
                f64::from(CAP) * (h / f64::from(CAP)).tanh()
            })
            .collect()
    }

    /// The losses and the gradients by plain loops in f64.
    pub fn reference(&self) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
        let wide = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
        let (x, w) = (wide(&self.x), wide(&self.w));
        let (mut losses, mut dx, mut dw) =
            (vec![0.0; self.rows], vec![0.0; self.rows * self.C], vec![0.0; self.Vp * self.C]);
        for row in 0..self.rows {
            let Ok(target) = usize::try_from(self.targets[row]) else { continue };
            let l = self.logits(&x, &w, row);
            let sum: f64 = l.iter().map(|l| l.exp()).sum();
            losses[row] = sum.ln() - l[target];
            for (j, l) in l.iter().enumerate() {
                let hit = if j == target { 1.0 } else { 0.0 };
                let t = l / f64::from(CAP);
                let dh = f64::from(self.weights[row]) * (l.exp() / sum - hit) * (1.0 - t * t);
                for c in 0..self.C {
                    dx[row * self.C + c] += dh * w[j * self.C + c];
                    dw[j * self.C + c] += dh * x[row * self.C + c];
                }
            }
        }
        (losses, dx, dw)
    }

    /// Tolerances of losses and gradients. f32: unit roundoff times magnitude (30 logits, 8 gradients) times the random walk of C
    /// terms. bf16: dh is rounded once more, and an h next to a rounding border may land on its other side.
    pub fn tolerances(&self) -> (f64, f64) {
        let walk = 2f64.powi(-24) * (self.C as f64).sqrt();
        if self.dtype == DTYPE_F32 { (30.0 * walk, 8.0 * walk) } else { (2f64.powi(-5), 2f64.powi(-6)) }
    }
}

pub const SHAPES: [[usize; 4]; 4] = [[37, 30, 130, 192], [64, 64, 500, 512], [1, 8, 1, 64], [9, 16, 1500, 1536]];
