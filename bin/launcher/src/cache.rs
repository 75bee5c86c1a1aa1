//! The folder into which the single file unpacks itself: `<cache>/nanochat-bin/<hash>`, one for each version, beside the base folder and
//! never inside it.
//!
//! A version's folder appears whole, by a rename; what is missing of it later is put back. In it lies a file that marks it as ours, on
//! which every running process holds a shared lock; whoever unpacks holds a lock on the folder above. Removed is only what carries the
//! mark and is not locked: older versions beside the two last used, and what a killed start left behind.

use crate::pack::Pack;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

const FOLDER: &str = "nanochat-bin";
const MARK: &str = ".nanochat";
const MARK_TEXT: &str = "A version of nanochat that its single file unpacked; nanochat removes it when it is old.\n";
/// Other versions that stay.
const KEPT: usize = 2;
const ATTEMPTS: usize = 5;

/// Gives the folder with the whole program and the lock that protects it.
///
/// The first place that can be had is taken: NANOCHAT_CACHE alone where it is set, else XDG_CACHE_HOME, `.cache` in the home folder, and
/// TMPDIR or /tmp.
pub fn find_or_unpack(pack: &Pack, env: impl Fn(&str) -> Option<OsString>) -> Result<(PathBuf, File), String> {
    let set = |name: &str| env(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let own = set("NANOCHAT_CACHE");
    let home = set("HOME");
    let base = set("NANOCHAT_BASE_DIR").or_else(|| Some(home.as_ref()?.join(".cache/nanochat")));
    let places = match &own {
        Some(own) => vec![own.clone()],
        None => {
            let temporary = set("TMPDIR").unwrap_or_else(|| "/tmp".into());
            [set("XDG_CACHE_HOME"), home.map(|home| home.join(".cache")), Some(temporary)]
                .into_iter()
                .flatten()
                .collect()
        }
    };
    let mut problem = String::new();
    for place in places {
        let root = absolute(&place).join(FOLDER);
        if base.as_ref().is_some_and(|base| absolute(&root).starts_with(absolute(base))) {
            problem = format!("\"{}\" is inside the base folder", root.display());
            continue;
        }
        match hold_or_unpack(&root, pack, own.is_none()) {
            Ok(held) => return Ok(held),
            Err(error) => {
                problem = format!("\"{}\": {}", root.display(), reason(&error));
                if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::InvalidData) {
                    break; // another place would hide it
                }
            }
        }
    }
    let megabytes = pack.total_bytes().div_ceil(1_000_000);
    Err(format!(
        "Cannot unpack nanochat into {problem}, expected a folder of your own with {megabytes} MB free; set NANOCHAT_CACHE to one"
    ))
}

/// Words of an error without its number.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

/// Resolves what exists of a path, links included, and appends the rest.
fn absolute(path: &Path) -> PathBuf {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    for above in whole.ancestors() {
        if let (Ok(real), Ok(rest)) = (above.canonicalize(), whole.strip_prefix(above)) {
            return if rest.as_os_str().is_empty() { real } else { real.join(rest) };
        }
    }
    whole
}

fn hold_or_unpack(root: &Path, pack: &Pack, check_above: bool) -> io::Result<(PathBuf, File)> {
    let folder = root.join(&pack.hash);
    DirBuilder::new().recursive(true).mode(0o700).create(root)?;
    check_owner(root, false)?;
    if let (true, Some(above)) = (check_above, root.parent()) {
        check_owner(above, true)?;
    }
    for _ in 0..ATTEMPTS {
        if let Some(lock) = hold(&folder, pack)? {
            return Ok((folder, lock));
        }
        // One unpacks, the others wait. Where files cannot be locked each unpacks, which is wasteful and right.
        let turn = OpenOptions::new().create(true).truncate(false).write(true).open(root.join(".lock"))?;
        let alone = turn.lock().is_ok();
        if let Some(lock) = hold(&folder, pack)? {
            return Ok((folder, lock));
        }
        if alone {
            prune(root, &pack.hash);
        }
        unpack(&folder, pack)?;
    }
    Err(io::Error::other("it is emptied as soon as it is filled"))
}

