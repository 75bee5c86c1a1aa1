//! Reads row groups of a Parquet file into Arrow-layout buffers (Arrow columnar format: validity bits, i32 offsets, values).
//!
//! The `parquet` crate decodes pages and levels; this file puts nested columns together from the levels (schema.rs has the rule). The
//! file is foreign: sizes and counts are checked against the bytes at hand before the crate reserves memory for them.

use super::foreign::{data, foreign, general, plain, shielded, status_of};
use super::pages::open_pages;
use super::schema::{Kind, Node, json_string, nodes};
use super::thrift::check_struct;
use crate::Error;
use crate::abi::{STATUS_INVALID, STATUS_IO, STATUS_UNSUPPORTED};
use ::parquet::column::reader::{ColumnReader, ColumnReaderImpl, get_column_reader};
use ::parquet::data_type::{ByteArray, DataType, FixedLenByteArray, Int96};
use ::parquet::errors::Result as ParquetResult;
use ::parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Rows decoded at a time.
const BATCH: usize = 1024;
/// `PAR1`, at both ends of a file.
const MAGIC: &[u8] = b"PAR1";

/// An open file: footer and schema.
pub struct ParquetFile {
    file: File,
    path: String,
    size: u64,
    metadata: ParquetMetaData,
    pub nodes: Vec<Node>,
}

/// Buffers of one node; `validity` is empty where nothing is null.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Column {
    pub length: usize,
    pub nulls: usize,
    pub validity: Vec<u8>,
    pub offsets: Vec<i32>,
    pub values: Vec<u8>,
}

impl ParquetFile {
    /// Opens a file and reads its footer.
    pub fn open(path: &str) -> Result<Self, Error> {
        let context = format!("Cannot open Parquet file {path:?}");
        let io = |e: std::io::Error| Error::new(STATUS_IO, format!("{context}: {e}"));
        let file = File::open(path).map_err(io)?;
        let size = file.metadata().map_err(io)?.len();
        shielded(&context, || {
            let metadata = read_footer(&file, size)?;
            let nodes = nodes(metadata.file_metadata().schema_descr())?;
            for group in metadata.row_groups() {
                if group.num_rows() < 0
                    || group.columns().len() != metadata.file_metadata().schema_descr().num_columns()
                {
                    return Err(data("its footer contradicts itself about row groups"));
                }
            }
            Ok((metadata, nodes))
        })
        .map(|(metadata, nodes)| ParquetFile { file, path: path.to_string(), size, metadata, nodes })
    }

    /// Row groups, rows and schema as JSON.
    pub fn json(&self) -> String {
        let groups: Vec<String> = self
            .metadata
            .row_groups()
            .iter()
            .map(|g| format!("{{\"rows\":{},\"bytes\":{}}}", g.num_rows(), g.total_byte_size().max(0)))
            .collect();
        let fields: Vec<String> = self.nodes.iter().map(Node::json).collect();
        let creator = self.metadata.file_metadata().created_by().unwrap_or_default();
        format!(
            "{{\"createdBy\":{},\"sizeBytes\":{},\"rowGroups\":[{}],\"fields\":[{}]}}",
            json_string(creator),
            self.size,
            groups.join(","),
            fields.join(",")
        )
    }

    /// A message about a row group; without `what` its beginning.
    pub fn place(&self, row_group: i32, what: &str) -> String {
        let separator = if what.is_empty() { "" } else { ": " };
        format!("Cannot read row group {row_group} of {:?}{separator}{what}", self.path)
    }

    /// Decodes one field (or all, `field` -1) of a row group; the columns follow the schema's nodes in depth-first order.
    /// `raw`: text is not checked to be UTF-8.
    pub fn read(&self, row_group: i32, field: i32, raw: bool) -> Result<Vec<Column>, Error> {
        let context = self.place(row_group, "");
        let groups = self.metadata.num_row_groups();
        let group = usize::try_from(row_group).ok().filter(|&g| g < groups).ok_or_else(|| {
            Error::new(STATUS_INVALID, format!("{context}: the file has {groups} row groups, expected a number below"))
        })?;
        let fields = match usize::try_from(field) {
            Err(_) => &self.nodes[..],
            Ok(f) => self.nodes.get(f..=f).ok_or_else(|| {
                Error::new(STATUS_INVALID, format!("{context}: field {field}, expected one of {}", self.nodes.len()))
            })?,
        };
        shielded(&context, || {
            let rows = self.metadata.row_group(group).num_rows() as usize;
            let mut columns = Vec::new();
            for node in fields {
                self.read_node(group, rows, node, raw, &mut columns)?;
            }
            Ok(columns)
        })
    }

