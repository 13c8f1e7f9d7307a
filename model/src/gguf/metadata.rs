//! Ordered keys and values with typed access.

use std::borrow::Cow;
use std::collections::HashMap;

use super::{Array, Value};
use crate::ModelError;

/// The metadata of a GGUF file: keys and values in file order, each key once.
///
/// `get_*` gives `None` where the key is missing and an error, which names key and type, where the value is of another
/// kind; `require_*` makes an error of a missing key too.
#[derive(Clone, Debug, Default)]
pub struct Metadata {
    entries: Vec<(String, Value)>,
    index: HashMap<String, usize>,
}

impl PartialEq for Metadata {
    fn eq(&self, other: &Self) -> bool {
        self.entries == other.entries
    }
}

impl Metadata {
    /// No key.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Keys and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// Whether the key is there.
    pub fn contains(&self, key: &str) -> bool {
        self.index.contains_key(key)
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.index.get(key).map(|&at| &self.entries[at].1)
    }

    /// Sets a key: in its place when it is there, at the end when it is new. The old value comes back.
    pub fn insert(&mut self, key: impl Into<String>, value: impl Into<Value>) -> Option<Value> {
        let (key, value) = (key.into(), value.into());
        if let Some(&at) = self.index.get(&key) {
            return Some(std::mem::replace(&mut self.entries[at].1, value));
        }
        self.index.insert(key.clone(), self.entries.len());
        self.entries.push((key, value));
        None
    }

    /// Takes a key out; the order of the others stays.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        let at = self.index.remove(key)?;
        let (_, value) = self.entries.remove(at);
        for place in self.index.values_mut() {
            if *place > at {
                *place -= 1;
            }
        }
        Some(value)
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        convert: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ModelError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        convert(value).map(Some).ok_or_else(|| ModelError::KeyType {
            key: key.to_owned(),
            expected: expected.to_owned(),
            found: value.describe(),
        })
    }

    /// An integer of any width that fits `u32`.
    pub fn get_u32(&self, key: &str) -> Result<Option<u32>, ModelError> {
        self.typed(key, "an integer from 0 to 4294967295", |value| {
            value.as_integer().and_then(|v| u32::try_from(v).ok())
        })
    }

    /// An integer of any width that fits `u64`.
    pub fn get_u64(&self, key: &str) -> Result<Option<u64>, ModelError> {
        self.typed(key, "an integer not below 0", |value| value.as_integer().and_then(|v| u64::try_from(v).ok()))
    }

    /// A float (an `f64` is rounded).
    pub fn get_f32(&self, key: &str) -> Result<Option<f32>, ModelError> {
        self.typed(key, "an f32 or f64", |value| match *value {
            Value::F32(v) => Some(v),
            Value::F64(v) => Some(v as f32),
            _ => None,
        })
    }

    /// True or false.
    pub fn get_bool(&self, key: &str) -> Result<Option<bool>, ModelError> {
        self.typed(key, "a bool", |value| match *value {
            Value::Bool(v) => Some(v),
            _ => None,
        })
    }

    /// Text.
    pub fn get_str(&self, key: &str) -> Result<Option<&str>, ModelError> {
        self.typed(key, "a string", |value| match value {
            Value::String(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// An array of texts.
    pub fn get_strings(&self, key: &str) -> Result<Option<&[String]>, ModelError> {
        self.typed(key, "an array of strings", |value| match value {
            Value::Array(Array::String(items)) => Some(items.as_slice()),
            _ => None,
        })
    }

    /// An array of floats (`f64` elements are rounded).
    pub fn get_f32_array(&self, key: &str) -> Result<Option<Cow<'_, [f32]>>, ModelError> {
        self.typed(key, "an array of f32", |value| match value {
            Value::Array(Array::F32(items)) => Some(Cow::Borrowed(items.as_slice())),
            Value::Array(Array::F64(items)) => Some(Cow::Owned(items.iter().map(|&v| v as f32).collect())),
            _ => None,
        })
    }

    /// An array of integers of any width that all fit `i32`.
    pub fn get_i32_array(&self, key: &str) -> Result<Option<Cow<'_, [i32]>>, ModelError> {
        self.typed(key, "an array of integers that fit i32", |value| match value {
            Value::Array(Array::I32(items)) => Some(Cow::Borrowed(items.as_slice())),
            Value::Array(array) => integers(array).map(Cow::Owned),
            _ => None,
        })
    }

    /// An array of integers of any width that all fit `u32`.
    pub fn get_u32_array(&self, key: &str) -> Result<Option<Cow<'_, [u32]>>, ModelError> {
        self.typed(key, "an array of integers that fit u32", |value| match value {
            Value::Array(Array::U32(items)) => Some(Cow::Borrowed(items.as_slice())),
            Value::Array(array) => integers(array).map(Cow::Owned),
            _ => None,
        })
    }
}

