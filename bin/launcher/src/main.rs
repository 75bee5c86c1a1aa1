//! The launcher of the single file: says what the machine lacks, unpacks the program once into a cache, and becomes it.
//!
//! The file is this executable, then one zstd frame behind the other, an index and a footer (`pack.rs`); `bin/build.ts` writes it. It
//! is linked statically, so that it can also speak where the program itself could not start. Every failure is one sentence and exit 1.

mod cache;
mod machine;
mod pack;

use std::env;
use std::ffi::OsString;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{self, Path, PathBuf};
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let Err(problem) = launch();
    eprintln!("{problem}");
    ExitCode::FAILURE
}

/// Becomes the program; returns only where that fails.
fn launch() -> Result<std::convert::Infallible, String> {
    machine::check(machine::GLIBC_MINOR)?;
    let exe = env::current_exe().map_err(|e| format!("Cannot find the file of nanochat: {e}; is /proc mounted?"))?;
    let pack = pack::Pack::open(&exe)?;
    machine::check(pack.glibc_minor)?;
    let word = env::args_os().nth(1);
    let start = pack.start(word.as_deref());
    let given = env::args_os().skip(if start.word.is_empty() { 1 } else { 2 });
    let base = base_dir(env::args_os().skip(1)).map(|given| path::absolute(&given).map_or(given, PathBuf::into));
    let given_base = |name: &str| base.clone().filter(|_| name == "NANOCHAT_BASE_DIR");
    let (folder, lock) = cache::find_or_unpack(&pack, |name| given_base(name).or_else(|| env::var_os(name)))?;
    let args = arguments(&start.args, &folder)?.into_iter().chain(given);
    // The program and what it starts hold the lock as long as they run: the descriptor is passed on.
    // SAFETY: changes a flag of a descriptor that `lock` keeps open.
    unsafe { libc::fcntl(lock.as_raw_fd(), libc::F_SETFD, 0) };
    let deno = folder.join("deno");
    let mut command = Command::new(&deno);
    command.args(args).env("NANOCHAT_EXE", &exe).env("DENO_DIR", folder.join("deno_dir"));
    command.env("DENO_NO_UPDATE_CHECK", "1");
    if let Some(base) = base {
        command.env("NANOCHAT_BASE_DIR", base); // the program starts this file again for its sandbox, without the flag
    }
    if env::var_os("DENO_TLS_CA_STORE").is_none() {
        command.env("DENO_TLS_CA_STORE", "system,mozilla");
    }
    let error = command.exec();
    Err(format!(
        "Cannot start \"{}\": {error}, expected a folder whose files may be executed; set NANOCHAT_CACHE to another one",
        deno.display()
    ))
}

/// The value of the last `--base-dir=X` or `--base-dir X`, in the spellings that the program takes.
fn base_dir(args: impl Iterator<Item = OsString>) -> Option<OsString> {
    let mut args = args.take_while(|arg| arg != "--");
    let mut found = None;
    while let Some(arg) = args.next() {
        let text = arg.to_string_lossy();
        let (name, value) = text.split_once('=').map_or((&*text, None), |(name, value)| (name, Some(value.into())));
        if name.starts_with("--") && name.replace('_', "-").eq_ignore_ascii_case("--base-dir") {
            found = value.or_else(|| args.next());
        }
    }
    found.filter(|value| !value.is_empty())
}

/// Puts the folder into the arguments of deno.
fn arguments(args: &[String], folder: &Path) -> Result<Vec<OsString>, String> {
    let text = folder.to_str().ok_or_else(|| {
        format!(
            "Cannot start nanochat in \"{}\": its name is no UTF-8; set NANOCHAT_CACHE to another folder",
            folder.display()
        )
    })?;
    let isolated = args.iter().any(|arg| arg.starts_with("--allow-read="));
    if isolated && text.contains(',') {
        // Deno would read the permission as one for two folders.
        return Err(format!("Cannot run Python: its files are at \"{text}\", expected a path without a comma"));
    }
    Ok(args.iter().map(|arg| arg.replace("{folder}", text).into()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_dir_is_the_last_one_given_in_any_spelling() {
        let find = |args: &str| base_dir(args.split(' ').map(OsString::from));
        for args in ["chat --base-dir=/a=b -p x", "--base_dir /a=b chat", "--BASE-DIR=/c --base-dir /a=b"] {
            assert_eq!(find(args), Some("/a=b".into()), "{args}");
        }
        for args in ["chat", "chat -- --base-dir=/a", "chat --base-dir", "--base-dir= chat", "--base-dirs=/a"] {
            assert_eq!(find(args), None, "{args}");
        }
    }

    #[test]
    fn arguments_name_the_folder_and_refuse_a_comma_in_a_permission() {
        let args = |list: &[&str]| list.iter().map(|arg| arg.to_string()).collect::<Vec<_>>();
        let plain = arguments(&args(&["run", "{folder}/main.js"]), Path::new("/a,b")).unwrap();
        assert_eq!(plain, ["run", "/a,b/main.js"]);
        let isolated = args(&["--allow-read={folder}/sandbox"]);
        assert_eq!(arguments(&isolated, Path::new("/a")).unwrap(), ["--allow-read=/a/sandbox"]);
        assert!(arguments(&isolated, Path::new("/a,b")).unwrap_err().contains("without a comma"));
    }
}
