//! What is behind the executable in the single file: zstd frames, an index, a footer.
//!
//! The index is text, one row a line, words apart by tabs; `bin/build.ts` writes it:
//!
//! ```text
//! nanochat-bin 1
//! glibc  MINOR                          the C library that the program needs, 2.MINOR
//! start  WORD  ARGUMENT...              arguments of deno where the first argument is WORD, "" otherwise
//! file   MODE  SIZE  PATH               mode in octal
//! frame  OFFSET  BYTES  SIZE            the next SIZE bytes of the file above, BYTES at OFFSET in the single file
//! ```
//!
//! Footer of 32 bytes: offset and length of the index (u64, little endian), eight bytes of its SHA-256, "NANOCHAT".

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

const FOOTER_BYTES: usize = 32;
const MAGIC: &[u8] = b"NANOCHAT";
const FIRST_LINE: &str = "nanochat-bin 1";

/// A compressed piece of a file.
pub struct Frame {
    /// Place in the single file and bytes there.
    pub at: u64,
    pub bytes: usize,
    /// Number of the file, place in it and bytes there.
    pub file: usize,
    pub to: u64,
    pub size: usize,
}

/// A packed file.
pub struct Entry {
    pub mode: u32,
    pub size: u64,
    pub path: String,
}

/// A way to start deno.
#[derive(Default)]
pub struct Start {
    pub word: String,
    pub args: Vec<String>,
}

/// The index of the single file, and the file.
pub struct Pack {
    pub source: File,
    /// Names the content: 16 hexadecimal digits.
    pub hash: String,
    pub glibc_minor: u32,
    pub files: Vec<Entry>,
    pub frames: Vec<Frame>,
    starts: Vec<Start>,
}

impl Pack {
    /// Reads footer and index.
    pub fn open(path: &Path) -> Result<Pack, String> {
        let broken = |what: String| {
            format!("Cannot read \"{}\": {what}, expected the whole file; copy it again", path.display())
        };
        let read = || -> io::Result<(File, [u8; FOOTER_BYTES], Vec<u8>)> {
            let mut source = File::open(path)?;
            let mut footer = [0; FOOTER_BYTES];
            source.seek(SeekFrom::End(-(FOOTER_BYTES as i64)))?;
            source.read_exact(&mut footer)?;
            let mut index = Vec::new();
            if footer.ends_with(MAGIC) {
                source.seek(SeekFrom::Start(number(&footer[..8])))?;
                (&source).take(number(&footer[8..16])).read_to_end(&mut index)?;
            }
            Ok((source, footer, index))
        };
        let (source, footer, index) = read().map_err(|error| broken(error.to_string()))?;
        let hash = footer[16..24].iter().map(|byte| format!("{byte:02x}")).collect();
        let text = String::from_utf8(index).map_err(|_| broken("its index is no text".into()))?;
        parse(&text, source, hash).ok_or_else(|| broken("its end is missing or damaged".into()))
    }

    /// Chooses how deno is started.
    pub fn start(&self, word: Option<&OsStr>) -> &Start {
        let named = |start: &&Start| !start.word.is_empty() && word == Some(OsStr::new(&start.word));
        self.starts.iter().find(named).unwrap_or(&self.starts[0])
    }

    /// Bytes of all files, unpacked.
    pub fn total_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().unwrap_or_default())
}

fn parse(text: &str, source: File, hash: String) -> Option<Pack> {
    let mut lines = text.lines();
    if lines.next() != Some(FIRST_LINE) {
        return None;
    }
    let mut pack = Pack { source, hash, glibc_minor: 0, files: vec![], frames: vec![], starts: vec![] };
    let mut to = 0;
    for line in lines {
        let words: Vec<&str> = line.split('\t').collect();
        match words[..] {
            ["glibc", minor] => pack.glibc_minor = minor.parse().ok()?,
            ["start", word, ref args @ ..] => pack
                .starts
                .push(Start { word: word.to_string(), args: args.iter().map(|arg| arg.to_string()).collect() }),
            ["file", mode, size, path] => {
                to = 0;
                pack.files.push(Entry {
                    mode: u32::from_str_radix(mode, 8).ok()?,
                    size: size.parse().ok()?,
                    path: path.to_string(),
                });
            }
            ["frame", at, bytes, size] => {
                let size: usize = size.parse().ok()?;
                let file = pack.files.len().checked_sub(1)?;
                pack.frames.push(Frame { at: at.parse().ok()?, bytes: bytes.parse().ok()?, file, to, size });
                to += size as u64;
            }
            _ => return None,
        }
    }
    let has_default = pack.starts.first().is_some_and(|start| start.word.is_empty());
    has_default.then_some(pack)
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use std::io::Write;

    /// Writes a single file with the files given and returns its path; `FRAME` bytes to a frame.
    pub fn write_pack(folder: &Path, files: &[(&str, &[u8])]) -> std::path::PathBuf {
        const FRAME: usize = 1000;
        let mut bytes = b"launcher".to_vec();
        let mut index = format!("{FIRST_LINE}\nglibc\t34\nstart\t\trun\t{{folder}}/main.js\nstart\t--word\tother\n");
        for (path, content) in files {
            index += &format!("file\t755\t{}\t{path}\n", content.len());
            for piece in content.chunks(FRAME) {
                let frame = zstd::bulk::compress(piece, 1).unwrap();
                index += &format!("frame\t{}\t{}\t{}\n", bytes.len(), frame.len(), piece.len());
                bytes.extend(frame);
            }
        }
        let at = bytes.len() as u64;
        let hash = files.iter().flat_map(|(_, content)| content.iter()).fold(7u64, |h, b| h.rotate_left(5) ^ *b as u64);
        bytes.extend(index.as_bytes());
        for word in [at, index.len() as u64, hash] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(MAGIC);
        let path = folder.join(format!("nanochat-{hash:x}"));
        File::create(&path).unwrap().write_all(&bytes).unwrap();
        path
    }

    #[test]
    fn open_reads_what_was_written_and_refuses_a_part_of_it() {
        let folder = crate::cache::tests::Folder::new();
        let path = write_pack(&folder.0, &[("main.js", &[7; 2500])]);
        let pack = Pack::open(&path).unwrap();
        assert_eq!((pack.glibc_minor, pack.total_bytes(), pack.frames.len()), (34, 2500, 3));
        assert_eq!((pack.frames[2].file, pack.frames[2].to, pack.frames[2].size), (0, 2000, 500));
        assert_eq!(pack.start(Some(OsStr::new("--word"))).args, ["other"]);
        assert_eq!(pack.start(Some(OsStr::new("train"))).args[0], "run");
        assert_eq!(pack.start(Some(OsStr::new(""))).args[0], "run");
        let whole = std::fs::read(&path).unwrap();
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert!(Pack::open(&path).err().unwrap().contains("copy it again"), "{length} bytes");
        }
    }
}
