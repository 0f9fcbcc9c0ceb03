//! Parquet tables by column name, without arrow: key columns whole, one long list at a time.
//!
//! Columns are found by the first part of their path, so that extra columns and the writer's names for list items do not matter. Numbers
//! are accepted in either width. A list column of range images is too large to be read for one row; [`Table::list_at`] skips the
//! pages before it by the numbers of values in their headers, without inflating them.
//!
//! # Limits
//! [`MAX_ROWS`] per row group, [`MAX_VALUES`] per list and per column of short lists, and those of [`pages`](super::pages).

use std::path::{Path, PathBuf};

use parquet::basic::Type as PhysicalType;
use parquet::column::reader::ColumnReaderImpl;
use parquet::data_type::{ByteArrayType, DataType, DoubleType, FloatType, Int32Type, Int64Type};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::reader::FileReader;
use parquet::file::serialized_reader::SerializedFileReader;

use super::super::Fault;
use super::pages::{Allowance, MAX_VALUES, Pages};
use crate::bag::map::map_file;
use crate::data::DataError;

/// Most rows of a row group; a segment has a thousand lidar rows and some 20 000 boxes.
pub(super) const MAX_ROWS: usize = 1 << 20;

/// A column of one row group, and for lists where each row's values begin.
struct Column<T> {
    values: Vec<T>,
    definition_levels: Vec<i16>,
    repetition_levels: Vec<i16>,
    max_definition: i16,
    max_repetition: i16,
}

/// Rows of a column, one after the other.
struct Rows<T: DataType> {
    reader: ColumnReaderImpl<T>,
    allowance: Allowance,
}

pub(super) struct Table {
    path: PathBuf,
    bytes: bytes::Bytes,
    reader: SerializedFileReader<bytes::Bytes>,
}

