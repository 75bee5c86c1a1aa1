//! The only wrapper around entry points: statuses out, messages into the context, panics stopped.

use crate::Context;
use crate::abi::{STATUS_INVALID, STATUS_OK, STATUS_PANIC};
use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

/// A status of `abi.ts` with its message. Messages follow "Cannot <do this>: <what is>, expected <what should be>".
#[derive(Clone, Debug)]
pub struct Error {
    pub status: i32,
    pub message: String,
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub fn new(status: i32, message: impl Into<String>) -> Self {
        Error { status, message: message.into() }
    }

    /// A wrong argument.
    pub fn invalid(message: impl Into<String>) -> Self {
        Error::new(STATUS_INVALID, message)
    }

    /// Ends a queued job with this error: the queue keeps it and skips the jobs behind it.
    pub fn fail(self) -> ! {
        std::panic::resume_unwind(Box::new(self))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Message of the last entry that had no context to keep it in (a failed nc_context_create).
static ORPHAN: Mutex<String> = Mutex::new(String::new());

/// Text of a panic payload.
pub fn panic_text(payload: &(dyn Any + Send)) -> String {
    payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("unknown panic")
        .to_string()
}

/// Runs the body of an entry point that has a context.
///
/// # Safety
/// `ctx` is null or a live handle of nc_context_create.
pub unsafe fn entry(ctx: *mut Context, body: impl FnOnce(&Context) -> Result<()>) -> i32 {
    // SAFETY: the caller passes a live handle or null.
    let Some(context) = (unsafe { ctx.as_ref() }) else {
        return orphan(|| Err(Error::invalid("Cannot run: context is null, expected a handle")));
    };
    match run(|| body(context)) {
        Ok(()) => STATUS_OK,
        Err(error) => {
            let status = error.status;
            context.set_error(error.message);
            status
        }
    }
}

/// Runs the body of an entry point without a context.
pub fn orphan(body: impl FnOnce() -> Result<()>) -> i32 {
    match run(body) {
        Ok(()) => STATUS_OK,
        Err(error) => {
            *ORPHAN.lock().unwrap_or_else(|e| e.into_inner()) = error.message;
            error.status
        }
    }
}

/// The message kept by `orphan`.
pub fn orphan_error() -> String {
    ORPHAN.lock().unwrap_or_else(|e| e.into_inner()).clone()
}

/// Catches panics of `body` and turns them into an error.
pub fn run<T>(body: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| Err(caught(payload, "go on")))
}

/// The error behind an unwinding: the one that `Error::fail` threw, else a defect of ours.
pub fn caught(payload: Box<dyn Any + Send>, action: &str) -> Error {
    match payload.downcast::<Error>() {
        Ok(error) => *error,
        Err(payload) => Error::new(STATUS_PANIC, format!("Cannot {action}: {}", panic_text(&*payload))),
    }
}
