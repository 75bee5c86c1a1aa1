//! Tensor operations on the CPU, one file each.

pub mod convert;
pub mod isa;
pub mod math;
pub mod philox;

pub use philox::*;
