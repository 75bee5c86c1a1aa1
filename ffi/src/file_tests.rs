//! Tests of files: mapping, writing, hashing.

use super::*;
use crate::abi::STATUS_INVALID;
use crate::cpu::testing::Rig;

/// A folder of its own for one test, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("nanochat-file-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(&self.0)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn write(rig: &Rig, path: &Path, head: &[u8], segments: &[u64], block: i64, hashes: &mut [u8]) -> i32 {
    let mut name = path.as_os_str().as_bytes().to_vec();
    let mut head = head.to_vec();
    let mut segments = segments.to_vec();
    // SAFETY: live buffers with their lengths.
    unsafe {
        nc_file_write(
            rig.ctx(),
            hashes.as_mut_ptr(),
            name.as_mut_ptr(),
            name.len() as i32,
            head.as_mut_ptr(),
            head.len() as i64,
            segments.as_mut_ptr().cast(),
            segments.len() as i32 / 2,
            block,
        )
    }
}

fn map_path(rig: &Rig, path: &Path) -> (i32, u64, u64) {
    let mut name = path.as_os_str().as_bytes().to_vec();
    let mut out = [0u64; 2];
    // SAFETY: live buffers with their lengths.
    let status = unsafe { nc_file_map(rig.ctx(), out.as_mut_ptr().cast(), name.as_mut_ptr(), name.len() as i32) };
    (status, out[0], out[1])
}

fn block_hashes(bytes: &[u8], block: usize) -> Vec<u8> {
    bytes.chunks(block).flat_map(|block| Sha256::digest(block).to_vec()).collect()
}

#[test]
fn nc_file_write_writes_bytes_and_block_hashes() {
    for threads in [1, 3] {
        let (rig, folder) = (Rig::new(threads), Folder::new(&format!("write{threads}")));
        let head = b"head".to_vec();
        let parts: Vec<Vec<u8>> = [5000usize, 0, 1, 9999]
            .iter()
            .enumerate()
            .map(|(i, &n)| (0..n).map(|j| (j * 7 + i) as u8).collect())
            .collect();
        let segments: Vec<u64> = parts.iter().flat_map(|part| [rig.put(part) as u64, part.len() as u64]).collect();
        let expected = [head.clone(), parts.concat()].concat();
        let path = folder.0.join("weights.bin");
        for block in [1, 4, 1000, 15_004, 1 << 20] {
            let mut hashes = vec![0; expected.len().div_ceil(block) * 32];
            rig.ok(write(&rig, &path, &head, &segments, block as i64, &mut hashes));
            assert_eq!(std::fs::read(&path).unwrap(), expected);
            assert_eq!(hashes, block_hashes(&expected, block), "block {block}");
        }
        assert_eq!(folder.names(), ["weights.bin"]);
        assert_eq!(rig.cx.progress_done.load(Ordering::Relaxed), expected.len() as i64);
        assert_eq!(rig.cx.progress_total.load(Ordering::Relaxed), expected.len() as i64);
        rig.ok(write(&rig, &path, &[], &[], 16, &mut []));
        assert_eq!(std::fs::read(&path).unwrap(), []);
    }
}

#[test]
fn nc_file_write_sees_what_was_enqueued_before() {
    let (rig, folder) = (Rig::new(2), Folder::new("order"));
    let (x, path) = (rig.put(&[0u8; 4096]), folder.0.join("x"));
    // SAFETY: a live context and its memory.
    rig.ok(unsafe { crate::nc_fill(rig.ctx(), x, 4096, 7.0, crate::abi::DTYPE_I8) });
    rig.ok(write(&rig, &path, &[], &[x as u64, 4096], 4096, &mut [0; 32]));
    assert_eq!(std::fs::read(&path).unwrap(), [7; 4096]);
}

