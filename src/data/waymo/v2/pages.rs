//! The pages of one column of one row group, inflated under limits.
//!
//! The parquet crate takes a page's size from its header and inflates as far as the stream goes, so that a small file could ask for
//! any amount of memory. It is therefore told that the column is not compressed, hands its pages over as they are stored, and they
//! are inflated here. Encodings whose decoders allocate what the page declares are refused; Waymo's writer uses none of them.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use parquet::basic::{Compression, Encoding};
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::serialized_reader::SerializedPageReader;

use super::super::range_image::MAX_INFLATED;

/// Most values of one page, and of all pages that are read for one list or one column of short ones. The largest range image has
/// 1.02 million.
pub(super) const MAX_VALUES: usize = 1 << 24;
/// Largest page once inflated. Writers begin a new page at about 1 MB, at the latest after a row, and a range image has 4 MB.
pub(super) const MAX_PAGE_BYTES: usize = MAX_INFLATED;
/// How values may be stored.
const READ_ENCODINGS: [Encoding; 4] =
    [Encoding::PLAIN, Encoding::RLE_DICTIONARY, Encoding::PLAIN_DICTIONARY, Encoding::BYTE_STREAM_SPLIT];
/// What brotli reads at once.
const BROTLI_CHUNK_BYTES: usize = 4096;

/// Pages of a column.
pub(super) struct Pages {
    stored: SerializedPageReader<Bytes>,
    compression: Compression,
    dictionary: Option<Page>,
    allowance: Allowance,
}

/// How many values the pages yet to come may hold together.
#[derive(Debug, Clone)]
pub(super) struct Allowance(Arc<AtomicUsize>);

impl Allowance {
    /// From now on [`MAX_VALUES`].
    pub(super) fn renew(&self) {
        self.0.store(MAX_VALUES, Ordering::Relaxed);
    }

    /// For pages that are passed over and not kept.
    pub(super) fn lift(&self) {
        self.0.store(usize::MAX, Ordering::Relaxed);
    }

    fn take(&self, n_values: usize) -> ParquetResult<()> {
        let left = self.0.load(Ordering::Relaxed);
        let rest = left.checked_sub(n_values).ok_or_else(|| {
            ParquetError::General(format!("{n_values} values in a page where {left} of at most {MAX_VALUES} were left"))
        })?;
        self.0.store(rest, Ordering::Relaxed);
        Ok(())
    }
}

impl Pages {
    pub(super) fn new(file: &Bytes, group: &RowGroupMetaData, column_idx: usize) -> ParquetResult<Self> {
        let column = group.column(column_idx);
        let as_stored = column.clone().into_builder().set_compression(Compression::UNCOMPRESSED).build()?;
        let n_rows = usize::try_from(group.num_rows())?;
        let stored = SerializedPageReader::new(Arc::new(file.clone()), &as_stored, n_rows, None)?;
        let allowance = Allowance(Arc::new(AtomicUsize::new(MAX_VALUES)));
        Ok(Self { stored, compression: column.compression(), dictionary: None, allowance })
    }

    /// Limits what the next pages may hold.
    pub(super) fn allowance(&self) -> Allowance {
        self.allowance.clone()
    }

    /// Skips whole pages while those skipped have no more than so many values; returns how many they have. A dictionary on the way
    /// is kept for the pages behind.
    pub(super) fn skip_values(&mut self, n_values: usize) -> ParquetResult<usize> {
        let mut n_skipped = 0;
        while let Some(page) = self.stored.peek_next_page()? {
            if page.is_dict {
                self.dictionary = self.next_inflated()?;
                continue;
            }
            let n_of_page = page.num_levels.unwrap_or(0);
            if n_skipped + n_of_page > n_values {
                break;
            }
            self.stored.skip_next_page()?;
            n_skipped += n_of_page;
        }
        Ok(n_skipped)
    }

    fn next_inflated(&mut self) -> ParquetResult<Option<Page>> {
        let Some(page) = self.stored.get_next_page()? else { return Ok(None) };
        let (n_values, encoding) = (page.num_values() as usize, page.encoding());
        if !READ_ENCODINGS.contains(&encoding) {
            return Err(ParquetError::General(format!("a page is encoded as {encoding}, read are {READ_ENCODINGS:?}")));
        }
        if n_values > MAX_VALUES {
            return Err(ParquetError::General(format!("a page declares {n_values} values, at most {MAX_VALUES}")));
        }
        let page = inflated(page, self.compression)?;
        match &page {
            // Each takes a byte or more, and memory for all is taken before the first is read.
            Page::DictionaryPage { buf, .. } if n_values > buf.len() => {
                let n_bytes = buf.len();
                Err(ParquetError::General(format!("a dictionary declares {n_values} values in {n_bytes} bytes")))
            }
            Page::DictionaryPage { .. } => Ok(Some(page)),
            _ => self.allowance.take(n_values).map(|()| Some(page)),
        }
    }
}

