//! Tensor operations on the CPU, one file each.

pub mod attention;
pub mod attention_bwd;
pub mod attention_cached;
#[cfg(test)]
pub mod attention_tests;
pub mod comm;
pub mod convert;
pub mod elementwise;
pub mod embedding;
pub mod gemm;
pub mod gemm_epilogue;
pub mod gemm_int8;
pub mod gemm_kernel;
#[cfg(target_arch = "x86_64")]
mod gemm_lanes;
mod gemm_mirror;
pub mod gemm_pack;
mod gemm_scratch;
#[cfg(test)]
mod gemm_tests;
pub mod isa;
pub mod kv_cache;
pub mod linear;
mod lm_head;
pub mod loss;
pub mod math;
pub mod newton_schulz;
pub mod norm;
pub mod optimizer;
pub mod philox;
pub mod pieces;
pub mod qk_rope_norm;
pub mod rmsnorm;
pub mod sample;
pub mod score;
pub mod simd;
#[cfg(test)]
mod simd_tests;
#[cfg(target_arch = "x86_64")]
pub mod simd_x86;
pub mod softcap;
#[cfg(test)]
pub mod testing;
pub mod tile;
pub mod top_logprobs;
pub mod weighted_sum;

pub use attention::*;
pub use attention_bwd::*;
pub use attention_cached::*;
pub use comm::*;
pub use elementwise::*;
pub use embedding::*;
pub use kv_cache::*;
pub use linear::*;
pub use loss::*;
pub use newton_schulz::*;
pub use norm::*;
pub use optimizer::*;
pub use philox::*;
pub use qk_rope_norm::*;
pub use rmsnorm::*;
pub use sample::*;
pub use score::*;
pub use softcap::*;
pub use top_logprobs::*;
pub use weighted_sum::*;