/// Refuses a folder that somebody else could change: what lies there is executed. `shared`: it may be one as /tmp is, where all may make
/// entries and nobody may move those of others.
fn check_owner(folder: &Path, shared: bool) -> io::Result<()> {
    let found = fs::metadata(folder)?;
    // SAFETY: has no precondition and cannot fail.
    let me = unsafe { libc::geteuid() };
    let is_sticky = found.mode() & 0o1000 != 0;
    if (found.uid() == me || found.uid() == 0) && (found.mode() & 0o002 == 0 || (shared && is_sticky)) {
        return Ok(());
    }
    let problem = format!("\"{}\" belongs to another user or may be written by all", folder.display());
    Err(io::Error::new(ErrorKind::PermissionDenied, problem))
}

/// Takes the shared lock of a whole folder; nothing where there is none, or something of it is missing.
fn hold(folder: &Path, pack: &Pack) -> io::Result<Option<File>> {
    let mark = folder.join(MARK);
    let Ok(lock) = File::open(&mark) else { return Ok(None) };
    let locked = lock.lock_shared();
    if locked.as_ref().is_err_and(|error| error.kind() == ErrorKind::Interrupted) {
        return Ok(None);
    }
    // While this one waited for the lock, somebody may have removed the folder.
    let same = fs::metadata(&mark).is_ok_and(|now| lock.metadata().is_ok_and(|held| held.ino() == now.ino()));
    let whole =
        |path: &str, size| fs::metadata(folder.join(path)).is_ok_and(|found| found.is_file() && found.len() == size);
    if !same || !pack.files.iter().all(|file| whole(&file.path, file.size)) {
        return Ok(None);
    }
    let _ = lock.set_modified(SystemTime::now()); // the time of the last use; a folder of another owner keeps its own
    Ok(Some(lock))
}

/// Unpacks beside the folder and renames; puts missing files back where the folder is there already.
fn unpack(folder: &Path, pack: &Pack) -> io::Result<()> {
    let beside = folder.with_extension(format!("{}.tmp", std::process::id()));
    let done = fill(&beside, pack).and_then(|_lock| match fs::rename(&beside, folder) {
        Err(_) if folder.is_dir() => put_back(&beside, folder, pack),
        other => other,
    });
    let _ = fs::remove_dir_all(&beside);
    done
}

fn put_back(from: &Path, folder: &Path, pack: &Pack) -> io::Result<()> {
    for file in &pack.files {
        let to = folder.join(&file.path);
        fs::create_dir_all(to.parent().unwrap_or(folder))?;
        fs::rename(from.join(&file.path), to)?;
    }
    if folder.join(MARK).exists() { Ok(()) } else { fs::rename(from.join(MARK), folder.join(MARK)) }
}

/// Writes mark and files into a new folder, frame by frame on all cores; returns the lock that keeps it from being pruned.
fn fill(folder: &Path, pack: &Pack) -> io::Result<File> {
    let _ = fs::remove_dir_all(folder); // of a process of the same number that was killed
    DirBuilder::new().mode(0o700).create(folder)?;
    let mut mark = File::create_new(folder.join(MARK))?;
    let _ = mark.lock_shared();
    mark.write_all(MARK_TEXT.as_bytes())?;
    let mut files = Vec::new();
    for entry in &pack.files {
        let path = folder.join(&entry.path);
        fs::create_dir_all(path.parent().unwrap_or(folder))?;
        let file = File::create_new(path)?;
        file.set_len(entry.size)?;
        file.set_permissions(Permissions::from_mode(entry.mode))?;
        files.push(file);
    }
    let next = AtomicUsize::new(0);
    let work = || -> io::Result<()> {
        let mut decoder = zstd::bulk::Decompressor::new()?;
        let (mut input, mut output) = (Vec::new(), Vec::new());
        while let Some(frame) = pack.frames.get(next.fetch_add(1, Ordering::Relaxed)) {
            input.resize(frame.bytes, 0);
            pack.source.read_exact_at(&mut input, frame.at)?;
            output.clear();
            output.reserve(frame.size);
            let damaged = |_| io::Error::new(ErrorKind::InvalidData, "the single file is damaged, copy it again");
            decoder.decompress_to_buffer(&input, &mut output).map_err(damaged)?;
            files[frame.file].write_all_at(&output, frame.to)?;
        }
        Ok(())
    };
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get()).min(pack.frames.len()).min(16);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().unwrap_or_else(|_| Err(io::Error::other("a thread died"))))
    })?;
    Ok(mark)
}

