//! Arrays of the expected `.npz` files: zip of `.npy`, little-endian, C order.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// `[N, columns]` as f64, whatever the stored width.
pub fn read(path: &Path, name: &str) -> Vec<f64> {
    let mut archive = zip::ZipArchive::new(File::open(path).unwrap()).unwrap();
    let mut bytes = Vec::new();
    archive.by_name(&format!("{name}.npy")).unwrap().read_to_end(&mut bytes).unwrap();
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00", "{name}");
    let header_end = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let (header, data) = (std::str::from_utf8(&bytes[10..header_end]).unwrap(), &bytes[header_end..]);
    assert!(header.contains("'fortran_order': False"), "{header}");
    let (_, rest) = header.split_once("'descr': '").unwrap();
    match rest.split('\'').next().unwrap() {
        "<f8" => data.chunks_exact(8).map(|value| f64::from_le_bytes(value.try_into().unwrap())).collect(),
        "<f4" => data.chunks_exact(4).map(|value| f64::from(f32::from_le_bytes(value.try_into().unwrap()))).collect(),
        "<u2" => data.chunks_exact(2).map(|value| f64::from(u16::from_le_bytes(value.try_into().unwrap()))).collect(),
        "<i2" => data.chunks_exact(2).map(|value| f64::from(i16::from_le_bytes(value.try_into().unwrap()))).collect(),
        other => panic!("{name} is of type {other}"),
    }
}