/// The elements of an integer array in another width, where they all fit.
fn integers<T>(array: &Array) -> Option<Vec<T>>
where
    T: TryFrom<u8>
        + TryFrom<i8>
        + TryFrom<u16>
        + TryFrom<i16>
        + TryFrom<u32>
        + TryFrom<i32>
        + TryFrom<u64>
        + TryFrom<i64>,
{
    fn convert<S: Copy, T: TryFrom<S>>(items: &[S]) -> Option<Vec<T>> {
        items.iter().map(|&v| T::try_from(v).ok()).collect()
    }
    match array {
        Array::U8(items) => convert(items),
        Array::I8(items) => convert(items),
        Array::U16(items) => convert(items),
        Array::I16(items) => convert(items),
        Array::U32(items) => convert(items),
        Array::I32(items) => convert(items),
        Array::U64(items) => convert(items),
        Array::I64(items) => convert(items),
        Array::F32(_) | Array::F64(_) | Array::Bool(_) | Array::String(_) => None,
    }
}

macro_rules! require {
    ($($(#[$doc:meta])* $name:ident, $get:ident, $type:ty;)*) => {
        impl Metadata {$(
            $(#[$doc])*
            pub fn $name(&self, key: &str) -> Result<$type, ModelError> {
                self.$get(key)?.ok_or_else(|| ModelError::MissingKey { key: key.to_owned() })
            }
        )*}
    };
}

require! {
    /// [`Metadata::get_u32`] of a key that must be there.
    require_u32, get_u32, u32;
    /// [`Metadata::get_u64`] of a key that must be there.
    require_u64, get_u64, u64;
    /// [`Metadata::get_f32`] of a key that must be there.
    require_f32, get_f32, f32;
    /// [`Metadata::get_bool`] of a key that must be there.
    require_bool, get_bool, bool;
    /// [`Metadata::get_str`] of a key that must be there.
    require_str, get_str, &str;
    /// [`Metadata::get_strings`] of a key that must be there.
    require_strings, get_strings, &[String];
}

impl FromIterator<(String, Value)> for Metadata {
    fn from_iter<I: IntoIterator<Item = (String, Value)>>(entries: I) -> Self {
        let mut metadata = Self::new();
        metadata.extend(entries);
        metadata
    }
}

impl Extend<(String, Value)> for Metadata {
    fn extend<I: IntoIterator<Item = (String, Value)>>(&mut self, entries: I) {
        for (key, value) in entries {
            self.insert(key, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_of_any_width_are_read_and_errors_name_key_and_type() {
        let mut metadata = Metadata::new();
        metadata.insert("a", 7_u16);
        metadata.insert("b", -1_i32);
        metadata.insert("c", vec![1_i64, 2]);
        metadata.insert("d", "text");
        assert_eq!(metadata.get_u32("a").unwrap(), Some(7));
        assert_eq!(metadata.get_u32("none").unwrap(), None);
        assert_eq!(metadata.get_u32_array("c").unwrap().as_deref(), Some(&[1_u32, 2][..]));
        let message = metadata.get_u32("b").unwrap_err().to_string();
        assert!(message.contains("\"b\"") && message.contains("the i32 -1"), "{message}");
        let message = metadata.get_f32("d").unwrap_err().to_string();
        assert!(message.contains("the string \"text\""), "{message}");
        let message = metadata.require_bool("none").unwrap_err().to_string();
        assert!(message.contains("\"none\" is missing"), "{message}");
    }

    #[test]
    fn insert_keeps_places_and_remove_keeps_order() {
        let mut metadata = Metadata::new();
        for key in ["a", "b", "c"] {
            metadata.insert(key, key);
        }
        assert_eq!(metadata.insert("b", 2_u8), Some(Value::from("b")));
        assert_eq!(metadata.remove("a"), Some(Value::from("a")));
        let keys: Vec<&str> = metadata.iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["b", "c"]);
        assert_eq!(metadata.get("c"), Some(&Value::from("c")));
    }
}