#[test]
fn nc_file_write_leaves_the_target_when_it_fails() {
    let (rig, folder) = (Rig::new(2), Folder::new("fail"));
    let x = rig.put(&[1u8; 100]);
    let segments = [x as u64, 100];
    let mut hashes = [0; 32];

    let missing = folder.0.join("missing").join("x");
    let message = rig.fails(write(&rig, &missing, b"h", &segments, 1000, &mut hashes), STATUS_IO);
    assert!(message.starts_with("Cannot create ") && message.contains("file or folder missing"), "{message}");

    let occupied = folder.0.join("occupied");
    std::fs::create_dir_all(occupied.join("inside")).unwrap();
    let message = rig.fails(write(&rig, &occupied, b"h", &segments, 1000, &mut hashes), STATUS_IO);
    assert!(message.starts_with("Cannot write ") && message.contains("occupied"), "{message}");
    assert_eq!(folder.names(), ["occupied"]);
    assert!(occupied.join("inside").is_dir());

    let kept = folder.0.join("kept");
    std::fs::write(&kept, "before").unwrap();
    let beyond = [x as u64, 1 << 40];
    let message = rig.fails(write(&rig, &kept, b"h", &beyond, 1000, &mut hashes), STATUS_INVALID);
    assert!(message.starts_with("Cannot use segment 0"), "{message}");
    let message = rig.fails(write(&rig, &kept, b"h", &segments, 0, &mut hashes), STATUS_INVALID);
    assert!(message.contains("blocks of 0 bytes"), "{message}");
    assert_eq!(std::fs::read(&kept).unwrap(), b"before");
    assert_eq!(folder.names(), ["kept", "occupied"]);
}

#[test]
fn a_full_disk_is_called_so() {
    let error = io_error("write", Path::new("/x/model"), &io::Error::from_raw_os_error(libc::ENOSPC));
    assert_eq!(error.status, STATUS_IO);
    assert!(error.message.starts_with("Cannot write \"/x/model\": the disk is full"), "{error}");
    let mut full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let error = Pieces::new(vec![b"abc"]).write(&mut full, &AtomicI64::new(0)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
}

#[test]
fn nc_file_map_lets_ops_read_the_file() {
    let (rig, folder) = (Rig::new(2), Folder::new("map"));
    let path = folder.0.join("x");
    let bytes: Vec<u8> = (0..10_000u32).map(|i| (i * 31) as u8).collect();
    std::fs::write(&path, &bytes).unwrap();
    let (status, address, size) = map_path(&rig, &path);
    rig.ok(status);
    assert_eq!(size, 10_000);
    let (mapped, y) = (address as *mut c_void, rig.put(&[0u8; 1000]));
    let mut hashes = vec![0; 10 * 32];
    // SAFETY: a live context, its memory and buffers.
    unsafe {
        rig.ok(crate::nc_copy(rig.ctx(), y, mapped.add(9000), 1000));
        assert_eq!(rig.get::<u8>(y, 1000), bytes[9000..]);
        rig.ok(nc_sha256(rig.ctx(), hashes.as_mut_ptr(), mapped, 10_000, 1024));
        assert_eq!(hashes, block_hashes(&bytes, 1024));
        let message = rig.fails(nc_sha256(rig.ctx(), hashes.as_mut_ptr(), mapped, 10_001, 1024), STATUS_INVALID);
        assert!(message.starts_with("Cannot use memory: 10001 elements"), "{message}");
        let message = rig.fails(crate::nc_free(rig.ctx(), mapped), STATUS_INVALID);
        assert!(message.contains("not an allocation"), "{message}");
        rig.ok(nc_file_unmap(rig.ctx(), mapped));
        rig.fails(nc_file_unmap(rig.ctx(), mapped), STATUS_INVALID);
        rig.fails(nc_file_unmap(rig.ctx(), y), STATUS_INVALID);
    }
}

#[test]
fn nc_file_map_names_what_it_cannot_map() {
    let (rig, folder) = (Rig::new(1), Folder::new("unmappable"));
    let empty = folder.0.join("empty");
    std::fs::write(&empty, "").unwrap();
    let cases = [
        (empty, "it is an empty file, expected a file with data"),
        (folder.0.join("missing"), "file or folder missing"),
        (folder.0.clone(), "it is not a regular file, expected a file with data"),
    ];
    for (path, expected) in cases {
        let message = rig.fails(map_path(&rig, &path).0, STATUS_IO);
        assert!(message.starts_with("Cannot map ") && message.contains(expected), "{message}");
    }
}

#[test]
fn nc_disk_free_gives_bytes_or_names_the_path() {
    let rig = Rig::new(1);
    let mut out = [0i64];
    let mut look_up = |path: &str| {
        let mut name = path.as_bytes().to_vec();
        // SAFETY: live buffers with their lengths.
        let status = unsafe { nc_disk_free(rig.ctx(), out.as_mut_ptr().cast(), name.as_mut_ptr(), name.len() as i32) };
        (status, out[0])
    };
    let (status, free) = look_up("/");
    rig.ok(status);
    assert!(free > 0);
    let message = rig.fails(look_up("/no/such/folder").0, STATUS_IO);
    assert!(message.starts_with("Cannot look up the disk of \"/no/such/folder\""), "{message}");
}
