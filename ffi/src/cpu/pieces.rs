//! How jobs cut their work: pieces of fixed size (so that the bits do not depend on the number of threads), run inline when there is
//! only one, and the way a job reports data that it cannot use.

use crate::memory::Memory;
use rayon::prelude::*;

/// Elements that one piece of a loop over memory takes: large against the cost of a hand-over, small against an L2 cache.
pub const PIECE: usize = 16 << 10;

/// Runs body(begin, end) over 0..n in pieces of `step`, in parallel when there are several.
pub fn pieces(n: usize, step: usize, body: impl Fn(usize, usize) + Sync + Send) {
    if n <= step {
        if n > 0 {
            body(0, n);
        }
        return;
    }
    (0..n.div_ceil(step)).into_par_iter().for_each(|i| body(i * step, n.min((i + 1) * step)));
}

/// Runs body(begin, end) over `rows` rows of `width` elements each, about PIECE elements at a time.
pub fn row_pieces(rows: usize, width: usize, body: impl Fn(usize, usize) + Sync + Send) {
    pieces(rows, (PIECE / width.max(1)).max(1), body);
}

/// Ends the running job; the queue reports `message`. Unlike `panic!` it prints nothing.
pub fn fail(message: String) -> ! {
    std::panic::resume_unwind(Box::new(message))
}

/// Elements begin..end of an output, for the one piece that owns them.
///
/// # Safety
/// begin <= end <= memory.len(); no other piece asks for any of them.
#[allow(clippy::mut_from_ref)]
pub unsafe fn piece_mut<T>(memory: &Memory<T>, begin: usize, end: usize) -> &mut [T] {
    debug_assert!(begin <= end && end <= memory.len());
    // SAFETY: inside the checked memory, disjoint by the caller's promise.
    unsafe { std::slice::from_raw_parts_mut(memory.as_ptr().add(begin), end - begin) }
}
