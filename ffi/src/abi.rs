// Generated from src/native/abi.ts by dev/gen_abi.ts; do not edit.
#![allow(dead_code)]
use crate::Context;
use std::ffi::c_void;

pub const ABI_VERSION: i32 = 1;
pub const ABI_HASH: &str = "2e576f6503885da5f0496cc691be427c";
/// Element sizes by dtype code.
pub const DTYPE_BYTES: [usize; 8] = [4, 2, 2, 4, 2, 1, 1, 1];
pub const DTYPE_F32: i32 = 0;
pub const DTYPE_BF16: i32 = 1;
pub const DTYPE_F16: i32 = 2;
pub const DTYPE_I32: i32 = 3;
pub const DTYPE_U16: i32 = 4;
pub const DTYPE_I8: i32 = 5;
pub const DTYPE_E4M3: i32 = 6;
pub const DTYPE_E5M2: i32 = 7;
pub const STATUS_OK: i32 = 0;
pub const STATUS_INVALID: i32 = 1;
pub const STATUS_OUT_OF_MEMORY: i32 = 2;
pub const STATUS_IO: i32 = 3;
pub const STATUS_DATA: i32 = 4;
pub const STATUS_UNSUPPORTED: i32 = 5;
pub const STATUS_DEVICE: i32 = 6;
pub const STATUS_PANIC: i32 = 7;
pub const STATUS_NOT_READY: i32 = 8;
pub const STATUS_NON_FINITE: i32 = 9;
pub const LAYOUT_ROWS: i32 = 0;
pub const LAYOUT_PACKED: i32 = 1;
pub const PACK_FORWARD: i32 = 0;
pub const PACK_BACKWARD: i32 = 1;
pub const EPILOGUE_NONE: i32 = 0;
pub const EPILOGUE_RELU2: i32 = 1;
pub const ADAMW_LR: i32 = 0;
pub const ADAMW_BETA1: i32 = 1;
pub const ADAMW_BETA2: i32 = 2;
pub const ADAMW_EPS: i32 = 3;
pub const ADAMW_WEIGHT_DECAY: i32 = 4;
pub const ADAMW_BIAS_CORRECTION1: i32 = 5;
pub const ADAMW_BIAS_CORRECTION2: i32 = 6;
pub const MUON_LR: i32 = 0;
pub const MUON_MOMENTUM: i32 = 1;
pub const MUON_WEIGHT_DECAY: i32 = 2;
pub const COMM_SELF: i32 = 0;
pub const COMM_MPI: i32 = 1;
pub const COMM_NCCL: i32 = 2;