impl Iterator for Pages {
    type Item = ParquetResult<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for Pages {
    fn get_next_page(&mut self) -> ParquetResult<Option<Page>> {
        match self.dictionary.take() {
            Some(page) => Ok(Some(page)),
            None => self.next_inflated(),
        }
    }

    fn peek_next_page(&mut self) -> ParquetResult<Option<PageMetadata>> {
        match self.dictionary {
            Some(_) => Ok(Some(PageMetadata { num_rows: None, num_levels: None, is_dict: true })),
            None => self.stored.peek_next_page(),
        }
    }

    fn skip_next_page(&mut self) -> ParquetResult<()> {
        match self.dictionary.take() {
            Some(_) => Ok(()),
            None => self.stored.skip_next_page(),
        }
    }
}

fn inflated(page: Page, compression: Compression) -> ParquetResult<Page> {
    Ok(match page {
        Page::DataPage { buf, num_values, encoding, def_level_encoding, rep_level_encoding, statistics } => {
            let buf = inflate(&buf, compression)?;
            Page::DataPage { buf, num_values, encoding, def_level_encoding, rep_level_encoding, statistics }
        }
        Page::DictionaryPage { buf, num_values, encoding, is_sorted } => {
            Page::DictionaryPage { buf: inflate(&buf, compression)?, num_values, encoding, is_sorted }
        }
        Page::DataPageV2 {
            buf,
            num_values,
            encoding,
            num_nulls,
            num_rows,
            def_levels_byte_len,
            rep_levels_byte_len,
            is_compressed,
            statistics,
        } => {
            let n_level_bytes = def_levels_byte_len as usize + rep_levels_byte_len as usize;
            if n_level_bytes > buf.len() {
                let n_bytes = buf.len();
                return Err(ParquetError::General(format!("a page of {n_bytes} bytes declares {n_level_bytes} bytes of levels")));
            }
            // Levels come first and are never compressed.
            let values =
                if is_compressed { inflate(&buf.slice(n_level_bytes..), compression)? } else { buf.slice(n_level_bytes..) };
            Page::DataPageV2 {
                buf: Bytes::from([&buf[..n_level_bytes], &values[..]].concat()),
                num_values,
                encoding,
                num_nulls,
                num_rows,
                def_levels_byte_len,
                rep_levels_byte_len,
                is_compressed,
                statistics,
            }
        }
    })
}

fn inflate(stored: &Bytes, compression: Compression) -> ParquetResult<Bytes> {
    // What has no values at all is stored as nothing.
    if stored.is_empty() {
        return Ok(Bytes::new());
    }
    match compression {
        Compression::UNCOMPRESSED => Ok(stored.clone()),
        Compression::SNAPPY => {
            let declared = snap::raw::decompress_len(stored).map_err(|error| ParquetError::External(error.into()))?;
            if declared > MAX_PAGE_BYTES {
                let n_stored = stored.len();
                let reason = format!("a page of {n_stored} bytes inflates to {declared}, at most {MAX_PAGE_BYTES}");
                return Err(ParquetError::General(reason));
            }
            let inflated = snap::raw::Decoder::new().decompress_vec(stored);
            inflated.map(Bytes::from).map_err(|error| ParquetError::External(error.into()))
        }
        Compression::BROTLI(_) => read_limited(brotli::Decompressor::new(&stored[..], BROTLI_CHUNK_BYTES), stored.len()),
        Compression::ZSTD(_) => read_limited(zstd::stream::read::Decoder::with_buffer(&stored[..])?, stored.len()),
        other => Err(ParquetError::General(format!("is compressed as {other}, read are BROTLI, SNAPPY, ZSTD and none"))),
    }
}

fn read_limited(inflater: impl Read, n_stored: usize) -> ParquetResult<Bytes> {
    let mut bytes = Vec::new();
    inflater.take(MAX_PAGE_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > MAX_PAGE_BYTES {
        return Err(ParquetError::General(format!("a page of {n_stored} bytes inflates to more than {MAX_PAGE_BYTES}")));
    }
    Ok(Bytes::from(bytes))
}
