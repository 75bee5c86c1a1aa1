//! The Parquet reader against files that the `parquet` crate's own low-level writer makes: every codec and encoding, nested columns
//! (random rows, put together again from the Arrow buffers), and 2,000 damaged files.
//!
//! `NANOCHAT_WRITE_SAMPLES=<folder>` writes the samples that `dev/golden/parquet` holds.

use nanochat_cpu::{Column, Kind, Node, ParquetFile, ShardWriter};
use parquet::basic::{Compression, Encoding, GzipLevel, Repetition, ZstdLevel};
use parquet::column::writer::ColumnWriter;
use parquet::data_type::{ByteArray, FixedLenByteArray};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::Type;
use std::alloc::{GlobalAlloc, Layout, System};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// Counts the bytes in use, to measure what a damaged file makes the reader reserve.
struct Counting;

static USED: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let used = USED.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(used, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        USED.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One test at a time: they share the count above.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(|e| e.into_inner())
}

/// SplitMix64 (Steele et al. 2014).
struct Rng(u64);

impl Rng {
    fn seeded() -> Self {
        let seed = std::env::var("NANOCHAT_TEST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(20260101);
        println!("NANOCHAT_TEST_SEED={seed}");
        Rng(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

/// A value of a row.
#[derive(Clone, Debug, PartialEq)]
enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Double(f64),
    Bytes(Vec<u8>),
    List(Vec<Value>),
    Struct(Vec<Value>),
}

const SCHEMA: &str = "message schema {
    REQUIRED INT64 id;
    OPTIONAL BYTE_ARRAY text (STRING);
    OPTIONAL DOUBLE score;
    OPTIONAL BOOLEAN flag;
    OPTIONAL INT32 small;
    OPTIONAL FIXED_LEN_BYTE_ARRAY (3) code;
    OPTIONAL group labels (LIST) { REPEATED group list { OPTIONAL BYTE_ARRAY element (STRING); } }
    OPTIONAL group choices {
        OPTIONAL group text (LIST) { REPEATED group list { REQUIRED BYTE_ARRAY element (STRING); } }
        OPTIONAL INT32 answer;
    }
    OPTIONAL group messages (LIST) { REPEATED group list { OPTIONAL group element {
        OPTIONAL BYTE_ARRAY role (STRING); REQUIRED BYTE_ARRAY content (STRING);
    } } }
    OPTIONAL group matrix (LIST) { REPEATED group list { OPTIONAL group element (LIST) {
        REPEATED group list { OPTIONAL INT32 element; } } } }
    REPEATED INT32 bare;
}";

/// Levels and values of one leaf column.
#[derive(Default)]
struct Leaf {
    def: Vec<i16>,
    rep: Vec<i16>,
    values: Vec<Value>,
}

/// Writes a value into the leaves below `field` (Dremel's shredding). `rep` is the repetition level of the first entry.
fn shred(field: &Type, value: &Value, def: i16, rep: i16, depth: i16, at: &mut usize, leaves: &mut [Leaf]) {
    let repetition = field.get_basic_info().repetition();
    if repetition == Repetition::REPEATED {
        let Value::List(items) = value else { panic!("a repeated field takes a list") };
        let start = *at;
        if items.is_empty() {
            return absent(field, def, rep, at, leaves);
        }
        for (i, item) in items.iter().enumerate() {
            *at = start;
            let first = if i == 0 { rep } else { depth + 1 };
            present(field, item, def + 1, first, depth + 1, at, leaves);
        }
    } else if *value == Value::Null {
        absent(field, def, rep, at, leaves);
    } else {
        present(field, value, def + i16::from(repetition == Repetition::OPTIONAL), rep, depth, at, leaves);
    }
}

fn present(field: &Type, value: &Value, def: i16, rep: i16, depth: i16, at: &mut usize, leaves: &mut [Leaf]) {
    if field.is_primitive() {
        leaves[*at].def.push(def);
        leaves[*at].rep.push(rep);
        leaves[*at].values.push(value.clone());
        *at += 1;
        return;
    }
    let fields = field.get_fields();
    match value {
        // The group around the repeated one, the repeated group around the element, or a struct.
        Value::Struct(values) if values.len() == fields.len() && field.name() != "list" => {
            fields.iter().zip(values).for_each(|(f, v)| shred(f, v, def, rep, depth, at, leaves));
        }
        value => shred(&fields[0], value, def, rep, depth, at, leaves),
    }
}

fn absent(field: &Type, def: i16, rep: i16, at: &mut usize, leaves: &mut [Leaf]) {
    if field.is_primitive() {
        leaves[*at].def.push(def);
        leaves[*at].rep.push(rep);
        *at += 1;
    } else {
        field.get_fields().iter().for_each(|f| absent(f, def, rep, at, leaves));
    }
}

/// How a sample is written.
#[derive(Clone)]
struct Format {
    name: &'static str,
    compression: Compression,
    dictionary: bool,
    version: WriterVersion,
    text_encoding: Option<Encoding>,
    page_rows: usize,
}

fn formats() -> Vec<Format> {
    let plain = Format {
        name: "none_plain",
        compression: Compression::UNCOMPRESSED,
        dictionary: false,
        version: WriterVersion::PARQUET_1_0,
        text_encoding: None,
        page_rows: 20_000,
    };
    let v2 = WriterVersion::PARQUET_2_0;
    let zstd = Compression::ZSTD(ZstdLevel::default());
    let with = |name, encoding| Format { name, compression: zstd, text_encoding: Some(encoding), ..plain.clone() };
    vec![
        plain.clone(),
        Format { name: "snappy_dictionary", compression: Compression::SNAPPY, dictionary: true, ..plain.clone() },
        Format { name: "gzip_plain", compression: Compression::GZIP(GzipLevel::default()), ..plain.clone() },
        Format { name: "zstd_v2_pages", compression: zstd, version: v2, page_rows: 7, ..plain.clone() },
        Format { name: "zstd_dictionary_v2", compression: zstd, version: v2, dictionary: true, ..plain.clone() },
        with("zstd_delta_length", Encoding::DELTA_LENGTH_BYTE_ARRAY),
        with("zstd_delta_text", Encoding::DELTA_BYTE_ARRAY),
    ]
}

/// Writes rows in row groups of `group` rows.
fn write(format: &Format, rows: &[Vec<Value>], group: usize) -> Vec<u8> {
    let schema = Arc::new(parse_message_type(SCHEMA).unwrap());
    let mut properties = WriterProperties::builder()
        .set_compression(format.compression)
        .set_dictionary_enabled(format.dictionary)
        .set_writer_version(format.version)
        .set_data_page_row_count_limit(format.page_rows)
        .set_write_batch_size(format.page_rows.min(1024))
        .set_statistics_enabled(EnabledStatistics::Page);
    if let Some(encoding) = format.text_encoding {
        properties = properties.set_column_encoding("text".into(), encoding);
    }
    let mut writer = SerializedFileWriter::new(Vec::new(), schema.clone(), Arc::new(properties.build())).unwrap();
    for rows in rows.chunks(group) {
        let mut leaves: Vec<Leaf> = (0..leaf_count(&schema)).map(|_| Leaf::default()).collect();
        for row in rows {
            let mut at = 0;
            for (field, value) in schema.get_fields().iter().zip(row) {
                shred(field, value, 0, 0, 0, &mut at, &mut leaves);
            }
        }
        let mut out = writer.next_row_group().unwrap();
        for leaf in leaves {
            write_leaf(&mut out, leaf);
        }
        out.close().unwrap();
    }
    writer.into_inner().unwrap()
}

fn leaf_count(field: &Type) -> usize {
    if field.is_primitive() { 1 } else { field.get_fields().iter().map(|f| leaf_count(f)).sum() }
}

fn write_leaf(out: &mut parquet::file::writer::SerializedRowGroupWriter<'_, Vec<u8>>, leaf: Leaf) {
    let int = |v: &Value| if let Value::Int(i) = v { *i } else { panic!("{v:?}") };
    let bytes = |v: &Value| if let Value::Bytes(b) = v { ByteArray::from(b.clone()) } else { panic!("{v:?}") };
    let mut column = out.next_column().unwrap().unwrap();
    let (def, rep) = (Some(&leaf.def[..]), Some(&leaf.rep[..]));
    let values = leaf.values.iter();
    match column.untyped() {
        ColumnWriter::BoolColumnWriter(w) => {
            w.write_batch(&values.map(|v| *v == Value::Bool(true)).collect::<Vec<_>>(), def, rep)
        }
        ColumnWriter::Int32ColumnWriter(w) => {
            w.write_batch(&values.map(|v| int(v) as i32).collect::<Vec<_>>(), def, rep)
        }
        ColumnWriter::Int64ColumnWriter(w) => w.write_batch(&values.map(int).collect::<Vec<_>>(), def, rep),
        ColumnWriter::DoubleColumnWriter(w) => {
            let double = |v: &Value| if let Value::Double(d) = v { *d } else { panic!("{v:?}") };
            w.write_batch(&values.map(double).collect::<Vec<_>>(), def, rep)
        }
        ColumnWriter::ByteArrayColumnWriter(w) => w.write_batch(&values.map(bytes).collect::<Vec<_>>(), def, rep),
        ColumnWriter::FixedLenByteArrayColumnWriter(w) => {
            let fixed: Vec<_> = values.map(|v| FixedLenByteArray::from(bytes(v))).collect();
            w.write_batch(&fixed, def, rep)
        }
        _ => panic!("no such column in the schema"),
    }
    .unwrap();
    column.close().unwrap();
}

fn text(s: &str) -> Value {
    Value::Bytes(s.as_bytes().to_vec())
}

/// A random row of SCHEMA; `nulls` out of 8 optional values are null.
fn random_row(rng: &mut Rng, id: i64) -> Vec<Value> {
    fn maybe(rng: &mut Rng, make: impl FnOnce(&mut Rng) -> Value) -> Value {
        if rng.below(4) == 0 { Value::Null } else { make(rng) }
    }
    fn list(rng: &mut Rng, mut make: impl FnMut(&mut Rng) -> Value) -> Value {
        let n = [0, 1, 2, 5][rng.below(4)];
        Value::List((0..n).map(|_| make(rng)).collect())
    }
    fn word(rng: &mut Rng) -> Value {
        let words = ["", "a", "Grüße", "語言モデル", "a longer piece of text, longer than the others", "\n\n", "🙂"];
        text(&words[rng.below(words.len())].repeat(rng.below(3)))
    }
    fn int(rng: &mut Rng) -> Value {
        Value::Int(i64::from(rng.next() as i32))
    }
    vec![
        Value::Int(id),
        maybe(rng, word),
        maybe(rng, |r| Value::Double(r.below(1000) as f64 / 8.0)),
        maybe(rng, |r| Value::Bool(r.below(2) == 1)),
        maybe(rng, int),
        maybe(rng, |r| Value::Bytes((0..3).map(|_| b'a' + r.below(26) as u8).collect())),
        maybe(rng, |r| list(r, |r| maybe(r, word))),
        maybe(rng, |r| Value::Struct(vec![maybe(r, |r| list(r, word)), maybe(r, int)])),
        maybe(rng, |r| list(r, |r| maybe(r, |r| Value::Struct(vec![maybe(r, word), word(r)])))),
        maybe(rng, |r| list(r, |r| maybe(r, |r| list(r, |r| maybe(r, int))))),
        list(rng, int),
    ]
}

/// Puts slot `i` of a node together again; `columns` begins with the node's own column.
fn value_at(node: &Node, columns: &[Column], i: usize) -> Value {
    let column = &columns[0];
    if !column.validity.is_empty() && column.validity[i / 8] >> (i % 8) & 1 == 0 {
        return Value::Null;
    }
    let number = |width: usize| &column.values[i * width..][..width];
    match &node.kind {
        Kind::Bool => Value::Bool(column.values[i / 8] >> (i % 8) & 1 == 1),
        Kind::Int32 => Value::Int(i32::from_le_bytes(number(4).try_into().unwrap()).into()),
        Kind::Int64 => Value::Int(i64::from_le_bytes(number(8).try_into().unwrap())),
        Kind::Float64 => Value::Double(f64::from_le_bytes(number(8).try_into().unwrap())),
        Kind::Fixed(width) => Value::Bytes(number(*width).to_vec()),
        Kind::Utf8 | Kind::Binary => {
            Value::Bytes(column.values[column.offsets[i] as usize..column.offsets[i + 1] as usize].to_vec())
        }
        Kind::List { .. } => {
            let items = column.offsets[i] as usize..column.offsets[i + 1] as usize;
            Value::List(items.map(|j| value_at(&node.children[0], &columns[1..], j)).collect())
        }
        Kind::Struct => {
            let mut at = 1;
            let field = |child: &Node| {
                let value = value_at(child, &columns[at..], i);
                at += node_count(child);
                value
            };
            Value::Struct(node.children.iter().map(field).collect())
        }
        kind => panic!("{kind:?} is not in the schema"),
    }
}

fn node_count(node: &Node) -> usize {
    1 + node.children.iter().map(node_count).sum::<usize>()
}

fn read_rows(path: &Path) -> Vec<Vec<Value>> {
    let file = ParquetFile::open(path.to_str().unwrap()).unwrap();
    let mut rows = Vec::new();
    for group in 0.. {
        let Ok(columns) = file.read(group, -1, false) else { break };
        for i in 0..columns[0].length {
            let mut at = 0;
            let value = |node: &Node| {
                let value = value_at(node, &columns[at..], i);
                at += node_count(node);
                value
            };
            rows.push(file.nodes.iter().map(value).collect());
        }
    }
    rows
}

/// A file that is removed at the end of the test.
struct Temporary(PathBuf);

impl Temporary {
    fn new(name: &str) -> Self {
        Temporary(std::env::temp_dir().join(format!("nanochat_{}_{name}.parquet", std::process::id())))
    }

    fn holding(name: &str, bytes: &[u8]) -> Self {
        let file = Temporary::new(name);
        std::fs::write(&file.0, bytes).unwrap();
        file
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn read_returns_the_rows_of_every_codec_and_encoding() {
    let _alone = alone();
    let mut rng = Rng::seeded();
    for round in 0..4 {
        let rows: Vec<_> = (0..[1, 9, 64, 1500][round]).map(|i| random_row(&mut rng, i)).collect();
        for format in formats() {
            let file = Temporary::holding(format.name, &write(&format, &rows, [1, 4, 64, 1100][round]));
            assert_eq!(read_rows(&file.0), rows, "{}", format.name);
        }
    }
}

#[test]
fn shard_writer_writes_what_the_reader_reads() {
    let _alone = alone();
    let file = Temporary::new("shard");
    let path = file.0.to_str().unwrap();
    let mut writer = ShardWriter::create(path, 3).unwrap();
    writer.row_group("onetwo".as_bytes(), &[3, 3, 6]).unwrap();
    assert!(writer.row_group(b"x", &[2]).unwrap_err().message.contains("a document ends at 2, expected 0 to 1"));
    writer.row_group(&[], &[]).unwrap();
    writer.finish().unwrap();
    assert!(!Path::new(&format!("{path}.tmp")).exists());
    let read = ParquetFile::open(path).unwrap().read(0, 0, false).unwrap();
    let expected =
        Column { length: 3, nulls: 0, validity: vec![], offsets: vec![0, 3, 3, 6], values: b"onetwo".to_vec() };
    assert_eq!(read, [expected]);
}

#[test]
fn read_names_the_value_that_is_not_utf8() {
    let _alone = alone();
    let mut row = random_row(&mut Rng(1), 0);
    row[1] = Value::Bytes(vec![b'a', 0xff]);
    let mut good = row.clone();
    good[1] = text("é");
    let file = Temporary::holding("utf8", &write(&formats()[0], &[good, row], 10));
    let file = ParquetFile::open(file.0.to_str().unwrap()).unwrap();
    let error = file.read(0, -1, false).unwrap_err();
    assert!(error.message.ends_with(": value 1 of column \"text\" is not UTF-8, expected text"), "{error}");
    assert_eq!(file.read(0, 1, true).unwrap()[0].values, [0xc3, 0xa9, b'a', 0xff]);
}

/// Changes bytes in one of the ways in which files go bad.
fn damage(rng: &mut Rng, bytes: &mut Vec<u8>) {
    let n = bytes.len();
    let footer = u32::from_le_bytes(bytes[n - 8..n - 4].try_into().unwrap()) as usize;
    // Half of the changes hit the footer, which a uniform choice would rarely do in a larger file.
    let place = |rng: &mut Rng| {
        if rng.below(2) == 0 { n - 1 - rng.below((footer + 8).min(n)) } else { rng.below(n) }
    };
    match rng.below(6) {
        0 => bytes.truncate(rng.below(n)),
        1 => {
            let (from, length) = (place(rng), rng.below(64));
            bytes[from..(from + length).min(n)].fill([0, 0xff][rng.below(2)]);
        }
        2 => {
            let at = place(rng);
            bytes.splice(at..at, (0..1 + rng.below(8)).map(|_| 0x7f).collect::<Vec<u8>>());
        }
        3 => {
            // A variable-length number that goes on: lengths and counts become huge.
            for _ in 0..1 + rng.below(3) {
                let at = place(rng);
                bytes[at..(at + 4).min(n)].fill(0xff);
            }
        }
        _ => {
            for _ in 0..1 + rng.below(8) {
                let at = place(rng);
                bytes[at] = if rng.below(2) == 0 { bytes[at] ^ 1 << rng.below(8) } else { rng.next() as u8 };
            }
        }
    }
}

#[test]
fn damaged_files_give_one_clear_error_and_cost_no_memory() {
    let _alone = alone();
    let mut rng = Rng::seeded();
    let rows: Vec<_> = (0..60).map(|i| random_row(&mut rng, i)).collect();
    let samples: Vec<_> = formats().iter().map(|f| write(f, &rows, 25)).collect();
    let (mut refused, mut largest) = (0, 0);
    for round in 0..2000 {
        let mut bytes = samples[round % samples.len()].clone();
        damage(&mut rng, &mut bytes);
        let file = Temporary::holding("damaged", &bytes);
        let before = USED.load(Ordering::Relaxed);
        PEAK.store(before, Ordering::Relaxed);
        let result = (|| {
            let file = ParquetFile::open(file.0.to_str().unwrap())?;
            assert!(file.json().len() < 1 << 20);
            for group in 0..3 {
                file.read(group, -1, false)?;
            }
            Ok::<_, nanochat_cpu::Error>(())
        })();
        let peak = PEAK.load(Ordering::Relaxed) - before;
        assert!(
            peak < 2 * bytes.len() + (64 << 20),
            "round {round}: {peak} bytes in use for a file of {}",
            bytes.len()
        );
        largest = largest.max(peak);
        if let Err(error) = result {
            refused += 1;
            assert!(error.message.starts_with("Cannot "), "{error}");
            assert!(!error.message.contains('\n') && error.message.len() < 1000, "{error}");
        }
    }
    println!("{refused} of 2000 damaged files refused, at most {largest} bytes in use");
    assert!(refused > 1200, "only {refused} of 2000 damaged files were refused");
}

/// The samples of dev/golden/parquet: a few fixed rows in every format.
#[test]
fn samples_are_written_on_request() {
    let Ok(folder) = std::env::var("NANOCHAT_WRITE_SAMPLES") else { return };
    let list = |values: &[&str]| Value::List(values.iter().map(|v| text(v)).collect());
    let ints = |values: &[i64]| Value::List(values.iter().map(|&v| Value::Int(v)).collect());
    let message = |role: Value, content| Value::Struct(vec![role, text(content)]);
    let rows = [
        vec![
            Value::Int(1),
            text("The first row."),
            Value::Double(0.5),
            Value::Bool(true),
            Value::Int(-7),
            text("abc"),
            list(&["A", "B"]),
            Value::Struct(vec![list(&["yes", "no"]), Value::Int(1)]),
            Value::List(vec![message(text("user"), "Hi"), message(text("assistant"), "Hello 🙂")]),
            Value::List(vec![ints(&[1, 2]), ints(&[3])]),
            ints(&[1, 2]),
        ],
        [vec![Value::Int(2)], vec![Value::Null; 9], vec![Value::List(vec![])]].concat(),
        vec![
            Value::Int(i64::MAX),
            text(""),
            Value::Double(-1.0),
            Value::Bool(false),
            Value::Int(0),
            text("xyz"),
            Value::List(vec![]),
            Value::Struct(vec![Value::List(vec![]), Value::Null]),
            Value::List(vec![]),
            Value::List(vec![Value::List(vec![])]),
            ints(&[3]),
        ],
        vec![
            Value::Int(4),
            text("\u{feff}語言モデル"),
            Value::Double(1e300),
            Value::Bool(true),
            Value::Int(i32::MIN.into()),
            text("123"),
            Value::List(vec![Value::Null, text("C")]),
            Value::Struct(vec![Value::Null, Value::Int(0)]),
            Value::List(vec![Value::Null, message(Value::Null, "only")]),
            Value::List(vec![Value::Null, ints(&[4])]),
            ints(&[4, 5, 6]),
        ],
    ];
    for format in formats() {
        let path = Path::new(&folder).join(format!("{}.parquet", format.name));
        std::fs::write(path, write(&format, &rows, 3)).unwrap();
    }
}