impl Table {
    /// # Errors
    /// A file that is missing or no parquet.
    pub(super) fn open(path: &Path) -> Result<Self, DataError> {
        let bytes = map_file(path).map_err(|source| DataError::Io { path: path.display().to_string(), source })?;
        let fault = |reason| Fault { place: "footer".to_owned(), reason }.of(path, "parquet");
        if bytes.is_empty() {
            return Err(fault("the file is empty".to_owned()));
        }
        let reader = SerializedFileReader::new(bytes.clone()).map_err(|error| fault(error.to_string()))?;
        for (group_idx, group) in reader.metadata().row_groups().iter().enumerate() {
            if usize::try_from(group.num_rows()).is_ok_and(|n_rows| n_rows <= MAX_ROWS) {
                continue;
            }
            return Err(fault(format!("row group {group_idx} has {} rows, at most {MAX_ROWS}", group.num_rows())));
        }
        Ok(Self { path: path.to_owned(), bytes, reader })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn n_groups(&self) -> usize {
        self.reader.metadata().num_row_groups()
    }

    pub(super) fn n_rows(&self, group_idx: usize) -> usize {
        usize::try_from(self.reader.metadata().row_group(group_idx).num_rows()).unwrap_or(0)
    }

    /// A column of integers.
    pub(super) fn integers(&self, group_idx: usize, name: &str) -> Result<Vec<Option<i64>>, DataError> {
        match self.physical_type(name)? {
            PhysicalType::INT32 => self.flat::<Int32Type, _>(group_idx, name, i64::from),
            PhysicalType::INT64 => self.flat::<Int64Type, _>(group_idx, name, |value| value),
            other => Err(self.wrong_type(name, "an integer", other)),
        }
    }

    /// A column of floating-point numbers.
    pub(super) fn numbers(&self, group_idx: usize, name: &str) -> Result<Vec<Option<f64>>, DataError> {
        match self.physical_type(name)? {
            PhysicalType::FLOAT => self.flat::<FloatType, _>(group_idx, name, f64::from),
            PhysicalType::DOUBLE => self.flat::<DoubleType, _>(group_idx, name, |value| value),
            other => Err(self.wrong_type(name, "a number", other)),
        }
    }

    /// A column of strings.
    pub(super) fn strings(&self, group_idx: usize, name: &str) -> Result<Vec<Option<String>>, DataError> {
        match self.physical_type(name)? {
            PhysicalType::BYTE_ARRAY => {
                self.flat::<ByteArrayType, _>(group_idx, name, |value| String::from_utf8_lossy(value.data()).into_owned())
            }
            other => Err(self.wrong_type(name, "a string", other)),
        }
    }

    /// A column of short lists of integers.
    pub(super) fn integer_lists(&self, group_idx: usize, name: &str) -> Result<Vec<Option<Vec<i32>>>, DataError> {
        match self.physical_type(name)? {
            PhysicalType::INT32 => self.lists::<Int32Type, _>(group_idx, name, |value| value),
            other => Err(self.wrong_type(name, "a list of 32-bit integers", other)),
        }
    }

    /// A column of short lists of floating-point numbers.
    pub(super) fn number_lists(&self, group_idx: usize, name: &str) -> Result<Vec<Option<Vec<f64>>>, DataError> {
        match self.physical_type(name)? {
            PhysicalType::FLOAT => self.lists::<FloatType, _>(group_idx, name, f64::from),
            PhysicalType::DOUBLE => self.lists::<DoubleType, _>(group_idx, name, |value| value),
            other => Err(self.wrong_type(name, "a list of numbers", other)),
        }
    }

    /// One list of a column too large to be read whole.
    ///
    /// `levels_before` is what the rows before it hold: the length of each list, or 1 for one that is empty or absent. Where that
    /// does not meet the beginning of a row, the column is read from its start.
    pub(super) fn list_at(
        &self,
        group_idx: usize,
        name: &str,
        row_idx: usize,
        levels_before: usize,
    ) -> Result<Option<Vec<f32>>, DataError> {
        match self.physical_type(name)? {
            PhysicalType::FLOAT => {}
            other => return Err(self.wrong_type(name, "a list of 32-bit floats", other)),
        }
        let place =
            |reason: String| self.fault(Fault { place: format!("column {name}, row group {group_idx}, row {row_idx}"), reason });
        let parquet_error = |error: ParquetError| place(error.to_string());
        let mut pages = self.pages(group_idx, name).map_err(parquet_error)?;
        let mut n_skipped = pages.skip_values(levels_before).map_err(parquet_error)?;
        let mut rows = self.rows::<FloatType>(name, pages)?;
        let mut found = self.empty_column(name)?;
        while n_skipped < levels_before {
            match rows.next(&mut found).map_err(parquet_error)? {
                0 => break,
                n_levels => n_skipped += n_levels,
            }
        }
        if n_skipped != levels_before {
            rows = self.rows(name, self.pages(group_idx, name).map_err(parquet_error)?)?;
            rows.skip(row_idx).map_err(parquet_error)?;
        }
        match rows.next(&mut found).map_err(parquet_error)? {
            1..=MAX_VALUES => Ok(found.lists(|value: f32| value).map_err(place)?.into_iter().next().flatten()),
            n_levels => Err(place(format!("a row with {n_levels} values, expected 1 to {MAX_VALUES}"))),
        }
    }

    /// A reader that stands before the first row of these pages.
    fn rows<T: DataType>(&self, name: &str, pages: Pages) -> Result<Rows<T>, DataError> {
        let (column_idx, _) = self.column_idx(name)?;
        let descriptor = self.reader.metadata().file_metadata().schema_descr().column(column_idx);
        let allowance = pages.allowance();
        Ok(Rows { reader: ColumnReaderImpl::<T>::new(descriptor, Box::new(pages)), allowance })
    }

    fn pages(&self, group_idx: usize, name: &str) -> ParquetResult<Pages> {
        let (column_idx, _) = self.column_idx(name).map_err(|error| ParquetError::General(error.to_string()))?;
        Pages::new(&self.bytes, self.reader.metadata().row_group(group_idx), column_idx)
    }

    fn flat<T: DataType, U>(&self, group_idx: usize, name: &str, convert: fn(T::T) -> U) -> Result<Vec<Option<U>>, DataError> {
        let rows = self.column::<T>(group_idx, name)?.flat(convert);
        self.check_rows(group_idx, name, rows)
    }

    fn lists<T: DataType, U>(
        &self,
        group_idx: usize,
        name: &str,
        convert: fn(T::T) -> U,
    ) -> Result<Vec<Option<Vec<U>>>, DataError> {
        let rows = self.column::<T>(group_idx, name)?.lists(convert);
        self.check_rows(group_idx, name, rows)
    }

    fn check_rows<U>(&self, group_idx: usize, name: &str, rows: Result<Vec<U>, String>) -> Result<Vec<U>, DataError> {
        let n_rows = self.n_rows(group_idx);
        rows.and_then(|rows| {
            if rows.len() == n_rows { Ok(rows) } else { Err(format!("{} rows, the row group has {n_rows}", rows.len())) }
        })
        .map_err(|reason| self.fault(Fault { place: format!("column {name}, row group {group_idx}"), reason }))
    }

    fn column<T: DataType>(&self, group_idx: usize, name: &str) -> Result<Column<T::T>, DataError> {
        let n_rows = self.n_rows(group_idx);
        let fault = |reason: String| self.fault(Fault { place: format!("column {name}, row group {group_idx}"), reason });
        let pages = self.pages(group_idx, name).map_err(|error| fault(error.to_string()))?;
        let mut rows = self.rows::<T>(name, pages)?;
        let mut column = self.empty_column(name)?;
        rows.read(n_rows, &mut column).map_err(|error| fault(error.to_string()))?;
        Ok(column)
    }

    fn empty_column<T>(&self, name: &str) -> Result<Column<T>, DataError> {
        let (_, (max_definition, max_repetition)) = self.column_idx(name)?;
        let (values, definition_levels, repetition_levels) = Default::default();
        Ok(Column { values, definition_levels, repetition_levels, max_definition, max_repetition })
    }

    /// Index of a column, and its highest definition and repetition level.
    fn column_idx(&self, name: &str) -> Result<(usize, (i16, i16)), DataError> {
        let schema = self.reader.metadata().file_metadata().schema_descr();
        let found = schema.columns().iter().position(|column| column.path().parts().first().is_some_and(|part| part == name));
        let Some(column_idx) = found else {
            let names: Vec<_> = schema.columns().iter().filter_map(|column| column.path().parts().first().cloned()).collect();
            let reason = format!("there is no column `{name}`; there are: {}", names.join(", "));
            return Err(self.fault(Fault { place: "schema".to_owned(), reason }));
        };
        let column = schema.column(column_idx);
        Ok((column_idx, (column.max_def_level(), column.max_rep_level())))
    }

    fn physical_type(&self, name: &str) -> Result<PhysicalType, DataError> {
        let (column_idx, _) = self.column_idx(name)?;
        Ok(self.reader.metadata().file_metadata().schema_descr().column(column_idx).physical_type())
    }

    fn wrong_type(&self, name: &str, expected: &str, got: PhysicalType) -> DataError {
        self.fault(Fault { place: format!("column {name}"), reason: format!("is of type {got}, expected {expected}") })
    }

    fn fault(&self, fault: Fault) -> DataError {
        fault.of(&self.path, "parquet")
    }
}

/// Length of a file and the bytes of its footer; nothing of the footer where there is none.
pub(super) fn footer(path: &Path) -> Vec<u8> {
    let Ok(bytes) = map_file(path) else { return Vec::new() };
    let mut found = (bytes.len() as u64).to_le_bytes().to_vec();
    // Its length and a magic word stand behind it.
    if let Some((rest, [length @ .., _, _, _, _])) = bytes.split_last_chunk::<8>() {
        let length = u32::from_le_bytes(*length) as usize;
        found.extend_from_slice(rest.len().checked_sub(length).map_or(&[], |start| &rest[start..]));
    }
    found
}

impl<T: DataType> Rows<T> {
    /// Replaces the column's content by the next row; returns how many values it has, 0 behind the last row.
    fn next(&mut self, column: &mut Column<T::T>) -> ParquetResult<usize> {
        column.definition_levels.clear();
        column.repetition_levels.clear();
        column.values.clear();
        self.allowance.renew();
        self.read(1, column)
    }

