//! Reading numbers and texts from bytes, each checked against the end.

use crate::ModelError;

/// A place in the bytes that never goes beyond their end.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Offset of the next byte.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn take(&mut self, length: usize, what: &str) -> Result<&'a [u8], ModelError> {
        let remaining = self.bytes.len() - self.at;
        if length > remaining {
            return Err(ModelError::format(
                self.at,
                format!("{length} bytes of {what}"),
                format!("{remaining} bytes up to the end of the file"),
            ));
        }
        let taken = &self.bytes[self.at..self.at + length];
        self.at += length;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], ModelError> {
        let mut value = [0; N];
        value.copy_from_slice(self.take(N, what)?);
        Ok(value)
    }

    pub(super) fn u32(&mut self, what: &str) -> Result<u32, ModelError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    /// A 64-bit number that fits the address space.
    pub(super) fn size(&mut self, what: &str) -> Result<usize, ModelError> {
        let at = self.at;
        let value = u64::from_le_bytes(self.array(what)?);
        // ggml keeps sizes in i64.
        i64::try_from(value)
            .ok()
            .and_then(|value| usize::try_from(value).ok())
            .ok_or_else(|| ModelError::format(at, format!("{what} below 2^63"), format!("{value}")))
    }

    /// A number of items of at least `least_bytes` each, which the rest of the file must be able to hold.
    pub(super) fn count(&mut self, what: &str, least_bytes: usize) -> Result<usize, ModelError> {
        let at = self.at;
        let count = self.size(what)?;
        let most = (self.bytes.len() - self.at) / least_bytes;
        if count > most {
            return Err(ModelError::format(
                at,
                format!("{what}: at most {most}, which is what the rest of the file can hold"),
                format!("{count}"),
            ));
        }
        Ok(count)
    }

    pub(super) fn string(&mut self, what: &str) -> Result<&'a str, ModelError> {
        let length = self.count(what, 1)?;
        let at = self.at;
        let bytes = self.take(length, what)?;
        std::str::from_utf8(bytes)
            .map_err(|error| ModelError::format(at + error.valid_up_to(), format!("{what} in UTF-8"), "other bytes"))
    }

    pub(super) fn bool(&mut self) -> Result<bool, ModelError> {
        let at = self.at;
        match self.array::<1>("a bool")? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(ModelError::format(at, "a bool of 0 or 1", other.to_string())),
        }
    }
}
