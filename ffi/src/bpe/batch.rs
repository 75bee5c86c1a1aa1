//! Many documents at once: cut into tasks of even size, worked off by threads, put together in order.

use super::count::Counts;
use super::encode::{Encoder, utf8};
use super::split::Splitter;
use super::train::train;
use crate::abi::STATUS_INVALID;
use crate::context::lock;
use crate::guard::{Error, Result};
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Text that a thread takes at once, in bytes: large against the cost of a task, small against a batch.
const TASK: usize = 1 << 17;

/// Part of a document between two safe borders.
#[derive(Clone, Copy)]
struct Segment {
    document: usize,
    start: usize,
    end: usize,
}

/// Cuts documents into segments and groups these into tasks: ranges of segments.
fn plan(splitter: &Splitter, text: &[u8], documents: &[Range<usize>]) -> Result<(Vec<Segment>, Vec<Range<usize>>)> {
    let (mut segments, mut tasks) = (Vec::with_capacity(documents.len()), Vec::new());
    let (mut first, mut size) = (0, 0);
    for (document, range) in documents.iter().enumerate() {
        let Range { mut start, end } = range.clone();
        if end - start > 2 * TASK {
            let whole = utf8(&text[start..end])?;
            let mut at = 0;
            while at < whole.len() {
                let border = splitter.safe_border(whole, at + TASK);
                tasks.push(first..segments.len());
                (first, size) = (segments.len(), 0);
                segments.push(Segment { document, start: start + at, end: start + border });
                at = border;
            }
            start = end;
        }
        if start < end || range.is_empty() {
            segments.push(Segment { document, start, end });
            size += end - start;
        }
        if size >= TASK {
            tasks.push(first..segments.len());
            (first, size) = (segments.len(), 0);
        }
    }
    tasks.push(first..segments.len());
    tasks.retain(|task| !task.is_empty());
    Ok((segments, tasks))
}