    fn read_node(&self, group: usize, rows: usize, node: &Node, raw: bool, out: &mut Vec<Column>) -> Result<(), Error> {
        let first = out.len();
        self.assemble(group, rows, node, &mut None, raw, out)?;
        if out[first].length != rows {
            return Err(data(format!("column {:?} has {} rows, expected {rows}", node.name, out[first].length)));
        }
        Ok(())
    }

    /// Appends the columns of `node` and of everything below it. `levels` holds the leaf that was read last, so that the nodes above
    /// one leaf share it.
    fn assemble(
        &self,
        group: usize,
        rows: usize,
        node: &Node,
        levels: &mut Option<(usize, Leaf)>,
        raw: bool,
        out: &mut Vec<Column>,
    ) -> Result<(), Error> {
        if levels.as_ref().is_none_or(|(leaf, _)| *leaf != node.leaf) {
            *levels = Some((node.leaf, self.read_leaf(group, rows, node.leaf)?));
        }
        let Some((_, leaf)) = levels.as_mut() else { unreachable!("set above") };
        let mut column = slots(node, leaf)?;
        match &node.kind {
            Kind::List { element_def } => {
                column.offsets = list_offsets(node, *element_def, leaf)?;
                let elements = *column.offsets.last().unwrap_or(&0) as usize;
                let child = out.len() + 1;
                out.push(column);
                self.assemble(group, rows, &node.children[0], levels, raw, out)?;
                expect_length(&node.children[0], &out[child], elements)
            }
            Kind::Struct => {
                let length = column.length;
                out.push(column);
                for field in &node.children {
                    let child = out.len();
                    self.assemble(group, rows, field, levels, raw, out)?;
                    expect_length(field, &out[child], length)?;
                }
                Ok(())
            }
            kind => {
                leaf_values(kind, leaf, &mut column)?;
                if *kind == Kind::Utf8 && !raw {
                    check_utf8(node, &column)?;
                }
                out.push(column);
                Ok(())
            }
        }
    }

    /// Reads a leaf column of a row group: levels and the values that are not null.
    fn read_leaf(&self, group: usize, rows: usize, leaf: usize) -> Result<Leaf, Error> {
        let chunk = self.metadata.row_group(group).column(leaf);
        let descriptor = self.metadata.file_metadata().schema_descr().column(leaf);
        let name = descriptor.path().string();
        let pages = open_pages(&self.file, self.size, chunk, rows)
            .map_err(|e| Error::new(e.status, format!("column {name:?}: {}", e.message)))?;
        let mut out = Leaf::default();
        let expected = chunk.num_values().max(0) as usize;
        let reader = get_column_reader(descriptor.clone(), pages);
        let fixed = usize::try_from(descriptor.type_length()).unwrap_or(0);
        let result = match reader {
            ColumnReader::BoolColumnReader(r) => drain(r, expected, &mut out, |v, o| {
                o.bytes.extend(v.iter().map(|&b| u8::from(b)));
                Ok(())
            }),
            ColumnReader::Int32ColumnReader(r) => drain(r, expected, &mut out, |v, o| {
                v.iter().for_each(|x| o.bytes.extend_from_slice(&x.to_le_bytes()));
                Ok(())
            }),
            ColumnReader::Int64ColumnReader(r) => drain(r, expected, &mut out, |v, o| {
                v.iter().for_each(|x| o.bytes.extend_from_slice(&x.to_le_bytes()));
                Ok(())
            }),
            ColumnReader::FloatColumnReader(r) => drain(r, expected, &mut out, |v, o| {
                v.iter().for_each(|x| o.bytes.extend_from_slice(&x.to_le_bytes()));
                Ok(())
            }),
            ColumnReader::DoubleColumnReader(r) => drain(r, expected, &mut out, |v, o| {
                v.iter().for_each(|x| o.bytes.extend_from_slice(&x.to_le_bytes()));
                Ok(())
            }),
            ColumnReader::Int96ColumnReader(r) => drain(r, expected, &mut out, |v: &[Int96], o| {
                v.iter().flat_map(|x| x.data()).for_each(|word| o.bytes.extend_from_slice(&word.to_le_bytes()));
                Ok(())
            }),
            ColumnReader::ByteArrayColumnReader(r) => drain(r, expected, &mut out, |v: &[ByteArray], o| {
                for value in v {
                    o.bytes.extend_from_slice(value.data());
                    o.ends.push(o.bytes.len());
                }
                Ok(())
            }),
            ColumnReader::FixedLenByteArrayColumnReader(r) => {
                drain(r, expected, &mut out, |v: &[FixedLenByteArray], o| {
                    for value in v {
                        if value.len() != fixed {
                            return Err(general(format!("a value has {} bytes, expected {fixed}", value.len())));
                        }
                        o.bytes.extend_from_slice(value.data());
                    }
                    Ok(())
                })
            }
        };
        result.map_err(|e| Error::new(status_of(&e), format!("column {name:?}: {}", plain(&e))))?;
        Ok(out)
    }
}