const _: unsafe extern "C" fn(*mut u8) -> i32 = crate::nc_abi_hash;
const _: unsafe extern "C" fn(*mut u8, i32, i32) -> i32 = crate::nc_context_create;
const _: unsafe extern "C" fn(*mut Context) -> i32 = crate::nc_context_free;
const _: unsafe extern "C" fn(*mut Context, *mut u8, i32) -> i32 = crate::nc_error;
const _: unsafe extern "C" fn(*mut Context, *mut u8, i32) -> i32 = crate::nc_device_info;
const _: unsafe extern "C" fn(*mut Context, *mut u8) -> i32 = crate::nc_memory_info;
const _: unsafe extern "C" fn(*mut Context, *mut u8, i64) -> i32 = crate::nc_alloc;
const _: unsafe extern "C" fn(*mut Context, *mut c_void) -> i32 = crate::nc_free;
const _: unsafe extern "C" fn(*mut Context, *mut u8, i64) -> i32 = crate::nc_host_alloc;
const _: unsafe extern "C" fn(*mut Context, *mut c_void, *mut u8, i64) -> i32 = crate::nc_host_write;
const _: unsafe extern "C" fn(*mut Context, *mut u8, *mut c_void, i64) -> i32 = crate::nc_host_read;
const _: unsafe extern "C" fn(*mut Context, *mut c_void, *mut u8, i64) -> i32 = crate::nc_upload;
const _: unsafe extern "C" fn(*mut Context, *mut c_void, *mut c_void, i64) -> i32 = crate::nc_copy;
const _: unsafe extern "C" fn(*mut Context, *mut c_void, *mut c_void, i64, i64, i64, i64) -> i32 = crate::nc_copy_2d;
const _: unsafe extern "C" fn(*mut Context, *mut c_void, i64, f64, i32) -> i32 = crate::nc_fill;
const _: unsafe extern "C" fn(*mut Context) -> i32 = crate::nc_wait;
const _: unsafe extern "C" fn(*mut Context, *mut u8) -> i32 = crate::nc_stream_create;
const _: unsafe extern "C" fn(*mut Context, *mut c_void) -> i32 = crate::nc_stream_free;
const _: unsafe extern "C" fn(*mut Context, *mut c_void) -> i32 = crate::nc_stream_use;
const _: unsafe extern "C" fn(*mut Context, *mut u8) -> i32 = crate::nc_event_create;
const _: unsafe extern "C" fn(*mut Context, *mut c_void) -> i32 = crate::nc_event_free;
const _: unsafe extern "C" fn(*mut Context, *mut c_void) -> i32 = crate::nc_event_record;
const _: unsafe extern "C" fn(*mut Context, *mut c_void) -> i32 = crate::nc_event_query;
const _: unsafe extern "C" fn(*mut Context, *mut c_void) -> i32 = crate::nc_event_wait;
const _: unsafe extern "C" fn(*mut Context, *mut u8, *mut c_void, *mut c_void) -> i32 = crate::nc_event_elapsed;
const _: unsafe extern "C" fn(*mut Context, *mut c_void) -> i32 = crate::nc_stream_wait_event;
const _: unsafe extern "C" fn(*mut Context) -> i32 = crate::nc_graph_begin;
const _: unsafe extern "C" fn(*mut Context, *mut u8) -> i32 = crate::nc_graph_end;
const _: unsafe extern "C" fn(*mut Context, *mut c_void) -> i32 = crate::nc_graph_launch;
const _: unsafe extern "C" fn(*mut Context, *mut c_void) -> i32 = crate::nc_graph_free;
const _: unsafe extern "C" fn(*mut Context, *mut u8) -> i32 = crate::nc_progress;
const _: unsafe extern "C" fn(*mut Context, *mut u8, i32, i32) -> i32 = crate::nc_profile;
const _: unsafe extern "C" fn(*mut Context, *mut c_void, *mut c_void, i64, i32, i32) -> i32 = crate::nc_cast;
const _: unsafe extern "C" fn(*mut Context, *mut c_void, *mut c_void, *mut c_void, i64, i32) -> i32 = crate::nc_add;
const _: unsafe extern "C" fn(*mut Context, *mut c_void, *mut c_void, i64, i32) -> i32 = crate::nc_relu2_fwd;
const _: unsafe extern "C" fn(*mut Context, *mut c_void, *mut c_void, *mut c_void, i64, i32, i32) -> i32 =
    crate::nc_relu2_bwd;
const _: unsafe extern "C" fn(*mut Context, *mut c_void, *mut c_void, *mut c_void, i32, i32, i32, i32, i32) -> i32 =
    crate::nc_embedding_fwd;
const _: unsafe extern "C" fn(*mut Context, *mut c_void, *mut c_void, *mut c_void, i32, i32, i32, i32, i32) -> i32 =
    crate::nc_embedding_bwd;
const _: unsafe extern "C" fn(*mut Context, *mut c_void, *mut c_void, *mut c_void, i32, i32, i32, i32) -> i32 =
    crate::nc_gather_rows;
const _: unsafe extern "C" fn(*mut Context, *mut c_void, *mut c_void, *mut c_void, i32, i32, f32, i32) -> i32 =
    crate::nc_rmsnorm_fwd;
const _: unsafe extern "C" fn(
    *mut Context,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    i32,
    i32,
    i32,
    i32,
) -> i32 = crate::nc_rmsnorm_bwd;
const _: unsafe extern "C" fn(
    *mut Context,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    i32,
    i32,
    i32,
    i32,
    i32,
    f32,
    f32,
    i32,
) -> i32 = crate::nc_qk_rope_norm_fwd;
const _: unsafe extern "C" fn(
    *mut Context,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    i32,
    i32,
    i32,
    i32,
    i32,
    f32,
    i32,
    i32,
) -> i32 = crate::nc_qk_rope_norm_bwd;
const _: unsafe extern "C" fn(
    *mut Context,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    i32,
    i32,
    i32,
    i32,
    i32,
    i32,
    f32,
    i32,
) -> i32 = crate::nc_attention_fwd;
const _: unsafe extern "C" fn(
    *mut Context,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    i32,
    i32,
    i32,
    i32,
    i32,
    i32,
    f32,
    i32,
) -> i32 = crate::nc_attention_bwd;
const _: unsafe extern "C" fn(
    *mut Context,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    i32,
    i32,
    i32,
    i32,
    i32,
    i32,
    i32,
    f32,
    i32,
) -> i32 = crate::nc_attention_cached_fwd;
const _: unsafe extern "C" fn(
    *mut Context,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    i32,
    i32,
    i32,
    i32,
    i32,
    i32,
) -> i32 = crate::nc_kv_append;
const _: unsafe extern "C" fn(*mut Context, *mut c_void, *mut c_void, i32, i32, i32, f32, i32) -> i32 =
    crate::nc_softcap_fwd;