    /// Passes over rows.
    fn skip(&mut self, n_rows: usize) -> ParquetResult<()> {
        self.allowance.lift();
        self.reader.skip_records(n_rows).map(|_| ())
    }

    /// Appends rows; returns how many values they have.
    fn read(&mut self, n_rows: usize, column: &mut Column<T::T>) -> ParquetResult<usize> {
        let Column { values, definition_levels, repetition_levels, .. } = column;
        let (_, _, n_levels) = self.reader.read_records(n_rows, Some(definition_levels), Some(repetition_levels), values)?;
        Ok(n_levels)
    }
}

impl<T> Column<T> {
    /// One value or null per row.
    fn flat<U>(self, convert: impl Fn(T) -> U) -> Result<Vec<Option<U>>, String> {
        if self.max_repetition != 0 {
            return Err("is a list, expected one value a row".to_owned());
        }
        let mut values = self.values.into_iter().map(convert);
        if self.max_definition == 0 {
            return Ok(values.map(Some).collect());
        }
        Ok(self.definition_levels.iter().map(|&level| if level == self.max_definition { values.next() } else { None }).collect())
    }

    /// One list or null per row; a list that is empty counts as null, an item that is null is refused.
    fn lists<U>(self, convert: impl Fn(T) -> U) -> Result<Vec<Option<Vec<U>>>, String> {
        if self.max_repetition != 1 {
            return Err(format!("is nested {} deep, expected a list", self.max_repetition));
        }
        let mut values = self.values.into_iter().map(convert);
        let mut rows = Vec::new();
        let mut at = 0;
        while at < self.repetition_levels.len() {
            let n_levels = 1 + self.repetition_levels[at + 1..].iter().take_while(|&&level| level > 0).count();
            let n_values =
                self.definition_levels[at..at + n_levels].iter().filter(|&&level| level == self.max_definition).count();
            rows.push(match n_values {
                0 if n_levels == 1 => None,
                n if n == n_levels => Some(values.by_ref().take(n).collect()),
                n => return Err(format!("row {} has {} null items of {n_levels}", rows.len(), n_levels - n)),
            });
            at += n_levels;
        }
        Ok(rows)
    }
}
