//! Rows of a table by index: embedding lookup and its gradient, row gather.
//!
//!   fwd: y[r] = w[ids[r]]      bwd: dw[ids[r]] (+)= dy[r], summed in the order of r      gather: y[i] = x[index[i]]
//!
//! The gradient is cut by columns: a piece owns COLUMNS columns of the whole table and walks all rows in order, so no two pieces
//! meet, the sums do not depend on the number of threads, and the work does not grow with the vocabulary.

use crate::Context;
use crate::abi::{DTYPE_BF16, DTYPE_F32};
use crate::cpu::elementwise::float_only;
use crate::cpu::pieces::{PIECE, fail, piece_mut, pieces, row_pieces};
use crate::cpu::simd::{Element, Kernel, Lanes, dispatch};
use crate::guard::{Result, entry};
use crate::memory::{Memory, count, element_bytes};
use std::ffi::c_void;

/// Columns of a gradient piece: four cache lines of f32.
const COLUMNS: usize = 64;

/// Fails the queue unless every id is a row of a table with `limit` rows.
fn check_ids(ids: &[i32], limit: usize, action: &str) {
    if let Some(i) = ids.iter().position(|&id| id < 0 || id as usize >= limit) {
        fail(format!("Cannot {action}: id {} at position {i}, expected 0 to {}", ids[i], limit as i64 - 1));
    }
}

/// y = x for one row of C elements.
struct CopyRow<Y, X> {
    y: *mut Y,
    x: *const X,
    C: usize,
}

impl<Y: Element, X: Element> Kernel for CopyRow<Y, X> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let CopyRow { y, x, C } = self;
        let whole = C - C % V::N;
        // SAFETY: both rows have C elements.
        unsafe {
            for i in (0..whole).step_by(V::N) {
                Y::store::<V>(X::load(x.add(i)), y.add(i));
            }
            if whole < C {
                Y::store_part::<V>(X::load_part(x.add(whole), C - whole), y.add(whole), C - whole);
            }
        }
    }
}

fn forward<Y: Element, W: Element>(
    cx: &Context,
    (y, w, ids): (*mut c_void, *mut c_void, *mut c_void),
    (rows, C, V): (i32, i32, i32),
) -> Result<()> {
    let y: Memory<Y> = cx.memory(y, count(&[rows, C])?, "y")?;
    let w: Memory<W> = cx.memory(w, count(&[V, C])?, "w")?;
    let ids: Memory<i32> = cx.memory(ids, count(&[rows])?, "ids")?;
    let (rows, C, V) = (rows as usize, C as usize, V as usize);
    cx.enqueue("nc_embedding_fwd", move || {
        check_ids(ids.get(), V, "look up an embedding");
        row_pieces(rows, C, |begin, end| {
            for (r, &id) in (begin..end).zip(&ids.get()[begin..end]) {
                // SAFETY: r < rows, id < V; a row is written by one piece.
                unsafe { dispatch(CopyRow { y: y.as_ptr().add(r * C), x: w.as_ptr().add(id as usize * C), C }) };
            }
        });
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_embedding_fwd(
    ctx: *mut Context,
    y: *mut c_void,
    w: *mut c_void,
    ids: *mut c_void,
    rows: i32,
    C: i32,
    V: i32,
    dtypeY: i32,
    dtypeW: i32,
) -> i32 {
    let (operands, sizes) = ((y, w, ids), (rows, C, V));
    // SAFETY: null or a live handle.
    unsafe {
        entry(ctx, |cx| match (dtypeY, dtypeW) {
            (DTYPE_F32, DTYPE_F32) => forward::<f32, f32>(cx, operands, sizes),
            (DTYPE_F32, DTYPE_BF16) => forward::<f32, u16>(cx, operands, sizes),
            (DTYPE_BF16, DTYPE_F32) => forward::<u16, f32>(cx, operands, sizes),
            (DTYPE_BF16, DTYPE_BF16) => forward::<u16, u16>(cx, operands, sizes),
            (DTYPE_F32 | DTYPE_BF16, other) | (other, _) => float_only("look up an embedding", other),
        })
    }
}

/// dw[ids[r]] += dy[r] for columns begin..end, r ascending.
struct AddRows<'a, E> {
    dw: *mut f32,
    dy: *const E,
    ids: &'a [i32],
    C: usize,
    begin: usize,
    end: usize,
}

impl<E: Element> Kernel for AddRows<'_, E> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<V: Lanes>(self) {
        let AddRows { dw, dy, ids, C, begin, end } = self;
        let whole = end - (end - begin) % V::N;
        for (r, &id) in ids.iter().enumerate() {
            // SAFETY: ids were checked against the table; columns lie inside its rows.
            unsafe {
                let (to, from) = (dw.add(id as usize * C), dy.add(r * C));
                for c in (begin..whole).step_by(V::N) {
                    V::load(to.add(c)).add(E::load(from.add(c))).store(to.add(c));
                }
                if whole < end {
                    let rest = end - whole;
                    let sum = V::load_part(to.add(whole), rest).add(E::load_part(from.add(whole), rest));
                    sum.store_part(to.add(whole), rest);
                }
            }
        }
    }
}