const _: unsafe extern "C" fn(*mut Context, *mut c_void, *mut c_void, *mut c_void, i64, i32) -> i32 =
    crate::nc_weighted_sum;
const _: unsafe extern "C" fn(
    *mut Context,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    i32,
    i32,
    i32,
) -> i32 = crate::nc_sample;
const _: unsafe extern "C" fn(*mut Context, *mut c_void, *mut c_void, *mut c_void, *mut c_void, i32, i32, i32) -> i32 =
    crate::nc_top_logprobs;
const _: unsafe extern "C" fn(
    *mut Context,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    i32,
    i32,
    i32,
    i32,
    i32,
    i32,
    i32,
    i32,
) -> i32 = crate::nc_linear_fwd;
const _: unsafe extern "C" fn(
    *mut Context,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    i32,
    i32,
    i32,
    i32,
    i32,
    i32,
    i32,
    i32,
    i32,
) -> i32 = crate::nc_linear_bwd_x;
const _: unsafe extern "C" fn(
    *mut Context,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    i32,
    i32,
    i32,
    i32,
    i32,
    i32,
    i32,
) -> i32 = crate::nc_linear_bwd_w;
const _: unsafe extern "C" fn(*mut Context, *mut u8, i32, i32, i32, i32) -> i32 = crate::nc_pack_bytes;
const _: unsafe extern "C" fn(*mut Context, *mut c_void, *mut c_void, i32, i32, i32, i32, i32) -> i32 = crate::nc_pack;
const _: unsafe extern "C" fn(*mut Context, *mut c_void, *mut c_void, *mut c_void, i32, i32, i32, i32, i32) -> i32 =
    crate::nc_newton_schulz;
const _: unsafe extern "C" fn(*mut Context, *mut u8, *mut u8, i64) -> i32 = crate::nc_parquet_open;
const _: unsafe extern "C" fn(*mut Context, *mut u8, *mut c_void, i32) -> i32 = crate::nc_parquet_describe;
const _: unsafe extern "C" fn(*mut Context, *mut c_void) -> i32 = crate::nc_parquet_free;
const _: unsafe extern "C" fn(*mut Context, *mut u8, *mut c_void, i32, i32, i32) -> i32 = crate::nc_parquet_read;
const _: unsafe extern "C" fn(*mut Context, *mut u8, *mut c_void) -> i32 = crate::nc_parquet_layout;
const _: unsafe extern "C" fn(*mut Context, *mut u8, *mut c_void, i64) -> i32 = crate::nc_parquet_fill;
const _: unsafe extern "C" fn(*mut Context, *mut u8, *mut c_void, *mut c_void, i32, i32, i32, i32) -> i32 =
    crate::nc_parquet_encode_text;
const _: unsafe extern "C" fn(*mut Context, *mut u8, *mut u8, i64, i32) -> i32 = crate::nc_shard_create;
const _: unsafe extern "C" fn(*mut Context, *mut c_void, *mut u8, *mut u8, i64) -> i32 = crate::nc_shard_write;
const _: unsafe extern "C" fn(*mut Context, *mut c_void) -> i32 = crate::nc_shard_finish;
const _: unsafe extern "C" fn(*mut Context, *mut c_void) -> i32 = crate::nc_shard_free;
const _: unsafe extern "C" fn(*mut Context, *mut c_void, i64, u64, u64, f32, f32) -> i32 = crate::nc_normal;
const _: unsafe extern "C" fn(*mut Context, *mut c_void, i64, u64, u64, f32, f32) -> i32 = crate::nc_uniform;
const _: unsafe extern "C" fn(
    *mut Context,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    i32,
    i32,
    i32,
    i32,
    i32,
    f32,
    i32,
    i32,
    i32,
) -> i32 = crate::nc_lm_head_loss;
const _: unsafe extern "C" fn(
    *mut Context,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    i32,
    i32,
    i32,
    i32,
    i32,
    i32,
    f32,
    i32,
    i32,
) -> i32 = crate::nc_lm_head_score;
const _: unsafe extern "C" fn(
    *mut Context,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    i64,
    i32,
) -> i32 = crate::nc_adamw;
const _: unsafe extern "C" fn(
    *mut Context,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    i64,
    i32,
) -> i32 = crate::nc_muon_momentum;
const _: unsafe extern "C" fn(
    *mut Context,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    i64,
    f32,
    i32,
    i32,
) -> i32 = crate::nc_muon_update;
const _: unsafe extern "C" fn(*mut Context, *mut c_void, *mut c_void, i64, i32) -> i32 = crate::nc_sum_squares;
const _: unsafe extern "C" fn(*mut Context, *mut c_void, *mut c_void, *mut c_void) -> i32 = crate::nc_clip_scale;
const _: unsafe extern "C" fn(*mut Context, *mut c_void, *mut c_void, i64, i32) -> i32 = crate::nc_first_non_finite;
const _: unsafe extern "C" fn(*mut Context, *mut u8, *mut u8, i32, i32, i32, i32) -> i32 = crate::nc_comm_create;
const _: unsafe extern "C" fn(*mut Context, *mut c_void) -> i32 = crate::nc_comm_free;
const _: unsafe extern "C" fn(*mut Context, *mut c_void, *mut c_void, *mut c_void, i64, i32, i32) -> i32 =
    crate::nc_all_reduce;
