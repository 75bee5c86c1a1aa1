//! nanochat's CPU library: the C interface of `src/native/abi.ts` in Rust.
//!
//! `context.rs` has the queue, memory, events and graphs; `cpu/<op>.rs` one tensor operation each (the plain loop first, then the
//! fast version that is tested against it); `bpe/` the tokenizer. Every entry goes through `guard.rs`.
#![deny(unsafe_op_in_unsafe_fn)]
#![allow(clippy::too_many_arguments, clippy::missing_safety_doc)]
#![allow(non_snake_case)] // dimensions keep their one-letter names: B, T, C, H, G, D, V

mod abi;
pub mod bpe;
mod context;
pub mod cpu;
mod file;
mod guard;
mod memory;
pub mod parquet_io;
mod process;
mod runtime;

pub use bpe::*;
pub use context::Context;
pub use cpu::*;
pub use file::*;
pub use guard::{Error, Result};
pub use memory::Memory;
pub use parquet_io::*;
pub use process::*;
pub use runtime::*;