fn read_footer(file: &File, size: u64) -> Result<ParquetMetaData, Error> {
    let io = |e: std::io::Error| Error::new(STATUS_IO, e.to_string());
    if size < 12 {
        return Err(data(format!("it has {size} bytes, expected a Parquet file")));
    }
    let mut tail = [0; 8];
    file.read_exact_at(&mut tail, size - 8).map_err(io)?;
    if &tail[4..] != MAGIC {
        let what = if &tail[4..] == b"PARE" { "it is encrypted" } else { "its end is not that of a Parquet file" };
        return Err(data(format!("{what}, expected the mark \"PAR1\"")));
    }
    let length = u64::from(u32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]]));
    if length + 12 > size {
        return Err(data(format!("its footer says {length} bytes, expected at most {}", size - 12)));
    }
    let mut footer = vec![0; length as usize];
    file.read_exact_at(&mut footer, size - 8 - length).map_err(io)?;
    check_struct(&footer).ok_or_else(|| data("its footer is damaged"))?;
    ParquetMetaDataReader::decode_metadata(&footer).map_err(foreign)
}

/// A decoded leaf: levels of every entry (none where their maximum is 0) and the values that are not null.
#[derive(Default)]
struct Leaf {
    entries: usize,
    def: Vec<i16>,
    rep: Vec<i16>,
    bytes: Vec<u8>,
    /// End of each value in `bytes`, for byte arrays.
    ends: Vec<usize>,
}

impl Leaf {
    fn levels(&self, i: usize) -> (i16, i16) {
        (self.def.get(i).copied().unwrap_or(0), self.rep.get(i).copied().unwrap_or(0))
    }
}

/// Reads a column to its end, batch by batch.
fn drain<T: DataType>(
    mut reader: ColumnReaderImpl<T>,
    expected: usize,
    out: &mut Leaf,
    mut take: impl FnMut(&[T::T], &mut Leaf) -> ParquetResult<()>,
) -> ParquetResult<()> {
    let mut values = Vec::new();
    loop {
        values.clear();
        let (mut def, mut rep) = (std::mem::take(&mut out.def), std::mem::take(&mut out.rep));
        let (records, _, levels) = reader.read_records(BATCH, Some(&mut def), Some(&mut rep), &mut values)?;
        (out.def, out.rep) = (def, rep);
        if records == 0 && levels == 0 && values.is_empty() {
            break;
        }
        out.entries += if levels == 0 { values.len() } else { levels };
        if out.entries > expected {
            return Err(general(format!("it holds more than the {expected} values of the footer")));
        }
        take(&values, out)?;
    }
    if out.entries != expected {
        return Err(general(format!("it holds {} values, expected {expected}", out.entries)));
    }
    Ok(())
}

/// Length and validity of a node's column.
fn slots(node: &Node, leaf: &Leaf) -> Result<Column, Error> {
    let mut column = Column::default();
    for i in 0..leaf.entries {
        let (def, rep) = leaf.levels(i);
        if rep > node.rep || def < node.slot_def {
            continue;
        }
        if column.length.is_multiple_of(8) {
            column.validity.push(0);
        }
        if def >= node.def {
            column.validity[column.length / 8] |= 1 << (column.length % 8);
        } else {
            column.nulls += 1;
        }
        column.length += 1;
    }
    if column.nulls == 0 {
        column.validity = Vec::new();
    }
    Ok(column)
}