/// Removes older versions and leftovers; whoever calls it holds the lock on the folder. What cannot be removed stays.
fn prune(root: &Path, current: &str) {
    let mut versions = Vec::new();
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let mark = entry.path().join(MARK);
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if !is_folder || entry.file_name() == current || fs::read_to_string(&mark).ok().as_deref() != Some(MARK_TEXT) {
            continue;
        }
        let is_leftover = entry.path().extension().is_some();
        let used = fs::metadata(&mark).and_then(|found| found.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
        versions.push((is_leftover, std::cmp::Reverse(used), entry.path()));
    }
    versions.sort(); // what ends in a version's name first, of these the last used first
    for (rank, (is_leftover, _, folder)) in versions.iter().enumerate() {
        if *is_leftover || rank >= KEPT {
            let _ = remove(folder);
        }
    }
}

/// Removes a folder that no process uses, its mark last: what is left of an interrupted removal is still known as ours.
fn remove(folder: &Path) -> io::Result<()> {
    let mark = folder.join(MARK);
    let lock = File::open(&mark)?;
    lock.try_lock()?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name() == MARK {
            continue;
        }
        if entry.file_type()?.is_dir() { fs::remove_dir_all(entry.path())? } else { fs::remove_file(entry.path())? }
    }
    fs::remove_file(mark)?;
    fs::remove_dir(folder)
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::pack::tests::write_pack;

    /// A folder for the time of a test.
    pub struct Folder(pub PathBuf);

    impl Folder {
        pub fn new() -> Folder {
            static COUNT: AtomicUsize = AtomicUsize::new(0);
            let name = format!("nanochat_launcher_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
            let path = std::env::temp_dir().join(name);
            fs::create_dir(&path).unwrap();
            Folder(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn pack(folder: &Folder, content: &[u8]) -> Pack {
        Pack::open(&write_pack(&folder.0, &[("deno", content), ("sandbox/x", &[content, b"!"].concat())])).unwrap()
    }

    fn names(root: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name != ".lock");
        names.sort();
        names
    }

    #[test]
    fn hold_or_unpack_writes_all_files_once_and_puts_missing_ones_back() {
        let folder = Folder::new();
        let pack = pack(&folder, &[5; 3456]);
        let root = folder.0.join("cache");
        let (unpacked, lock) = hold_or_unpack(&root, &pack, true).unwrap();
        let content = |name: &str| fs::read(unpacked.join(name)).unwrap();
        assert_eq!((content("deno"), content("sandbox/x").len()), (vec![5; 3456], 3457));
        assert_eq!(fs::metadata(unpacked.join("deno")).unwrap().mode() & 0o777, 0o755);
        assert_eq!(fs::metadata(&root).unwrap().mode() & 0o777, 0o700);
        let inode = |name: &str| fs::metadata(unpacked.join(name)).unwrap().ino();
        let (deno, mark) = (inode("deno"), inode(MARK));
        hold_or_unpack(&root, &pack, true).unwrap();
        assert_eq!(inode("deno"), deno, "nothing was written again");
        for damage in 0..3 {
            match damage {
                0 => fs::remove_dir_all(unpacked.join("sandbox")).unwrap(),
                1 => fs::write(unpacked.join("sandbox/x"), "short").unwrap(),
                _ => fs::remove_file(unpacked.join("deno")).unwrap(),
            }
            hold_or_unpack(&root, &pack, true).unwrap();
            assert_eq!((content("deno").len(), content("sandbox/x").len()), (3456, 3457));
            assert_eq!(inode(MARK), mark, "who runs still holds the lock");
        }
        drop(lock);
        fs::remove_dir_all(&root).unwrap();
        hold_or_unpack(&root, &pack, true).unwrap();
        assert_eq!(names(&root), [pack.hash]);
    }

    #[test]
    fn hold_or_unpack_in_parallel_leaves_one_folder() {
        let folder = Folder::new();
        let packs: Vec<Pack> = (0..8).map(|_| pack(&folder, &[6; 5000])).collect();
        let root = folder.0.join("cache");
        std::thread::scope(|scope| {
            for pack in &packs {
                scope.spawn(|| hold_or_unpack(&root, pack, true).unwrap());
            }
        });
        assert_eq!(names(&root), [packs[0].hash.clone()]);
    }

    #[test]
    fn prune_removes_what_is_marked_old_and_unused() {
        let folder = Folder::new();
        let root = folder.0.join("cache");
        let packs: Vec<Pack> = (1..=6).map(|i| pack(&folder, &[i; 100])).collect();
        let mut held = Vec::new();
        for (i, pack) in packs[..5].iter().enumerate() {
            let (unpacked, lock) = hold_or_unpack(&root, pack, true).unwrap();
            lock.set_modified(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(i as u64)).unwrap();
            if i == 0 {
                held.push(lock); // a process that runs
            }
            assert!(unpacked.is_dir());
        }
        fs::create_dir(root.join("somebody's")).unwrap();
        fs::write(root.join("somebody's").join(MARK), "another text").unwrap();
        fs::create_dir(root.join("0.7.tmp")).unwrap();
        fs::write(root.join("0.7.tmp").join(MARK), MARK_TEXT).unwrap();
        hold_or_unpack(&root, &packs[5], true).unwrap();
        let mut expected: Vec<String> = [0, 3, 4, 5].iter().map(|i| packs[*i as usize].hash.clone()).collect();
        expected.push("somebody's".into());
        expected.sort();
        assert_eq!(names(&root), expected);
        held.clear();
        assert!(remove(&root.join(&packs[0].hash)).is_ok());
    }

    #[test]
    fn find_or_unpack_goes_through_the_places_and_stays_out_of_the_base_folder() {
        let folder = Folder::new();
        let pack = pack(&folder, b"x");
        let path = |name: &str| folder.0.join(name).into_os_string();
        let find = |set: &[(&str, OsString)]| {
            find_or_unpack(&pack, |name| set.iter().find(|(key, _)| *key == name).map(|(_, value)| value.clone()))
                .map(|(found, _)| found.parent().unwrap().parent().unwrap().file_name().unwrap().to_owned())
        };
        let all = [("XDG_CACHE_HOME", path("xdg")), ("HOME", path("home")), ("TMPDIR", path("tmp"))];
        assert_eq!(find(&all).unwrap(), "xdg");
        assert_eq!(find(&all[1..]).unwrap(), ".cache");
        assert_eq!(find(&all[2..]).unwrap(), "tmp");
        assert_eq!(find(&[&all[..], &[("NANOCHAT_CACHE", path("own"))]].concat()).unwrap(), "own");
        // A file where a folder should be stands for a home that cannot be written; the next place is taken, but not for one's own.
        fs::write(folder.0.join("file"), "").unwrap();
        let blocked = [("HOME", path("file")), ("TMPDIR", path("tmp"))];
        assert_eq!(find(&blocked).unwrap(), "tmp");
        let own = find(&[("NANOCHAT_CACHE", path("file/own")), ("HOME", path("home"))]).unwrap_err();
        assert!(own.contains("not a directory") && own.contains("set NANOCHAT_CACHE"), "{own}");
        let inside = [("NANOCHAT_BASE_DIR", path("home")), ("HOME", path("home")), ("TMPDIR", path("tmp"))];
        assert_eq!(find(&inside).unwrap(), "tmp");
        let refused = find(&[("NANOCHAT_BASE_DIR", path("home")), ("NANOCHAT_CACHE", path("home/cache"))]);
        assert!(refused.unwrap_err().contains("inside the base folder"));
        let default = find(&[("HOME", path("home")), ("NANOCHAT_CACHE", path("home/.cache/nanochat/x"))]);
        assert!(default.unwrap_err().contains("inside the base folder"));
    }

    #[test]
    fn check_owner_refuses_what_all_may_write() {
        let folder = Folder::new();
        let open = folder.0.join("open");
        fs::create_dir(&open).unwrap();
        for (mode, shared, allowed) in [
            (0o755, false, true),
            (0o775, false, true),
            (0o777, true, false),
            (0o1777, true, true),
            (0o1777, false, false), // anybody could put a version there before us
        ] {
            fs::set_permissions(&open, Permissions::from_mode(mode)).unwrap();
            assert_eq!(check_owner(&open, shared).is_ok(), allowed, "{mode:o}");
        }
    }

    #[test]
    fn damaged_frames_are_refused_and_leave_nothing() {
        let folder = Folder::new();
        let path = write_pack(&folder.0, &[("deno", &[9; 5000])]);
        let mut bytes = fs::read(&path).unwrap();
        bytes[12] ^= 0xff; // in the first frame, behind the eight bytes of the launcher
        fs::write(&path, bytes).unwrap();
        let root = folder.0.join("cache");
        let error = hold_or_unpack(&root, &Pack::open(&path).unwrap(), true).unwrap_err();
        assert!(error.to_string().contains("copy it again"), "{error}");
        assert_eq!(names(&root), Vec::<String>::new());
    }
}
