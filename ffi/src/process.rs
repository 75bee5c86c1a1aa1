//! Limits of a child process: the memory that it may write and the processor time that it may use, set from outside after its start.

use crate::Context;
use crate::abi::STATUS_UNSUPPORTED;
use crate::guard::{Error, Result, entry, orphan};

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nc_limit_process(ctx: *mut Context, pid: i32, data_bytes: i64, cpu_seconds: i32) -> i32 {
    let limit = || limit(pid, data_bytes, cpu_seconds);
    if ctx.is_null() {
        return orphan(limit);
    }
    // SAFETY: a live handle.
    unsafe { entry(ctx, |_| limit()) }
}

fn limit(pid: i32, data_bytes: i64, cpu_seconds: i32) -> Result<()> {
    // 0 would be this process, a negative number a group.
    if pid <= 0 || data_bytes <= 0 || cpu_seconds <= 0 {
        return Err(Error::invalid(format!(
            "Cannot limit process {pid}: {data_bytes} bytes and {cpu_seconds} s, expected positive numbers"
        )));
    }
    set(pid, data_bytes as u64, cpu_seconds as u64)
}

#[cfg(target_os = "linux")]
fn set(pid: i32, data_bytes: u64, cpu_seconds: u64) -> Result<()> {
    use crate::abi::STATUS_IO;
    for (resource, value) in [(libc::RLIMIT_DATA, data_bytes), (libc::RLIMIT_CPU, cpu_seconds)] {
        let mut old = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: `old` is a live struct; a null new limit only reads.
        let mut failed = unsafe { libc::prlimit(pid, resource, std::ptr::null(), &mut old) } != 0;
        if !failed {
            let value = value.min(old.rlim_max);
            let new = libc::rlimit { rlim_cur: value, rlim_max: value };
            // SAFETY: `new` is a live struct; a null old limit is not written.
            failed = unsafe { libc::prlimit(pid, resource, &new, std::ptr::null_mut()) } != 0;
        }
        if failed {
            let error = std::io::Error::last_os_error();
            let refused = matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM));
            let status = if refused { STATUS_UNSUPPORTED } else { STATUS_IO };
            return Err(Error::new(status, format!("Cannot limit process {pid}: {error}")));
        }
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn set(pid: i32, _: u64, _: u64) -> Result<()> {
    Err(Error::new(STATUS_UNSUPPORTED, format!("Cannot limit process {pid}: this system has no prlimit")))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::abi::{STATUS_INVALID, STATUS_IO, STATUS_OK};
    use crate::guard::orphan_error;
    use std::process::Command;

    fn limit_process(pid: i32, bytes: i64, seconds: i32) -> i32 {
        // SAFETY: null is allowed.
        unsafe { nc_limit_process(std::ptr::null_mut(), pid, bytes, seconds) }
    }

    #[test]
    fn nc_limit_process_sets_both_limits_of_another_process() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = child.id() as i32;
        let status = limit_process(pid, 123 << 20, 77);
        let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(status, STATUS_OK);
        let words = |name: &str| -> Vec<String> {
            let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
            line[name.len()..].split_whitespace().take(2).map(str::to_string).collect()
        };
        assert_eq!(words("Max data size"), ["128974848", "128974848"]);
        assert_eq!(words("Max cpu time"), ["77", "77"]);
    }

    #[test]
    fn nc_limit_process_names_what_is_wrong() {
        for (pid, bytes, seconds) in [(0, 1, 1), (-1, 1, 1), (1, 0, 1), (1, 1, 0)] {
            assert_eq!(limit_process(pid, bytes, seconds), STATUS_INVALID);
        }
        assert_eq!(limit_process(i32::MAX, 1 << 30, 9), STATUS_IO);
        assert!(orphan_error().starts_with("Cannot limit process 2147483647: "), "{}", orphan_error());
    }
}
