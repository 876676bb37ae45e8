//! Writes GGUF version 3: for tests, benches and synthetic models. What it writes, [`crate::gguf::Gguf`] reads.

use super::GgufError;
use super::reader::TYPE_STRING;

/// Offsets of tensors are multiples of this, the default of the format.
pub const ALIGNMENT: usize = 32;

/// A file in the making: keys and tensors in the order they are given.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    keys: Vec<u8>,
    key_count: u64,
    table: Vec<u8>,
    tensor_count: u64,
    data: Vec<u8>,
}

impl Writer {
    /// An empty file.
    #[must_use]
    pub fn new() -> Writer {
        Writer::default()
    }

    /// A text.
    #[must_use]
    pub fn text(self, key: &str, value: &str) -> Writer {
        self.raw_key(key, TYPE_STRING, &text_bytes(value))
    }

    /// An unsigned 32-bit number.
    #[must_use]
    pub fn u32(self, key: &str, value: u32) -> Writer {
        self.raw_key(key, 4, &value.to_le_bytes())
    }

    /// A binary32 number.
    #[must_use]
    pub fn f32(self, key: &str, value: f32) -> Writer {
        self.raw_key(key, 6, &value.to_le_bytes())
    }

    /// A truth value.
    #[must_use]
    pub fn bool(self, key: &str, value: bool) -> Writer {
        self.raw_key(key, 7, &[u8::from(value)])
    }

    /// An array of texts.
    #[must_use]
    pub fn texts<'a>(self, key: &str, values: impl IntoIterator<Item = &'a str>) -> Writer {
        let values: Vec<Vec<u8>> = values.into_iter().map(text_bytes).collect();
        self.array(key, TYPE_STRING, &values)
    }

    /// An array of signed 32-bit numbers.
    #[must_use]
    pub fn i32s(self, key: &str, values: &[i32]) -> Writer {
        self.array(key, 5, &values.iter().map(|value| value.to_le_bytes()).collect::<Vec<_>>())
    }

    /// An array of binary32 numbers.
    #[must_use]
    pub fn f32s(self, key: &str, values: &[f32]) -> Writer {
        self.array(key, 6, &values.iter().map(|value| value.to_le_bytes()).collect::<Vec<_>>())
    }

    /// A key with a type number and bytes of the caller's choice, right or wrong.
    #[must_use]
    pub fn raw_key(mut self, key: &str, kind: u32, value: &[u8]) -> Writer {
        self.keys.extend(text_bytes(key));
        self.keys.extend(kind.to_le_bytes());
        self.keys.extend(value);
        self.key_count += 1;
        self
    }

    /// A tensor: dimensions with the row length first, type number, bytes of all rows. Its place is the next free one.
    #[must_use]
    pub fn tensor(mut self, name: &str, dims: &[u64], kind: u32, bytes: &[u8]) -> Writer {
        let offset = self.data.len() as u64;
        self.data.extend(bytes);
        pad(&mut self.data);
        self.tensor_at(name, dims, kind, offset)
    }

    /// A tensor of binary32 numbers.
    #[must_use]
    pub fn floats(self, name: &str, dims: &[u64], values: &[f32]) -> Writer {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.tensor(name, dims, 0, &bytes)
    }

    /// A row of the tensor table with an offset of the caller's choice, right or wrong.
    #[must_use]
    pub fn tensor_at(mut self, name: &str, dims: &[u64], kind: u32, offset: u64) -> Writer {
        self.table.extend(text_bytes(name));
        let count = u32::try_from(dims.len()).expect("a handful of dimensions");
        self.table.extend(count.to_le_bytes());
        self.table.extend(dims.iter().flat_map(|dim| dim.to_le_bytes()));
        self.table.extend(kind.to_le_bytes());
        self.table.extend(offset.to_le_bytes());
        self.tensor_count += 1;
        self
    }

    /// The whole file.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        let mut file = b"GGUF".to_vec();
        file.extend(3_u32.to_le_bytes());
        file.extend(self.tensor_count.to_le_bytes());
        file.extend(self.key_count.to_le_bytes());
        file.extend(self.keys);
        file.extend(self.table);
        pad(&mut file);
        file.extend(self.data);
        file
    }

    /// The whole file, opened.
    ///
    /// # Errors
    /// What [`crate::gguf::Gguf::from_vec`] says about it.
    pub fn open(self) -> Result<super::Gguf, GgufError> {
        super::Gguf::from_vec(self.finish())
    }

    fn array<T: AsRef<[u8]>>(self, key: &str, element: u32, values: &[T]) -> Writer {
        let mut bytes = element.to_le_bytes().to_vec();
        bytes.extend((values.len() as u64).to_le_bytes());
        for value in values {
            bytes.extend(value.as_ref());
        }
        self.raw_key(key, 9, &bytes)
    }
}

fn text_bytes(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
}
