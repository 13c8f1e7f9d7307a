//! The methods of Python's strings, lists and dictionaries that templates written for Python call.

use minijinja::value::{ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};

/// Answers a call of a method that minijinja does not know itself, as Python would: for
/// [`minijinja::Environment::set_unknown_method_callback`].
///
/// # Errors
/// A method that is not known here, arguments that it does not take, a part that is not there (`index`).
pub fn call(_: &mut State, value: &Value, method: &str, arguments: &[Value]) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::String => string_method(value.as_str().unwrap_or_default(), method, arguments),
        ValueKind::Map => map_method(value, method, arguments),
        ValueKind::Seq => list_method(value, method, arguments),
        _ => Err(unknown(value.kind(), method)),
    }
}

fn unknown(kind: ValueKind, method: &str) -> Error {
    Error::new(ErrorKind::UnknownMethod, format!("a {kind} has no method `{method}` here"))
}

fn string_method(text: &str, method: &str, arguments: &[Value]) -> Result<Value, Error> {
    Ok(match method {
        "strip" => Value::from(strip(text, arguments, true, true)?),
        "lstrip" => Value::from(strip(text, arguments, true, false)?),
        "rstrip" => Value::from(strip(text, arguments, false, true)?),
        "startswith" => Value::from(any_of(arguments, |part| text.starts_with(part))?),
        "endswith" => Value::from(any_of(arguments, |part| text.ends_with(part))?),
        "split" => split(text, arguments)?,
        "rsplit" => {
            let (separator, limit): (&str, Option<i64>) = from_args(arguments)?;
            let mut parts: Vec<&str> = match usize::try_from(limit.unwrap_or(-1)) {
                Ok(limit) => text.rsplitn(limit + 1, separator).collect(),
                Err(_) => text.rsplit(separator).collect(),
            };
            parts.reverse();
            parts.into_iter().collect()
        }
        "splitlines" => {
            let () = from_args(arguments)?;
            text.lines().collect()
        }
        "replace" => {
            let (from, to, count): (&str, &str, Option<i64>) = from_args(arguments)?;
            Value::from(match usize::try_from(count.unwrap_or(-1)) {
                Ok(count) => text.replacen(from, to, count),
                Err(_) => text.replace(from, to),
            })
        }
        "upper" => Value::from(text.to_uppercase()),
        "lower" => Value::from(text.to_lowercase()),
        "title" => Value::from(title(text)),
        "capitalize" => {
            let mut characters = text.chars();
            let first = characters.next().map(char::to_uppercase);
            Value::from(first.into_iter().flatten().chain(characters.flat_map(char::to_lowercase)).collect::<String>())
        }
        "join" => {
            let (parts,): (Value,) = from_args(arguments)?;
            let parts: Vec<String> = parts.try_iter()?.map(|part| part.to_string()).collect();
            Value::from(parts.join(text))
        }
        "find" => {
            let (part,): (&str,) = from_args(arguments)?;
            Value::from(text.find(part).map_or(-1, |at| text[..at].chars().count() as i64))
        }
        "index" => {
            let (part,): (&str,) = from_args(arguments)?;
            let at = text.find(part).ok_or_else(|| absent(&format!("{part:?} in {text:?}")))?;
            Value::from(text[..at].chars().count())
        }
        "count" => {
            let (part,): (&str,) = from_args(arguments)?;
            Value::from(text.matches(part).count())
        }
        "removeprefix" => {
            let (part,): (&str,) = from_args(arguments)?;
            Value::from(text.strip_prefix(part).unwrap_or(text))
        }
        "removesuffix" => {
            let (part,): (&str,) = from_args(arguments)?;
            Value::from(text.strip_suffix(part).unwrap_or(text))
        }
        "isdigit" => Value::from(!text.is_empty() && text.chars().all(|c| c.is_ascii_digit())),
        _ => return Err(unknown(ValueKind::String, method)),
    })
}

fn list_method(list: &Value, method: &str, arguments: &[Value]) -> Result<Value, Error> {
    let (wanted,): (Value,) = from_args(arguments)?;
    Ok(match method {
        "index" => {
            let place = list.try_iter()?.position(|value| value == wanted);
            Value::from(place.ok_or_else(|| absent(&format!("{wanted} in {list}")))?)
        }
        "count" => Value::from(list.try_iter()?.filter(|value| *value == wanted).count()),
        _ => return Err(unknown(ValueKind::Seq, method)),
    })
}

fn absent(what: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("there is no {what}"))
}

fn map_method(map: &Value, method: &str, arguments: &[Value]) -> Result<Value, Error> {
    Ok(match method {
        "items" => {
            let () = from_args(arguments)?;
            let items: Result<Vec<Value>, Error> =
                map.try_iter()?.map(|key| Ok(Value::from(vec![key.clone(), map.get_item(&key)?]))).collect();
            Value::from(items?)
        }
        "keys" => {
            let () = from_args(arguments)?;
            map.try_iter()?.collect()
        }
        "values" => {
            let () = from_args(arguments)?;
            let values: Result<Vec<Value>, Error> = map.try_iter()?.map(|key| map.get_item(&key)).collect();
            Value::from(values?)
        }
        "get" => {
            let (key, default): (Value, Option<Value>) = from_args(arguments)?;
            let found = map.get_item(&key)?;
            if found.is_undefined() { default.unwrap_or_else(|| Value::from(())) } else { found }
        }
        _ => return Err(unknown(ValueKind::Map, method)),
    })
}

fn strip<'t>(text: &'t str, arguments: &[Value], left: bool, right: bool) -> Result<&'t str, Error> {
    let (characters,): (Option<&str>,) = from_args(arguments)?;
    let stripped = |c: char| characters.map_or_else(|| c.is_whitespace(), |set| set.contains(c));
    let text = if left { text.trim_start_matches(stripped) } else { text };
    Ok(if right { text.trim_end_matches(stripped) } else { text })
}

/// One text or a tuple of them.
fn any_of(arguments: &[Value], holds: impl Fn(&str) -> bool) -> Result<bool, Error> {
    let (wanted,): (Value,) = from_args(arguments)?;
    if let Some(part) = wanted.as_str() {
        return Ok(holds(part));
    }
    Ok(wanted.try_iter()?.any(|part| part.as_str().is_some_and(&holds)))
}

/// Without a separator at runs of white space, as in Python; with a limit the rest stays together.
fn split(text: &str, arguments: &[Value]) -> Result<Value, Error> {
    let (separator, limit): (Option<&str>, Option<i64>) = from_args(arguments)?;
    let limit = usize::try_from(limit.unwrap_or(-1)).ok();
    let Some(separator) = separator else {
        let mut parts = Vec::new();
        let mut rest = text.trim_start();
        while !rest.is_empty() {
            let end = match limit {
                Some(limit) if parts.len() == limit => rest.len(),
                _ => rest.find(char::is_whitespace).unwrap_or(rest.len()),
            };
            parts.push(&rest[..end]);
            rest = rest[end..].trim_start();
        }
        return Ok(parts.into_iter().collect());
    };
    if separator.is_empty() {
        return Err(Error::new(ErrorKind::InvalidOperation, "split needs a separator that is not empty"));
    }
    Ok(match limit {
        Some(limit) => text.splitn(limit + 1, separator).collect(),
        None => text.split(separator).collect(),
    })
}

/// Each run of letters starts with a capital.
fn title(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut inside = false;
    for character in text.chars() {
        if inside {
            result.extend(character.to_lowercase());
        } else {
            result.extend(character.to_uppercase());
        }
        inside = character.is_alphabetic();
    }
    result
}
