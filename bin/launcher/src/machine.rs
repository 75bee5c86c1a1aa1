//! What the program needs of the machine. Looked at before anything else, because the program itself would die of a missing symbol or an
//! illegal instruction. Another system or processor does not get here: its shell says that it cannot execute the file.

/// Minor version of the oldest GNU C library (2.x) that the program starts with.
pub const GLIBC_MINOR: u32 = 34;

/// Says what is missing for a program that was built for glibc 2.`glibc_minor`.
pub fn check(glibc_minor: u32) -> Result<(), String> {
    if cfg!(target_os = "linux") {
        check_glibc(std::fs::read(LOADER).ok().as_deref(), glibc_minor)?;
    }
    check_processor(has_vectors())
}

/// The program's ELF interpreter; of the same version as the C library beside it.
const LOADER: &str =
    if cfg!(target_arch = "aarch64") { "/lib/ld-linux-aarch64.so.1" } else { "/lib64/ld-linux-x86-64.so.2" };

#[cfg(target_arch = "x86_64")]
fn has_vectors() -> bool {
    std::arch::is_x86_feature_detected!("avx2")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_vectors() -> bool {
    true // every processor of the architecture has them
}

fn check_processor(has_vectors: bool) -> Result<(), String> {
    if has_vectors {
        return Ok(());
    }
    Err("Cannot start nanochat: this processor has no AVX2, expected an x86-64 processor of 2013 or newer".into())
}

/// `loader` is the content of the interpreter, absent where there is none.
fn check_glibc(loader: Option<&[u8]>, needed: u32) -> Result<(), String> {
    let found = match loader.map(glibc_minor) {
        None => format!("there is no GNU C library here ({LOADER} is missing)"),
        Some(None) => "its GNU C library is older than 2.33".into(),
        Some(Some(minor)) if minor < needed => format!("its GNU C library is 2.{minor}"),
        Some(_) => return Ok(()),
    };
    Err(format!(
        "Cannot start nanochat on this system: {found}, expected glibc 2.{needed} or newer (Debian 12, Ubuntu 22.04, RHEL 9)"
    ))
}

/// Reads the version that the interpreter prints with `--version`, which it knows since 2.33: "... release version 2.36.".
fn glibc_minor(loader: &[u8]) -> Option<u32> {
    let phrase = b" release version 2.";
    let at = loader.windows(phrase.len()).position(|window| window == phrase)? + phrase.len();
    let digits: Vec<u8> = loader[at..].iter().copied().take_while(u8::is_ascii_digit).collect();
    String::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_glibc_names_what_is_there() {
        let loader =
            |minor| format!("\0ld.so (Debian GLIBC 2.{minor}) stable release version 2.{minor}.\n\0").into_bytes();
        assert_eq!(check_glibc(Some(&loader(34)), 34), Ok(()));
        assert_eq!(check_glibc(Some(&loader(41)), 34), Ok(()));
        let said = |loader: Option<&[u8]>, needed| check_glibc(loader, needed).unwrap_err();
        assert!(said(Some(&loader(33)), 34).contains("is 2.33, expected glibc 2.34"));
        assert!(said(Some(&loader(34)), 38).contains("is 2.34, expected glibc 2.38"));
        assert!(said(Some(b"\x7fELF"), 34).contains("older than 2.33"));
        assert!(said(None, 34).contains("no GNU C library"));
    }

    #[test]
    fn check_processor_asks_for_avx2() {
        assert_eq!(check_processor(true), Ok(()));
        assert!(check_processor(false).unwrap_err().contains("no AVX2"));
    }

    #[test]
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    fn check_finds_the_library_of_this_machine() {
        assert!(glibc_minor(&std::fs::read(LOADER).unwrap()).unwrap() >= 33);
    }
}
