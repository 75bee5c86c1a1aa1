//! The tokenizer: byte-pair encoding from split pattern to ids.
//!
//! `split.rs` cuts text into pieces, `count.rs` counts them, `train.rs` makes the merges, `vocab.rs` holds the tables that
//! `encode.rs` applies, `batch.rs` runs many documents on all threads. Texts come as Arrow columns: one byte buffer and n + 1 offsets.

mod batch;
mod count;
mod encode;
mod key;
mod split;
mod train;
mod vocab;

pub use batch::{Encoded, Trainer};
pub use encode::{Encoder, Scratch};
pub use vocab::Vocabulary;

use crate::abi::STATUS_INVALID;
use crate::context::{Context, lock};
use crate::guard::{Error, Result, entry};
use crate::runtime::{Handle, physical_cores, write_handle};
use encode::utf8;
use std::ffi::c_void;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

/// What stands behind a trainer's handle.
struct Training {
    trainer: Trainer,
    merges: Vec<(u32, u32)>,
}

type TrainerHandle = Handle<Mutex<Training>>;
/// What stands behind a tokenizer's handle.
pub type EncoderHandle = Handle<Arc<Encoder>>;
/// What stands behind the handle of encoded documents.
pub type EncodedHandle = Handle<Encoded>;

/// How often a random test repeats: `least`, in the slow tier `PROPTEST_CASES`.
#[cfg(test)]
fn cases(least: u32) -> proptest::prelude::ProptestConfig {
    let config = proptest::prelude::ProptestConfig::default();
    proptest::prelude::ProptestConfig { cases: config.cases.max(least), ..config }
}

/// The elements of a JavaScript buffer.
///
/// # Safety
/// `pointer` has room for `n` elements, aligned, for as long as the slice is used; it may be anything where n is 0.
unsafe fn slice<'a, T>(pointer: *const u8, n: usize) -> &'a [T] {
    // SAFETY: by contract.
    if n == 0 { &[] } else { unsafe { std::slice::from_raw_parts(pointer.cast(), n) } }
}

/// # Safety
/// As `slice`.
unsafe fn slice_mut<'a, T>(pointer: *mut u8, n: usize) -> &'a mut [T] {
    // SAFETY: by contract.
    if n == 0 { &mut [] } else { unsafe { std::slice::from_raw_parts_mut(pointer.cast(), n) } }
}

fn size(value: i64, name: &str) -> Result<usize> {
    usize::try_from(value)
        .map_err(|_| Error::new(STATUS_INVALID, format!("Cannot use {name} {value}, expected at least 0")))
}

fn thread_count(threads: i32) -> usize {
    if threads > 0 { threads as usize } else { physical_cores() }
}

