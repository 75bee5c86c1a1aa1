//! Collective operations of the CPU library: a world of one rank, in which every collective is a copy.

use crate::abi::{COMM_SELF, STATUS_UNSUPPORTED};
use crate::context::Context;
use crate::guard::{Error, Result, entry};
use crate::memory::element_bytes;
use crate::runtime::{Handle, write_handle};
use std::ffi::c_void;

/// The communicator of the one rank.
struct Alone;

fn len(n: i64) -> Result<usize> {
    usize::try_from(n).map_err(|_| Error::invalid(format!("Cannot use n = {n}, expected at least 0")))
}

/// Enqueues y = x for n elements; y may be x.
fn copy(
    cx: &Context,
    name: &'static str,
    comm: *mut c_void,
    y: *mut c_void,
    x: *mut c_void,
    n: i64,
    dtype: i32,
) -> Result<()> {
    // SAFETY: the caller of the entry passes null or an object of this library.
    unsafe { Handle::<Alone>::get(comm, "comm")? };
    element_bytes(dtype)?;
    let n = len(n)?;
    let (y, x) = (cx.tensor(y, n, dtype, "y")?, cx.tensor(x, n, dtype, "x")?);
    // SAFETY: both ranges are inside allocations; `copy` allows them to be the same.
    cx.enqueue(name, move || unsafe { std::ptr::copy(x.as_ptr(), y.as_ptr(), x.len()) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_comm_create(
    ctx: *mut Context,
    out: *mut u8,
    _id: *mut u8,
    _id_bytes: i32,
    rank: i32,
    world: i32,
    kind: i32,
) -> i32 {
    // SAFETY: null or a live handle; out has 8 bytes.
    unsafe {
        entry(ctx, |_| {
            if kind != COMM_SELF || world > 1 {
                return Err(Error::new(
                    STATUS_UNSUPPORTED,
                    format!(
                        "Cannot join {world} ranks by communicator kind {kind}: the CPU library offers a world of one rank, \
                         expected kind {COMM_SELF} (self) and world 1"
                    ),
                ));
            }
            if world != 1 || rank != 0 {
                let message = format!("Cannot be rank {rank} of {world}, expected rank 0 of 1");
                return Err(Error::invalid(message));
            }
            write_handle(out, Handle::give(Alone));
            Ok(())
        })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_comm_free(ctx: *mut Context, comm: *mut c_void) -> i32 {
    // SAFETY: null or a live handle; the collectives enqueued before do not use the object.
    unsafe { entry(ctx, |_| Handle::<Alone>::take(comm, "comm").map(drop)) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_all_reduce(
    ctx: *mut Context,
    comm: *mut c_void,
    y: *mut c_void,
    x: *mut c_void,
    n: i64,
    _average: i32,
    dtype: i32,
) -> i32 {
    // SAFETY: null or a live handle.
    unsafe { entry(ctx, |cx| copy(cx, "nc_all_reduce", comm, y, x, n, dtype)) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_reduce_scatter(
    ctx: *mut Context,
    comm: *mut c_void,
    y: *mut c_void,
    x: *mut c_void,
    n: i64,
    _average: i32,
    dtype: i32,
) -> i32 {
    // SAFETY: null or a live handle.
    unsafe { entry(ctx, |cx| copy(cx, "nc_reduce_scatter", comm, y, x, n, dtype)) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_all_gather(
    ctx: *mut Context,
    comm: *mut c_void,
    y: *mut c_void,
    x: *mut c_void,
    n: i64,
    dtype: i32,
) -> i32 {
    // SAFETY: null or a live handle.
    unsafe { entry(ctx, |cx| copy(cx, "nc_all_gather", comm, y, x, n, dtype)) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_broadcast(
    ctx: *mut Context,
    comm: *mut c_void,
    y: *mut c_void,
    n: i64,
    root: i32,
    dtype: i32,
) -> i32 {
    // SAFETY: null or a live handle.
    unsafe {
        entry(ctx, |cx| {
            if root != 0 {
                return Err(Error::invalid(format!("Cannot broadcast from rank {root}, expected rank 0 of 1")));
            }
            copy(cx, "nc_broadcast", comm, y, y, n, dtype)
        })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_barrier(ctx: *mut Context, comm: *mut c_void) -> i32 {
    // SAFETY: null or a live handle.
    unsafe { entry(ctx, |_| Handle::<Alone>::get(comm, "comm").map(drop)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::{COMM_MPI, COMM_NCCL, DTYPE_F32, STATUS_INVALID};
    use crate::cpu::testing::Rig;

    fn create(rig: &Rig, rank: i32, world: i32, kind: i32) -> (i32, *mut c_void) {
        let mut out = [0u64];
        // SAFETY: a live context and 8 bytes.
        let status =
            unsafe { nc_comm_create(rig.ctx(), out.as_mut_ptr().cast(), std::ptr::null_mut(), 0, rank, world, kind) };
        (status, out[0] as *mut c_void)
    }

    #[test]
    fn collectives_of_one_rank_copy() {
        let rig = Rig::new(2);
        let (status, comm) = create(&rig, 0, 1, COMM_SELF);
        rig.ok(status);
        let x = [1.5f32, -2.0, 3.0];
        let (ctx, px) = (rig.ctx(), rig.put(&x));
        let y: Vec<_> = (0..3).map(|_| rig.put(&[0f32; 3])).collect();
        // SAFETY: a live context and its memory.
        unsafe {
            rig.ok(nc_all_reduce(ctx, comm, y[0], px, 3, 1, DTYPE_F32));
            rig.ok(nc_reduce_scatter(ctx, comm, y[1], px, 3, 0, DTYPE_F32));
            rig.ok(nc_all_gather(ctx, comm, y[2], px, 3, DTYPE_F32));
            rig.ok(nc_all_reduce(ctx, comm, px, px, 3, 0, DTYPE_F32));
            rig.ok(nc_broadcast(ctx, comm, px, 3, 0, DTYPE_F32));
            rig.ok(nc_barrier(ctx, comm));
            for pointer in [y[0], y[1], y[2], px] {
                assert_eq!(rig.get::<f32>(pointer, 3), x);
            }
            rig.fails(nc_broadcast(ctx, comm, px, 3, 1, DTYPE_F32), STATUS_INVALID);
            rig.fails(nc_all_reduce(ctx, comm, px, px, 1000, 0, DTYPE_F32), STATUS_INVALID);
            rig.ok(nc_comm_free(ctx, comm));
        }
    }

    #[test]
    fn nc_comm_create_says_what_this_library_offers() {
        let rig = Rig::new(1);
        for (world, kind) in [(2, COMM_SELF), (1, COMM_MPI), (8, COMM_NCCL)] {
            let message = rig.fails(create(&rig, 0, world, kind).0, STATUS_UNSUPPORTED);
            assert!(message.contains("a world of one rank"), "{message}");
        }
        rig.fails(create(&rig, 1, 1, COMM_SELF).0, STATUS_INVALID);
    }
}