fn backward<E: Element>(
    cx: &Context,
    (dw, dy, ids): (*mut c_void, *mut c_void, *mut c_void),
    (rows, C, V): (i32, i32, i32),
    accumulate: bool,
) -> Result<()> {
    let dw: Memory<f32> = cx.memory(dw, count(&[V, C])?, "dw")?;
    let dy: Memory<E> = cx.memory(dy, count(&[rows, C])?, "dy")?;
    let ids: Memory<i32> = cx.memory(ids, count(&[rows])?, "ids")?;
    let (C, V) = (C as usize, V as usize);
    cx.enqueue("nc_embedding_bwd", move || {
        check_ids(ids.get(), V, "add to an embedding gradient");
        if !accumulate {
            // SAFETY: pieces are disjoint.
            pieces(dw.len(), PIECE, |begin, end| unsafe { piece_mut(&dw, begin, end) }.fill(0.0));
        }
        pieces(C, COLUMNS, |begin, end| {
            // SAFETY: a column is written by one piece.
            unsafe { dispatch(AddRows { dw: dw.as_ptr(), dy: dy.as_ptr(), ids: ids.get(), C, begin, end }) };
        });
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_embedding_bwd(
    ctx: *mut Context,
    dw: *mut c_void,
    dy: *mut c_void,
    ids: *mut c_void,
    rows: i32,
    C: i32,
    V: i32,
    accumulate: i32,
    dtype: i32,
) -> i32 {
    let (operands, sizes) = ((dw, dy, ids), (rows, C, V));
    // SAFETY: null or a live handle.
    unsafe {
        entry(ctx, |cx| match dtype {
            DTYPE_F32 => backward::<f32>(cx, operands, sizes, accumulate != 0),
            DTYPE_BF16 => backward::<u16>(cx, operands, sizes, accumulate != 0),
            _ => float_only("add to an embedding gradient", dtype),
        })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_gather_rows(
    ctx: *mut Context,
    y: *mut c_void,
    x: *mut c_void,
    index: *mut c_void,
    n: i32,
    C: i32,
    nX: i32,
    dtype: i32,
) -> i32 {
    // SAFETY: null or a live handle.
    unsafe {
        entry(ctx, |cx| {
            let y = cx.tensor(y, count(&[n, C])?, dtype, "y")?;
            let x = cx.tensor(x, count(&[nX, C])?, dtype, "x")?;
            let index: Memory<i32> = cx.memory(index, count(&[n])?, "index")?;
            let (n, nX, row) = (n as usize, nX as usize, C as usize * element_bytes(dtype)?);
            cx.enqueue("nc_gather_rows", move || {
                check_ids(index.get(), nX, "gather rows");
                row_pieces(n, row, |begin, end| {
                    for (i, &from) in (begin..end).zip(&index.get()[begin..end]) {
                        let to = piece_mut(&y, i * row, (i + 1) * row);
                        to.copy_from_slice(&x.get()[from as usize * row..][..row]);
                    }
                });
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::STATUS_PANIC;
    use crate::cpu::testing::{Rig, close, elements, same_on_any_pool, widen};

    fn dtype<E: Element>() -> i32 {
        if E::IS_F32 { DTYPE_F32 } else { DTYPE_BF16 }
    }

    fn check<E: Element>(rows: usize, C: usize, V: usize) {
        let rig = Rig::new(2);
        let ids: Vec<i32> = (0..rows).map(|r| ((r * r * 7 + 3) % V) as i32).collect();
        let (w, dy, old) = (elements::<E>(V * C, 1), elements::<E>(rows * C, 2), elements::<f32>(V * C, 3));
        let (pw, pids, pdy) = (rig.put(&w), rig.put(&ids), rig.put(&dy));
        let (y, half, dw, sum) =
            (rig.junk::<f32>(rows * C), rig.junk::<u16>(rows * C), rig.junk::<f32>(V * C), rig.put(&old));
        let sizes = [rows, C, V].map(|n| n as i32);
        unsafe {
            let (ctx, [rows, C, V]) = (rig.ctx(), sizes);
            rig.ok(nc_embedding_fwd(ctx, y, pw, pids, rows, C, V, DTYPE_F32, dtype::<E>()));
            rig.ok(nc_embedding_fwd(ctx, half, pw, pids, rows, C, V, DTYPE_BF16, dtype::<E>()));
            rig.ok(nc_embedding_bwd(ctx, dw, pdy, pids, rows, C, V, 0, dtype::<E>()));
            rig.ok(nc_embedding_bwd(ctx, sum, pdy, pids, rows, C, V, 1, dtype::<E>()));
        }
        let (w, dy) = (widen(&w), widen(&dy));
        let expected: Vec<f64> = ids.iter().flat_map(|&id| w[id as usize * C..][..C].to_vec()).collect();
        close("y", &rig.get::<f32>(y, rows * C), &expected, 1);
        close("y bf16", &rig.get::<u16>(half, rows * C), &expected, 1);
        let mut gradient = vec![0.0; V * C];
        for (r, &id) in ids.iter().enumerate() {
            for c in 0..C {
                gradient[id as usize * C + c] += dy[r * C + c];
            }
        }
        close("dw", &rig.get::<f32>(dw, V * C), &gradient, rows);
        for (g, old) in gradient.iter_mut().zip(&old) {
            *g += f64::from(*old);
        }
        close("dw sum", &rig.get::<f32>(sum, V * C), &gradient, rows);
    }

    #[test]
    fn embedding_matches_the_loop() {
        for (rows, C, V) in [(0, 5, 3), (1, 1, 1), (37, 30, 11), (300, 200, 50), (5, 64, 3)] {
            check::<f32>(rows, C, V);
            check::<u16>(rows, C, V);
        }
    }

    #[test]
    fn embedding_gradient_has_the_same_bits_on_any_pool() {
        same_on_any_pool(|rig| {
            let (rows, C, V) = (500, 200, 9);
            let ids: Vec<i32> = (0..rows).map(|r| (r * r % V) as i32).collect();
            let (dy, ids, dw) = (rig.put(&elements::<f32>(rows * C, 1)), rig.put(&ids), rig.junk::<f32>(V * C));
            unsafe { rig.ok(nc_embedding_bwd(rig.ctx(), dw, dy, ids, rows as i32, C as i32, V as i32, 0, DTYPE_F32)) };
            rig.get::<f32>(dw, V * C).iter().map(|x| x.to_bits()).collect::<Vec<_>>()
        });
    }

    #[test]
    fn embedding_names_an_id_outside_the_vocabulary() {
        for id in [3, -1] {
            let rig = Rig::new(1);
            let (w, ids, y) = (rig.put(&[0f32; 6]), rig.put(&[0, id]), rig.junk::<f32>(4));
            let status = unsafe { nc_embedding_fwd(rig.ctx(), y, w, ids, 2, 2, 3, DTYPE_F32, DTYPE_F32) };
            let message = rig.fails(status, STATUS_PANIC);
            assert!(message.contains(&format!("id {id} at position 1, expected 0 to 2")), "{message}");
        }
    }

    #[test]
    fn gather_rows_copies_bytes() {
        let rig = Rig::new(2);
        let x: Vec<u16> = (0..12).collect();
        let (px, index, y) = (rig.put(&x), rig.put(&[3i32, 0, 3]), rig.junk::<u16>(9));
        unsafe { rig.ok(nc_gather_rows(rig.ctx(), y, px, index, 3, 3, 4, DTYPE_BF16)) };
        assert_eq!(rig.get::<u16>(y, 9), [9, 10, 11, 0, 1, 2, 9, 10, 11]);
        let status = unsafe { nc_gather_rows(rig.ctx(), y, px, index, 3, 3, 3, DTYPE_BF16) };
        let message = rig.fails(status, STATUS_PANIC);
        assert!(message.contains("id 3 at position 0, expected 0 to 2"), "{message}");
    }
}