/// Offsets of a list into its elements: one per slot and the end.
fn list_offsets(node: &Node, element_def: i16, leaf: &Leaf) -> Result<Vec<i32>, Error> {
    let mut offsets = Vec::new();
    let mut elements = 0i32;
    for i in 0..leaf.entries {
        let (def, rep) = leaf.levels(i);
        if rep <= node.rep && def >= node.slot_def {
            offsets.push(elements);
        }
        if rep <= node.rep + 1 && def >= element_def {
            if offsets.is_empty() {
                return Err(data(format!("column {:?} begins inside a list", node.name)));
            }
            elements = elements.checked_add(1).ok_or_else(|| too_large(&node.name))?;
        }
    }
    offsets.push(elements);
    Ok(offsets)
}

/// Moves a leaf's values into its column, with a gap where a slot is null.
fn leaf_values(kind: &Kind, leaf: &mut Leaf, column: &mut Column) -> Result<(), Error> {
    let valid = |validity: &[u8], i: usize| validity.is_empty() || validity[i / 8] >> (i % 8) & 1 == 1;
    let width = match kind {
        Kind::Int32 | Kind::Uint32 | Kind::Float32 => 4,
        Kind::Int64 | Kind::Uint64 | Kind::Float64 => 8,
        Kind::Fixed(width) => *width,
        _ => 1,
    };
    let present = column.length - column.nulls;
    let found = if matches!(kind, Kind::Utf8 | Kind::Binary) { leaf.ends.len() } else { leaf.bytes.len() / width };
    if found != present {
        return Err(data(format!("a column holds {found} values, expected {present}")));
    }
    match kind {
        Kind::Utf8 | Kind::Binary => {
            column.offsets.reserve_exact(column.length + 1);
            column.offsets.push(0);
            let mut ends = leaf.ends.iter();
            let mut end = 0;
            for i in 0..column.length {
                if valid(&column.validity, i) {
                    let &next = ends.next().unwrap_or(&0);
                    end = i32::try_from(next).map_err(|_| too_large("bytes"))?;
                }
                column.offsets.push(end);
            }
            column.values = std::mem::take(&mut leaf.bytes);
        }
        Kind::Bool => {
            column.values = vec![0; column.length.div_ceil(8)];
            let mut values = leaf.bytes.iter();
            for i in (0..column.length).filter(|&i| valid(&column.validity, i)) {
                column.values[i / 8] |= values.next().unwrap_or(&0) << (i % 8);
            }
        }
        _ if column.nulls == 0 => column.values = std::mem::take(&mut leaf.bytes),
        _ => {
            column.values = vec![0; column.length * width];
            let mut values = leaf.bytes.chunks_exact(width);
            for (i, slot) in column.values.chunks_exact_mut(width).enumerate() {
                if let Some(value) = valid(&column.validity, i).then(|| values.next()).flatten() {
                    slot.copy_from_slice(value);
                }
            }
        }
    }
    Ok(())
}

fn check_utf8(node: &Node, column: &Column) -> Result<(), Error> {
    // Whole buffer first: a text that is valid as a whole and cut at character borders is valid in each part.
    if let Ok(text) = std::str::from_utf8(&column.values)
        && column.offsets.iter().all(|&o| text.is_char_boundary(o as usize))
    {
        return Ok(());
    }
    let row = column
        .offsets
        .windows(2)
        .position(|w| std::str::from_utf8(&column.values[w[0] as usize..w[1] as usize]).is_err())
        .unwrap_or(0);
    Err(data(format!("value {row} of column {:?} is not UTF-8, expected text", node.name)))
}

fn expect_length(node: &Node, column: &Column, expected: usize) -> Result<(), Error> {
    if column.length == expected {
        return Ok(());
    }
    Err(data(format!("column {:?} has {} entries, expected {expected}", node.name, column.length)))
}

fn too_large(what: &str) -> Error {
    let message = format!("{what} of one row group need more than 2^31 - 1 offsets, expected smaller row groups");
    Error::new(STATUS_UNSUPPORTED, message)
}
