//! Errors and panics of the `parquet` crate on damaged bytes, turned into one clear message.

use crate::Error;
use crate::abi::{STATUS_DATA, STATUS_UNSUPPORTED};
use crate::guard::panic_text;
use ::parquet::errors::ParquetError;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

/// Damaged or impossible bytes.
pub fn data(message: impl Into<String>) -> Error {
    Error::new(STATUS_DATA, message)
}

/// The same, on the crate's side.
pub fn general(message: String) -> ParquetError {
    ParquetError::General(message)
}

/// An error of the crate as one of ours.
pub fn foreign(error: ParquetError) -> Error {
    Error::new(status_of(&error), plain(&error))
}

/// The status that an error of the crate stands for.
pub fn status_of(error: &ParquetError) -> i32 {
    if matches!(error, ParquetError::NYI(_)) { STATUS_UNSUPPORTED } else { STATUS_DATA }
}

/// The crate's message without its prefix and on one line.
pub fn plain(error: &ParquetError) -> String {
    let text = match error {
        ParquetError::General(text) | ParquetError::NYI(text) | ParquetError::EOF(text) => text.clone(),
        other => other.to_string(),
    };
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

thread_local! {
    static SHIELDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `body` on foreign bytes: its errors get `context` in front, and a panic of the crate becomes status DATA without a message on
/// the terminal.
pub fn shielded<T>(context: &str, body: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let earlier = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !SHIELDED.get() {
                earlier(info);
            }
        }));
    });
    SHIELDED.set(true);
    let result = catch_unwind(AssertUnwindSafe(body));
    SHIELDED.set(false);
    result
        .unwrap_or_else(|payload| Err(data(format!("its bytes are damaged ({})", panic_text(&*payload)))))
        .map_err(|e| Error::new(e.status, format!("{context}: {}", e.message)))
}
