//! Tensor operations on the CPU, one file each.

pub mod convert;
pub mod gemm;
pub mod isa;
pub mod math;
pub mod philox;

pub use philox::*;