/// A token id, or none below 0.
fn optional(id: i32) -> Option<u32> {
    u32::try_from(id).ok()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_bpe_trainer_create(
    ctx: *mut Context,
    out: *mut u8,
    pattern: *mut u8,
    pattern_bytes: i64,
    doc_cap: i64,
    max_chars: i64,
) -> i32 {
    unsafe {
        entry(ctx, |_| {
            let pattern = utf8(slice(pattern, size(pattern_bytes, "patternBytes")?))?;
            let trainer = Trainer::new(pattern, size(doc_cap, "docCap")?, size(max_chars, "maxChars")? as u64)?;
            write_handle(out, TrainerHandle::give(Mutex::new(Training { trainer, merges: Vec::new() })));
            Ok(())
        })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_bpe_trainer_feed(
    ctx: *mut Context,
    state: *mut u8,
    trainer: *mut c_void,
    text: *mut u8,
    offsets: *mut u8,
    text_bytes: i64,
    documents: i64,
    threads: i32,
) -> i32 {
    unsafe {
        entry(ctx, |_| {
            let text = slice(text, size(text_bytes, "textBytes")?);
            let offsets = slice(offsets, size(documents, "documents")? + 1);
            let trainer = &mut lock(TrainerHandle::get(trainer, "trainer")?).trainer;
            trainer.feed(text, offsets, thread_count(threads))?;
            let values =
                [trainer.chars as i64, trainer.documents as i64, trainer.pieces() as i64, trainer.full() as i64];
            for (i, value) in values.into_iter().enumerate() {
                state.cast::<i64>().add(i).write_unaligned(value);
            }
            Ok(())
        })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_bpe_trainer_train(
    ctx: *mut Context,
    merge_count: *mut u8,
    trainer: *mut c_void,
    limit: i32,
) -> i32 {
    unsafe {
        entry(ctx, |cx| {
            let limit = size(i64::from(limit), "limit")?;
            let training = &mut *lock(TrainerHandle::get(trainer, "trainer")?);
            cx.progress_done.store(0, Ordering::Relaxed);
            cx.progress_total.store(limit as i64, Ordering::Relaxed);
            training.merges =
                training.trainer.train(limit, |done| cx.progress_done.store(done as i64, Ordering::Relaxed))?;
            merge_count.cast::<i64>().write_unaligned(training.merges.len() as i64);
            Ok(())
        })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_bpe_trainer_merges(
    ctx: *mut Context,
    merges: *mut u8,
    trainer: *mut c_void,
    count: i64,
) -> i32 {
    unsafe {
        entry(ctx, |_| {
            let training = lock(TrainerHandle::get(trainer, "trainer")?);
            let out = slice_mut::<[u32; 2]>(merges, size(count, "count")?);
            if out.len() != training.merges.len() {
                let message = format!("Cannot read {count} merges, expected {} as trained", training.merges.len());
                return Err(Error::new(STATUS_INVALID, message));
            }
            for (place, &(left, right)) in out.iter_mut().zip(&training.merges) {
                *place = [left, right];
            }
            Ok(())
        })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_bpe_trainer_free(ctx: *mut Context, trainer: *mut c_void) -> i32 {
    unsafe { entry(ctx, |_| TrainerHandle::take(trainer, "trainer").map(drop)) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_bpe_create(
    ctx: *mut Context,
    out: *mut u8,
    pattern: *mut u8,
    tokens: *mut u8,
    offsets: *mut u8,
    pattern_bytes: i64,
    tokens_bytes: i64,
    vocab: i32,
    mergeable: i32,
) -> i32 {
    unsafe {
        entry(ctx, |_| {
            let pattern = utf8(slice(pattern, size(pattern_bytes, "patternBytes")?))?;
            let tokens = slice(tokens, size(tokens_bytes, "tokensBytes")?);
            let offsets = slice(offsets, size(i64::from(vocab), "vocab")? + 1);
            let encoder = Encoder::new(pattern, tokens, offsets, size(i64::from(mergeable), "mergeable")?)?;
            write_handle(out, EncoderHandle::give(Arc::new(encoder)));
            Ok(())
        })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_bpe_free(ctx: *mut Context, tokenizer: *mut c_void) -> i32 {
    unsafe { entry(ctx, |_| EncoderHandle::take(tokenizer, "tokenizer").map(drop)) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_bpe_merges(ctx: *mut Context, merges: *mut u8, tokenizer: *mut c_void) -> i32 {
    unsafe {
        entry(ctx, |_| {
            let encoder = EncoderHandle::get(tokenizer, "tokenizer")?;
            let out = slice_mut::<[i32; 2]>(merges, encoder.vocab.mergeable());
            for (id, place) in out.iter_mut().enumerate() {
                *place = encoder.parents(id as u32).map_or([-1, -1], |(left, right)| [left as i32, right as i32]);
            }
            Ok(())
        })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_bpe_encode_text(
    ctx: *mut Context,
    ids: *mut u8,
    count: *mut u8,
    tokenizer: *mut c_void,
    text: *mut u8,
    text_bytes: i64,
) -> i32 {
    unsafe {
        entry(ctx, |_| {
            let encoder = EncoderHandle::get(tokenizer, "tokenizer")?;
            let text = slice::<u8>(text, size(text_bytes, "textBytes")?);
            let mut found = Vec::with_capacity(text.len() / 2 + 1);
            encoder.encode_into(text, &mut found)?;
            // Every token has at least one byte, so `ids` with one place a byte is large enough.
            slice_mut::<u32>(ids, text.len())[..found.len()].copy_from_slice(&found);
            count.cast::<i32>().write_unaligned(found.len() as i32);
            Ok(())
        })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_bpe_encode(
    ctx: *mut Context,
    out: *mut u8,
    tokenizer: *mut c_void,
    text: *mut u8,
    offsets: *mut u8,
    text_bytes: i64,
    documents: i64,
    prepend: i32,
    append: i32,
    threads: i32,
) -> i32 {
    unsafe {
        entry(ctx, |_| {
            let encoder = EncoderHandle::get(tokenizer, "tokenizer")?;
            let text = slice(text, size(text_bytes, "textBytes")?);
            let offsets = slice(offsets, size(documents, "documents")? + 1);
            let (prepend, append) = (optional(prepend), optional(append));
            let encoded = encoder.encode_batch(text, offsets, prepend, append, thread_count(threads))?;
            let total = encoded.ends.last().copied().unwrap_or(0);
            out.cast::<i64>().add(1).write_unaligned(total);
            write_handle(out, EncodedHandle::give(encoded));
            Ok(())
        })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_bpe_encoded_read(
    ctx: *mut Context,
    ids: *mut u8,
    ends: *mut u8,
    encoded: *mut c_void,
    total: i64,
    documents: i64,
) -> i32 {
    unsafe {
        entry(ctx, |_| {
            let encoded = EncodedHandle::take(encoded, "encoded")?;
            let (total, documents) = (size(total, "total")?, size(documents, "documents")?);
            let ids_total: usize = encoded.parts.iter().map(Vec::len).sum();
            if total != ids_total || documents != encoded.ends.len() {
                let message = format!(
                    "Cannot read {total} ids of {documents} documents, expected {ids_total} of {}",
                    encoded.ends.len()
                );
                return Err(Error::new(STATUS_INVALID, message));
            }
            let mut rest = slice_mut::<u32>(ids, total);
            for part in &encoded.parts {
                let (place, behind) = rest.split_at_mut(part.len());
                place.copy_from_slice(part);
                rest = behind;
            }
            slice_mut::<i64>(ends, documents).copy_from_slice(&encoded.ends);
            Ok(())
        })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_bpe_decode(
    ctx: *mut Context,
    text: *mut u8,
    tokenizer: *mut c_void,
    ids: *mut u8,
    text_bytes: i64,
    count: i64,
) -> i32 {
    unsafe {
        entry(ctx, |_| {
            let encoder = EncoderHandle::get(tokenizer, "tokenizer")?;
            let text = slice_mut::<u8>(text, size(text_bytes, "textBytes")?);
            encoder.vocab.decode_into(slice(ids, size(count, "count")?), text)
        })
    }
}