const _: unsafe extern "C" fn(*mut Context, *mut c_void, *mut c_void, *mut c_void, i64, i32, i32) -> i32 =
    crate::nc_reduce_scatter;
const _: unsafe extern "C" fn(*mut Context, *mut c_void, *mut c_void, *mut c_void, i64, i32) -> i32 =
    crate::nc_all_gather;
const _: unsafe extern "C" fn(*mut Context, *mut c_void, *mut c_void, i64, i32, i32) -> i32 = crate::nc_broadcast;
const _: unsafe extern "C" fn(*mut Context, *mut c_void) -> i32 = crate::nc_barrier;
const _: unsafe extern "C" fn(*mut Context, *mut u8, *mut u8, i32) -> i32 = crate::nc_file_map;
const _: unsafe extern "C" fn(*mut Context, *mut c_void) -> i32 = crate::nc_file_unmap;
const _: unsafe extern "C" fn(*mut Context, *mut u8, *mut c_void, i64, i64) -> i32 = crate::nc_sha256;
const _: unsafe extern "C" fn(*mut Context, *mut u8, *mut u8, i32, *mut u8, i64, *mut u8, i32, i64) -> i32 =
    crate::nc_file_write;
const _: unsafe extern "C" fn(*mut Context, *mut u8, *mut u8, i32) -> i32 = crate::nc_disk_free;
const _: unsafe extern "C" fn(*mut Context, i32, i64, i32) -> i32 = crate::nc_limit_process;
const _: unsafe extern "C" fn(*mut Context, *mut u8, *mut u8, i64, i64, i64) -> i32 = crate::nc_bpe_trainer_create;
const _: unsafe extern "C" fn(*mut Context, *mut u8, *mut c_void, *mut u8, *mut u8, i64, i64, i32) -> i32 =
    crate::nc_bpe_trainer_feed;
const _: unsafe extern "C" fn(*mut Context, *mut u8, *mut c_void, i32) -> i32 = crate::nc_bpe_trainer_train;
const _: unsafe extern "C" fn(*mut Context, *mut u8, *mut c_void, i64) -> i32 = crate::nc_bpe_trainer_merges;
const _: unsafe extern "C" fn(*mut Context, *mut c_void) -> i32 = crate::nc_bpe_trainer_free;
const _: unsafe extern "C" fn(*mut Context, *mut u8, *mut u8, *mut u8, *mut u8, i64, i64, i32, i32) -> i32 =
    crate::nc_bpe_create;
const _: unsafe extern "C" fn(*mut Context, *mut c_void) -> i32 = crate::nc_bpe_free;
const _: unsafe extern "C" fn(*mut Context, *mut u8, *mut c_void) -> i32 = crate::nc_bpe_merges;
const _: unsafe extern "C" fn(*mut Context, *mut u8, *mut u8, *mut c_void, *mut u8, i64) -> i32 =
    crate::nc_bpe_encode_text;
const _: unsafe extern "C" fn(*mut Context, *mut u8, *mut c_void, *mut u8, *mut u8, i64, i64, i32, i32, i32) -> i32 =
    crate::nc_bpe_encode;
const _: unsafe extern "C" fn(*mut Context, *mut u8, *mut u8, *mut c_void, i64, i64) -> i32 =
    crate::nc_bpe_encoded_read;
const _: unsafe extern "C" fn(*mut Context, *mut u8, *mut c_void, *mut u8, i64, i64) -> i32 = crate::nc_bpe_decode;