/// Runs `work(state, task)` for all tasks on up to `threads` threads, each with a state of its own; results in task order. The error
/// of the first failing task wins.
fn parallel<S, T: Send>(
    threads: usize,
    tasks: usize,
    start: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, usize) -> Result<T> + Sync,
    finish: impl Fn(S) + Sync,
) -> Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let run = || {
        let (mut state, mut done) = (start(), Vec::new());
        loop {
            let task = next.fetch_add(1, Ordering::Relaxed);
            if task >= tasks {
                finish(state);
                return done;
            }
            done.push((task, work(&mut state, task)));
        }
    };
    let mut results = std::thread::scope(|scope| {
        let helpers: Vec<_> = (1..threads.min(tasks)).map(|_| scope.spawn(run)).collect();
        let mut results = run();
        for helper in helpers {
            results.extend(helper.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        results
    });
    results.sort_unstable_by_key(|&(task, _)| task);
    results.into_iter().map(|(_, result)| result).collect()
}

/// The byte range of each document of an Arrow text column: values and n + 1 offsets.
fn documents(text: &[u8], offsets: &[i32]) -> Result<Vec<Range<usize>>> {
    let ordered = offsets.windows(2).all(|w| w[0] <= w[1]);
    if !ordered || offsets.first().is_none_or(|&o| o < 0) || offsets.last().is_none_or(|&o| o as usize > text.len()) {
        return Err(Error::new(STATUS_INVALID, "Cannot read the text: offsets do not lie in order inside it"));
    }
    Ok(offsets.windows(2).map(|w| w[0] as usize..w[1] as usize).collect())
}

/// Ids of a batch.
pub struct Encoded {
    pub parts: Vec<Vec<u32>>,
    /// ends[d]: number of ids up to the end of document d.
    pub ends: Vec<i64>,
}

impl Encoder {
    /// Encodes the documents of an Arrow text column, each with `prepend` in front and `append` behind.
    pub fn encode_batch(
        &self,
        text: &[u8],
        offsets: &[i32],
        prepend: Option<u32>,
        append: Option<u32>,
        threads: usize,
    ) -> Result<Encoded> {
        let documents = documents(text, offsets)?;
        let (segments, tasks) = plan(self.splitter(), text, &documents)?;
        let work = |scratch: &mut _, task: usize| {
            let segments = &segments[tasks[task].clone()];
            let bytes: usize = segments.iter().map(|s| s.end - s.start).sum();
            let mut ids = Vec::with_capacity(bytes / 3 + 2 * segments.len());
            let mut sizes = Vec::with_capacity(segments.len());
            for &Segment { document, start, end } in segments {
                let before = ids.len();
                if start == documents[document].start {
                    ids.extend(prepend);
                }
                self.encode_with(&text[start..end], scratch, &mut ids)
                    .map_err(|e| Error::new(e.status, format!("{} (document {document} of the batch)", e.message)))?;
                if end == documents[document].end {
                    ids.extend(append);
                }
                sizes.push((document, ids.len() - before));
            }
            Ok((ids, sizes))
        };
        let done = parallel(threads, tasks.len(), || self.take_scratch(), work, |scratch| self.put_scratch(scratch))?;
        let mut encoded = Encoded { parts: Vec::with_capacity(done.len()), ends: vec![0; documents.len()] };
        for (ids, sizes) in done {
            encoded.parts.push(ids);
            for (document, size) in sizes {
                encoded.ends[document] += size as i64;
            }
        }
        let mut total = 0;
        for end in &mut encoded.ends {
            total += *end;
            *end = total;
        }
        Ok(encoded)
    }
}

/// Collects the pieces of a text stream and trains on them.
pub struct Trainer {
    splitter: Splitter,
    counts: Vec<Counts>, // one a thread
    cap: usize,
    max_chars: u64,
    pub chars: u64,
    pub documents: u64,
}

impl Trainer {
    /// Documents are cut to `cap` code points; the document that makes the running sum exceed `max_chars` is the last one.
    pub fn new(pattern: &str, cap: usize, max_chars: u64) -> Result<Self> {
        let splitter = Splitter::new(pattern)?;
        Ok(Trainer { splitter, counts: Vec::new(), cap, max_chars, chars: 0, documents: 0 })
    }

    /// Whether the text is long enough: further documents are ignored.
    pub fn full(&self) -> bool {
        self.chars > self.max_chars
    }

    /// Splits and counts the documents of an Arrow text column.
    pub fn feed(&mut self, text: &[u8], offsets: &[i32], threads: usize) -> Result<()> {
        let mut taken = documents(text, offsets)?;
        let (mut chars, mut count) = (self.chars, 0);
        for range in &mut taken {
            if chars > self.max_chars {
                break;
            }
            let (bytes, length) = cut(&text[range.clone()], self.cap);
            range.end = range.start + bytes;
            chars += length as u64;
            count += 1;
        }
        taken.truncate(count);
        let (segments, tasks) = plan(&self.splitter, text, &taken)?;
        let free = Mutex::new(std::mem::take(&mut self.counts));
        let done = parallel(
            threads,
            tasks.len(),
            || lock(&free).pop().unwrap_or_default(),
            |counts: &mut Counts, task| {
                for &Segment { document, start, end } in &segments[tasks[task].clone()] {
                    let segment = utf8(&text[start..end]).map_err(|e| {
                        Error::new(e.status, format!("{} (document {document} of the batch)", e.message))
                    })?;
                    self.splitter.split(segment, |a, b| counts.add(segment.as_bytes(), a, b, 1))?;
                }
                Ok(())
            },
            |counts| lock(&free).push(counts),
        );
        self.counts = free.into_inner().unwrap_or_else(|e| e.into_inner());
        (self.chars, self.documents) = (chars, self.documents + count as u64);
        done.map(drop)
    }

    /// Number of different pieces so far, an upper bound while several threads count.
    pub fn pieces(&self) -> usize {
        self.counts.iter().map(Counts::len).sum()
    }

    /// Makes up to `limit` merges from everything fed so far.
    pub fn train(&mut self, limit: usize, progress: impl Fn(usize)) -> Result<Vec<(u32, u32)>> {
        self.counts.sort_by_key(Counts::len);
        let mut all = self.counts.pop().unwrap_or_default();
        for counts in self.counts.drain(..) {
            all.merge(&counts);
        }
        let merges = train(&all, limit, progress);
        self.counts.push(all);
        merges
    }
}

/// Length in bytes and in code points of the first `cap` code points.
fn cut(text: &[u8], cap: usize) -> (usize, usize) {
    let starts = |bytes: &[u8]| bytes.iter().filter(|&&b| b & 0xc0 != 0x80).count();
    if text.len() <= cap {
        return (text.len(), starts(text));
    }
    let mut left = cap;
    let mut at = 0;
    for block in text.chunks(4096) {
        let count = starts(block);
        if count > left {
            let rest = block.iter().enumerate().filter(|(_, b)| *b & 0xc0 != 0x80).nth(left);
            return (at + rest.map_or(block.len(), |(i, _)| i), cap);
        }
        left -= count;
        at += block.len();
    }
    (text.len(), cap - left)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const PATTERN: &str = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+";

    proptest! {
        #[test]
        fn cut_counts_code_points(text in "[aé語😀]{0,40}", cap in 1usize..50) {
            let kept: String = text.chars().take(cap).collect();
            prop_assert_eq!(cut(text.as_bytes(), cap), (kept.len(), kept.chars().count()));
        }
    }

    #[test]
    fn cut_crosses_blocks() {
        let text = "é".repeat(5000);
        assert_eq!(cut(text.as_bytes(), 4999), (9998, 4999));
        assert_eq!(cut(text.as_bytes(), 5001), (10_000, 5000));
    }

    #[test]
    fn feed_cuts_documents_and_stops() {
        let mut trainer = Trainer::new(PATTERN, 3, 5).unwrap();
        trainer.feed("abcdefgéé x".as_bytes(), &[0, 7, 12, 13], 2).unwrap();
        // "abc" and "éé " have 6 code points: the third document is too late.
        assert_eq!((trainer.chars, trainer.documents, trainer.full()), (6, 2, true));
        let mut found = BTreeMap::new();
        trainer.counts.iter().for_each(|c| c.each(|piece, n| *found.entry(piece.to_vec()).or_insert(0) += n));
        assert_eq!(found, BTreeMap::from([(b"abc".to_vec(), 1), ("éé".into(), 1), (b" ".to_vec(), 1)]));
    }

    #[test]
    fn one_large_document_equals_its_serial_split() {
        let text: String = (0..200_000).map(|i| ["word ", "語", "12345", "\n\n  ", "=é"][i * i % 5]).collect();
        let mut parallel = Trainer::new(PATTERN, usize::MAX, u64::MAX).unwrap();
        parallel.feed(text.as_bytes(), &[0, text.len() as i32], 3).unwrap();
        let mut serial = Counts::default();
        let splitter = Splitter::new(PATTERN).unwrap();
        splitter.split(&text, |a, b| serial.add(text.as_bytes(), a, b, 1)).unwrap();
        let (mut left, mut right) = (BTreeMap::new(), BTreeMap::new());
        parallel.counts.iter().for_each(|c| c.each(|piece, n| *left.entry(piece.to_vec()).or_insert(0) += n));
        serial.each(|piece, n| *right.entry(piece.to_vec()).or_insert(0) += n);
        assert_eq!(left, right);
    }
}
