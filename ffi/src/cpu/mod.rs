//! Tensor operations on the CPU, one file each.

pub mod comm;
pub mod convert;
pub mod gemm;
pub mod gemm_epilogue;
pub mod gemm_kernel;
pub mod gemm_pack;
#[cfg(test)]
mod gemm_tests;
pub mod isa;
pub mod linear;
pub mod loss;
pub mod math;
pub mod newton_schulz;
pub mod norm;
pub mod optimizer;
pub mod philox;
#[cfg(test)]
pub mod testing;

pub use comm::*;
pub use linear::*;
pub use loss::*;
pub use newton_schulz::*;
pub use norm::*;
pub use optimizer::*;
pub use philox::*;
