//! Regular expressions.

use minijinja::value::Value;
use minijinja::{Environment, Error, ErrorKind};
use regex::Regex;

pub(crate) fn register(environment: &mut Environment<'static>) {
    environment
        .add_filter("regex_matches", |text: &str, pattern: &str| Ok::<_, Error>(compile(pattern)?.is_match(text)));
    environment.add_filter("regex_search", search);
    environment.add_filter("regex_replace", |text: &str, pattern: &str, with: &str| {
        Ok::<_, Error>(compile(pattern)?.replace_all(text, with).into_owned())
    });
}

fn compile(pattern: &str) -> Result<Regex, Error> {
    Regex::new(pattern).map_err(|error| Error::new(ErrorKind::InvalidOperation, error.to_string()))
}

/// The first match, or one group of it; none where nothing matches.
fn search(text: &str, pattern: &str, group: Option<usize>) -> Result<Value, Error> {
    let found = compile(pattern)?
        .captures(text)
        .and_then(|captures| captures.get(group.unwrap_or(0)).map(|m| m.as_str().to_owned()));
    Ok(found.map_or(Value::from(()), Value::from))
}
