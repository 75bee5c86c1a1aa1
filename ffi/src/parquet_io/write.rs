//! Writes shards: one optional text column, a row group per call, zstd, no dictionary, no statistics
//! (nanochat, dev/repackage_data_reference.py).

use crate::Error;
use crate::abi::{STATUS_INVALID, STATUS_IO};
use ::parquet::basic::{Compression, ZstdLevel};
use ::parquet::data_type::{ByteArray, ByteArrayType};
use ::parquet::file::properties::{EnabledStatistics, WriterProperties};
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::parser::parse_message_type;
use bytes::Bytes;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A shard under construction: a temporary file that `finish` renames.
pub struct ShardWriter {
    writer: Option<SerializedFileWriter<BufWriter<File>>>,
    path: PathBuf,
    temporary: PathBuf,
}

impl ShardWriter {
    /// Creates `<path>.tmp`.
    pub fn create(path: &str, level: i32) -> Result<Self, Error> {
        let temporary = PathBuf::from(format!("{path}.tmp"));
        let level = ZstdLevel::try_new(level)
            .map_err(|_| Error::invalid(format!("Cannot write {path:?}: zstd level {level}, expected 1 to 22")))?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(level))
            .set_dictionary_enabled(false)
            .set_statistics_enabled(EnabledStatistics::None)
            .set_created_by("nanochat".into())
            .build();
        let schema = parse_message_type("message schema { OPTIONAL BYTE_ARRAY text (STRING); }")
            .expect("the schema is a constant");
        let file = File::create(&temporary).map_err(|e| io(&temporary, &e))?;
        let writer = SerializedFileWriter::new(BufWriter::new(file), Arc::new(schema), Arc::new(properties))
            .map_err(|e| io(&temporary, &e))?;
        Ok(ShardWriter { writer: Some(writer), path: PathBuf::from(path), temporary })
    }

    /// Appends one row group: document i is text[ends[i - 1]..ends[i]].
    pub fn row_group(&mut self, text: &[u8], ends: &[i64]) -> Result<(), Error> {
        let temporary = &self.temporary;
        let failed = |e: ::parquet::errors::ParquetError| io(temporary, &e);
        let writer = self.writer.as_mut().ok_or_else(|| closed(temporary))?;
        let bytes = Bytes::copy_from_slice(text);
        let mut start = 0usize;
        let mut values = Vec::with_capacity(ends.len());
        for &end in ends {
            let end = usize::try_from(end).ok().filter(|&e| e >= start && e <= text.len()).ok_or_else(|| {
                let message =
                    format!("Cannot write {temporary:?}: a document ends at {end}, expected {start} to {}", text.len());
                Error::new(STATUS_INVALID, message)
            })?;
            values.push(ByteArray::from(bytes.slice(start..end)));
            start = end;
        }
        let mut group = writer.next_row_group().map_err(failed)?;
        if let Some(mut column) = group.next_column().map_err(failed)? {
            let present = vec![1i16; values.len()];
            column.typed::<ByteArrayType>().write_batch(&values, Some(&present), None).map_err(failed)?;
            column.close().map_err(failed)?;
        }
        group.close().map_err(failed)?;
        Ok(())
    }

    /// Writes the footer, syncs, gives the file its name, syncs the folder.
    pub fn finish(mut self) -> Result<(), Error> {
        let writer = self.writer.take().ok_or_else(|| closed(&self.temporary))?;
        let mut buffer = writer.into_inner().map_err(|e| io(&self.temporary, &e))?;
        buffer.flush().map_err(|e| io(&self.temporary, &e))?;
        buffer.get_ref().sync_all().map_err(|e| io(&self.temporary, &e))?;
        drop(buffer);
        std::fs::rename(&self.temporary, &self.path).map_err(|e| io(&self.path, &e))?;
        let folder = self.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|f| f.sync_all()).map_err(|e| io(folder, &e))
    }
}

impl Drop for ShardWriter {
    /// An unfinished shard leaves nothing behind.
    fn drop(&mut self) {
        if self.writer.take().is_some() {
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

fn closed(path: &Path) -> Error {
    Error::invalid(format!("Cannot write {path:?}: the writer is closed"))
}

fn io(path: &Path, error: &dyn std::fmt::Display) -> Error {
    Error::new(STATUS_IO, format!("Cannot write {path:?}: {error}"))
}
