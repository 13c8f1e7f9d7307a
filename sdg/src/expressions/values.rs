//! Between JSON and jinja's values.

use minijinja::value::{Value, ValueKind};

pub(crate) fn context<'a>(values: impl IntoIterator<Item = (&'a String, &'a serde_json::Value)>) -> Value {
    Value::from_pairs(values.into_iter().map(|(name, value)| (name.clone(), from_json(value))))
}

pub(crate) fn from_json(value: &serde_json::Value) -> Value {
    match value {
        serde_json::Value::Null => Value::from(()),
        serde_json::Value::Bool(value) => Value::from(*value),
        serde_json::Value::Number(number) => match number.as_i64() {
            Some(integer) => Value::from(integer),
            None => Value::from(number.as_f64().unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(text) => Value::from(text.as_str()),
        serde_json::Value::Array(items) => items.iter().map(from_json).collect(),
        serde_json::Value::Object(entries) => {
            Value::from_pairs(entries.iter().map(|(name, value)| (name.clone(), from_json(value))))
        }
    }
}

pub(crate) fn to_json(value: &Value) -> Result<serde_json::Value, String> {
    Ok(match value.kind() {
        ValueKind::None | ValueKind::Undefined => serde_json::Value::Null,
        ValueKind::Bool => value.is_true().into(),
        ValueKind::Number => match value.as_i64() {
            Some(integer) if value.is_integer() => integer.into(),
            _ => {
                let number = f64::try_from(value.clone()).map_err(|_| format!("{value} is too large"))?;
                if !number.is_finite() {
                    return Err(format!("the result is {number}"));
                }
                number.into()
            }
        },
        ValueKind::Seq | ValueKind::Iterable => {
            let items = value.try_iter().map_err(|error| error.to_string())?;
            items.map(|item| to_json(&item)).collect::<Result<_, _>>()?
        }
        ValueKind::Map => {
            let mut entries = serde_json::Map::new();
            for key in value.try_iter().map_err(|error| error.to_string())? {
                let item = value.get_item(&key).map_err(|error| error.to_string())?;
                entries.insert(key.to_string(), to_json(&item)?);
            }
            entries.into()
        }
        _ => value.to_string().into(),
    })
}
