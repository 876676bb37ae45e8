//! The header of a GGUF file: magic, version, keys, tensor table. One pass, nothing trusted.
//!
//! ```text
//! "GGUF" | version u32 | tensors u64 | keys u64
//! key:    name | type u32 | value            text and name: length u64, bytes
//! tensor: name | dims u32 | dim u64 ... | type u32 | offset u64 (from the data section, a multiple of the alignment)
//! padding to the alignment | data section
//! ```

use std::collections::BTreeMap;
use std::ops::Range;

use super::GgufError;
use super::metadata::{Metadata, Value};
use super::tensor::{TensorInfo, TensorType, check_layout};

/// Keys of one file. Published models have about 30; the table is kept in memory.
pub const KEYS_MAX: u64 = 4_096;
/// Tensors of one file. 1024 layers of 15 tensors would still fit.
pub const TENSORS_MAX: u64 = 16_384;
/// Length of a key or of a tensor name. The format allows 65,535 and 64; names are kept and printed.
pub const NAME_BYTES_MAX: u64 = 256;
/// Length of one text. The longest in use are chat templates, some tens of kilobytes.
pub const TEXT_BYTES_MAX: u64 = 1 << 20;
/// Elements of one array. The biggest in use are the merges of large vocabularies, half a million.
pub const ARRAY_MAX: u64 = 10_000_000;
/// Arrays of arrays. Nobody uses even one level.
pub const NESTING_MAX: u32 = 4;
/// Alignment of the data section. 32 by default; a memory page is the most that makes sense.
pub const ALIGNMENT_MAX: u64 = 65_536;

pub(crate) const TYPE_STRING: u32 = 8;
const TYPE_ARRAY: u32 = 9;
const MAGIC: [u8; 4] = *b"GGUF";
const ALIGNMENT_DEFAULT: u64 = 32;
const ALIGNMENT_KEY: &str = "general.alignment";

/// What the header pass found. Invariant: every span lies inside the file, no two tensors overlap.
#[derive(Debug)]
pub(crate) struct Header {
    pub(crate) version: u32,
    pub(crate) values: BTreeMap<String, Value>,
    pub(crate) tensors: BTreeMap<String, TensorInfo>,
}

impl Header {
    pub(crate) fn read(bytes: &[u8]) -> Result<Header, GgufError> {
        let mut cursor = Cursor::at(bytes, 0);
        let magic = cursor.take::<4>(|| "the magic bytes".to_owned())?;
        if magic != MAGIC {
            // A safetensors file begins with the length of its JSON, eight bytes of which the upper ones are zero.
            if let [_, _, _, _, 0, 0, 0, 0, b'{', ..] = bytes {
                return Err(GgufError::Safetensors);
            }
            return Err(GgufError::Magic { found: magic });
        }
        let version = cursor.u32(|| "the version".to_owned())?;
        if !(2..=3).contains(&version) {
            return Err(GgufError::Version { found: version });
        }
        let tensor_count = cursor.count("number of tensors", TENSORS_MAX)?;
        let key_count = cursor.count("number of keys", KEYS_MAX)?;
        let values = read_values(&mut cursor, key_count)?;
        let metadata = Metadata::new(bytes, &values);
        let alignment = metadata.opt_u64(ALIGNMENT_KEY)?.unwrap_or(ALIGNMENT_DEFAULT);
        if !alignment.is_power_of_two() || !(8..=ALIGNMENT_MAX).contains(&alignment) {
            return Err(GgufError::Alignment { found: alignment, max: ALIGNMENT_MAX });
        }
        let is_bitnet = metadata.opt_str("general.architecture")?.is_some_and(|name| name.starts_with("bitnet"));
        let mut tensors = read_tensors(&mut cursor, tensor_count, is_bitnet)?;
        // A file without tensors may end right behind its keys, without padding.
        let data = (cursor.position as u64).next_multiple_of(alignment).min(bytes.len() as u64);
        check_layout(&mut tensors, data, bytes.len() as u64, alignment)?;
        Ok(Header { version, values, tensors })
    }
}

fn read_values(cursor: &mut Cursor<'_>, count: u64) -> Result<BTreeMap<String, Value>, GgufError> {
    let mut values = BTreeMap::new();
    for index in 0..count {
        let key = cursor.name(|| format!("key {index}"))?;
        if values.contains_key(&key) {
            return Err(GgufError::DuplicateKey { key });
        }
        let kind = cursor.u32(|| format!("the type of the key {key:?}"))?;
        let value = read_value(cursor, &key, kind)?;
        values.insert(key, value);
    }
    Ok(values)
}

fn read_value(cursor: &mut Cursor<'_>, key: &str, kind: u32) -> Result<Value, GgufError> {
    let what = || format!("the key {key:?}");
    Ok(match kind {
        0 => Value::Unsigned(u64::from(u8::from_le_bytes(cursor.take(what)?))),
        1 => Value::Signed(i64::from(i8::from_le_bytes(cursor.take(what)?))),
        2 => Value::Unsigned(u64::from(u16::from_le_bytes(cursor.take(what)?))),
        3 => Value::Signed(i64::from(i16::from_le_bytes(cursor.take(what)?))),
        4 => Value::Unsigned(u64::from(cursor.u32(what)?)),
        5 => Value::Signed(i64::from(i32::from_le_bytes(cursor.take(what)?))),
        6 => Value::Float(f64::from(f32::from_le_bytes(cursor.take(what)?))),
        7 => match u8::from_le_bytes(cursor.take(what)?) {
            0 => Value::Bool(false),
            1 => Value::Bool(true),
            other => return Err(super::metadata::bad_value(key, other, "a truth value is 0 or 1")),
        },
        TYPE_STRING => Value::Text(cursor.text(what)?),
        TYPE_ARRAY => {
            let (element, count) = cursor.array_head(key)?;
            let start = cursor.position;
            cursor.skip_elements(key, element, count, 1)?;
            let count = usize::try_from(count).expect("at most ARRAY_MAX, which fits");
            Value::Array { element, count, span: start..cursor.position }
        }
        10 => Value::Unsigned(cursor.u64(what)?),
        11 => Value::Signed(i64::from_le_bytes(cursor.take(what)?)),
        12 => Value::Float(f64::from_le_bytes(cursor.take(what)?)),
        found => return Err(GgufError::ValueType { key: key.to_owned(), found }),
    })
}

