//! The methods of Python's strings and mappings that templates are used to.

use minijinja::value::{Value, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State};

pub(crate) fn call(_state: &mut State, value: &Value, method: &str, arguments: &[Value]) -> Result<Value, Error> {
    match (value.as_str(), value.kind()) {
        (Some(text), _) => text_method(text, method, arguments),
        (None, ValueKind::Map) => mapping_method(value, method, arguments),
        _ => Err(Error::new(ErrorKind::UnknownMethod, format!("no method `{method}` here"))),
    }
}

fn text_method(text: &str, method: &str, arguments: &[Value]) -> Result<Value, Error> {
    let none = || from_args::<()>(arguments);
    Ok(match method {
        "upper" => none().map(|()| text.to_uppercase().into())?,
        "lower" => none().map(|()| text.to_lowercase().into())?,
        "capitalize" => none().map(|()| capitalize(text).into())?,
        "title" => none().map(|()| title(text).into())?,
        "isdigit" => none().map(|()| (!text.is_empty() && text.chars().all(char::is_numeric)).into())?,
        "isalpha" => none().map(|()| (!text.is_empty() && text.chars().all(char::is_alphabetic)).into())?,
        "strip" | "lstrip" | "rstrip" => {
            let (characters,): (Option<&str>,) = from_args(arguments)?;
            let strip = |c: char| characters.map_or(c.is_whitespace(), |set| set.contains(c));
            let start = if method == "rstrip" { text } else { text.trim_start_matches(strip) };
            if method == "lstrip" { start.into() } else { start.trim_end_matches(strip).into() }
        }
        "startswith" => from_args(arguments).map(|(prefix,): (&str,)| text.starts_with(prefix).into())?,
        "endswith" => from_args(arguments).map(|(suffix,): (&str,)| text.ends_with(suffix).into())?,
        "replace" => from_args(arguments).map(|(from, to): (&str, &str)| text.replace(from, to).into())?,
        "count" => from_args(arguments).map(|(part,): (&str,)| (text.matches(part).count() as i64).into())?,
        "find" => {
            let (part,): (&str,) = from_args(arguments)?;
            text.find(part).map_or(-1, |index| text[..index].chars().count() as i64).into()
        }
        "removeprefix" => {
            from_args(arguments).map(|(prefix,): (&str,)| text.strip_prefix(prefix).unwrap_or(text).into())?
        }
        "removesuffix" => {
            from_args(arguments).map(|(suffix,): (&str,)| text.strip_suffix(suffix).unwrap_or(text).into())?
        }
        "split" => {
            let (separator,): (Option<&str>,) = from_args(arguments)?;
            match separator {
                Some(separator) => text.split(separator).map(Value::from).collect(),
                None => text.split_whitespace().map(Value::from).collect(),
            }
        }
        "splitlines" => none().map(|()| text.lines().map(Value::from).collect())?,
        "join" => {
            let (items,): (Value,) = from_args(arguments)?;
            let items: Vec<String> = items.try_iter()?.map(|item| item.to_string()).collect();
            items.join(text).into()
        }
        "zfill" => {
            let (width,): (usize,) = from_args(arguments)?;
            let width = width.min(1000);
            match text.strip_prefix('-') {
                Some(digits) => format!("-{digits:0>width$}", width = width.saturating_sub(1)).into(),
                None => format!("{text:0>width$}").into(),
            }
        }
        _ => return Err(Error::new(ErrorKind::UnknownMethod, format!("texts have no method `{method}`"))),
    })
}

fn mapping_method(value: &Value, method: &str, arguments: &[Value]) -> Result<Value, Error> {
    let keys = || value.try_iter();
    Ok(match method {
        "keys" => keys()?.collect(),
        "values" => keys()?.map(|key| value.get_item(&key)).collect::<Result<Vec<_>, _>>()?.into(),
        "items" => keys()?
            .map(|key| value.get_item(&key).map(|item| Value::from(vec![key, item])))
            .collect::<Result<Vec<_>, _>>()?
            .into(),
        "get" => {
            let (key, default): (&Value, Option<Value>) = from_args(arguments)?;
            let found = value.get_item(key)?;
            if found.is_undefined() { default.unwrap_or_else(|| Value::from(())) } else { found }
        }
        _ => return Err(Error::new(ErrorKind::UnknownMethod, format!("mappings have no method `{method}`"))),
    })
}

fn capitalize(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| {
        first.to_uppercase().collect::<String>() + &characters.as_str().to_lowercase()
    })
}

fn title(text: &str) -> String {
    text.split_inclusive(|c: char| !c.is_alphanumeric()).map(capitalize).collect()
}