fn read_tensors(
    cursor: &mut Cursor<'_>,
    count: u64,
    is_bitnet: bool,
) -> Result<BTreeMap<String, TensorInfo>, GgufError> {
    let mut tensors = BTreeMap::new();
    for index in 0..count {
        let tensor = cursor.name(|| format!("the name of tensor {index}"))?;
        if tensors.contains_key(&tensor) {
            return Err(GgufError::DuplicateTensor { tensor });
        }
        let what = || format!("the tensor {tensor:?}");
        let dim_count = cursor.u32(what)?;
        if !(1..=4).contains(&dim_count) {
            return Err(GgufError::TooMany {
                what: format!("dimensions of {tensor:?}"),
                count: u64::from(dim_count),
                max: 4,
            });
        }
        let mut dims = Vec::with_capacity(4);
        for _ in 0..dim_count {
            dims.push(cursor.u64(what)?);
        }
        let kind = TensorType::of(cursor.u32(what)?, is_bitnet);
        let offset = cursor.u64(what)?;
        let info = TensorInfo::new(&tensor, &dims, kind, offset)?;
        tensors.insert(tensor, info);
    }
    Ok(tensors)
}

/// A position in the file that only moves over bytes that are there.
#[derive(Debug)]
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn at(bytes: &'a [u8], position: usize) -> Cursor<'a> {
        Cursor { bytes, position }
    }

    /// Steps over `length` bytes and says where they are.
    fn span(&mut self, length: u64, what: impl FnOnce() -> String) -> Result<Range<usize>, GgufError> {
        let left = self.bytes.len() - self.position;
        match usize::try_from(length) {
            Ok(length) if length <= left => {
                let span = self.position..self.position + length;
                self.position = span.end;
                Ok(span)
            }
            _ => Err(GgufError::Truncated {
                what: what(),
                offset: self.position as u64,
                needed: length,
                left: left as u64,
            }),
        }
    }

    fn take<const N: usize>(&mut self, what: impl FnOnce() -> String) -> Result<[u8; N], GgufError> {
        let span = self.span(N as u64, what)?;
        Ok(self.bytes[span].try_into().expect("the span is N bytes long"))
    }

    fn u32(&mut self, what: impl FnOnce() -> String) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.take(what)?))
    }

    fn u64(&mut self, what: impl FnOnce() -> String) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.take(what)?))
    }

    fn count(&mut self, what: &str, max: u64) -> Result<u64, GgufError> {
        let count = self.u64(|| format!("the {what}"))?;
        if count > max { Err(GgufError::TooMany { what: what.to_owned(), count, max }) } else { Ok(count) }
    }

    /// A text of limited length: where its bytes are.
    pub(crate) fn text(&mut self, what: impl Fn() -> String) -> Result<Range<usize>, GgufError> {
        self.text_up_to(TEXT_BYTES_MAX, what)
    }

    fn text_up_to(&mut self, max: u64, what: impl Fn() -> String) -> Result<Range<usize>, GgufError> {
        let length = self.u64(&what)?;
        if length > max {
            return Err(GgufError::TooMany { what: format!("bytes of {}", what()), count: length, max });
        }
        self.span(length, what)
    }

    fn name(&mut self, what: impl Fn() -> String) -> Result<String, GgufError> {
        let span = self.text_up_to(NAME_BYTES_MAX, &what)?;
        match std::str::from_utf8(&self.bytes[span]) {
            Ok(name) => Ok(name.to_owned()),
            Err(_) => Err(GgufError::NotUtf8 { what: what() }),
        }
    }

    fn array_head(&mut self, key: &str) -> Result<(u32, u64), GgufError> {
        let element = self.u32(|| format!("the array {key:?}"))?;
        let count = self.u64(|| format!("the array {key:?}"))?;
        if count > ARRAY_MAX {
            return Err(GgufError::TooMany { what: format!("elements of {key:?}"), count, max: ARRAY_MAX });
        }
        Ok((element, count))
    }

    /// Steps over array elements. Each takes at least a byte, so the work is bounded by the size of the file.
    fn skip_elements(&mut self, key: &str, element: u32, count: u64, depth: u32) -> Result<(), GgufError> {
        if let Some(size) = scalar_bytes(element) {
            return self.span(count * size, || format!("the array {key:?}")).map(drop);
        }
        match element {
            TYPE_STRING => {
                for index in 0..count {
                    self.text(|| format!("element {index} of the array {key:?}"))?;
                }
            }
            TYPE_ARRAY if depth >= NESTING_MAX => {
                return Err(GgufError::Nesting { key: key.to_owned(), max: NESTING_MAX });
            }
            TYPE_ARRAY => {
                for _ in 0..count {
                    let (element, count) = self.array_head(key)?;
                    self.skip_elements(key, element, count, depth + 1)?;
                }
            }
            found => return Err(GgufError::ValueType { key: key.to_owned(), found }),
        }
        Ok(())
    }
}

fn scalar_bytes(kind: u32) -> Option<u64> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}
