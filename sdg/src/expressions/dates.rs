//! Days of the calendar, as texts `YYYY-MM-DD`.

use jiff::civil::Date;
use jiff::{Span, Unit};
use minijinja::{Environment, Error, ErrorKind};

pub(crate) fn register(environment: &mut Environment<'static>) {
    environment.add_function("date", date);
    environment.add_filter("parse_date", parse_date);
    environment.add_filter("format_date", format_date);
    environment.add_filter("add_days", |day: &str, days: i64| shift(day, Span::new().try_days(days)));
    environment.add_filter("add_months", |day: &str, months: i64| shift(day, Span::new().try_months(months)));
    environment.add_filter("add_years", |day: &str, years: i64| shift(day, Span::new().try_years(years)));
    environment.add_filter("weekday", |day: &str| format_date(day, "%A"));
    environment.add_filter("days_between", days_between);
}

fn refuse(reason: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, reason.into())
}

fn read(day: &str) -> Result<Date, Error> {
    day.parse().map_err(|_| refuse(format!("{day:?} is not a day written YYYY-MM-DD")))
}

fn date(year: i64, month: i64, day: i64) -> Result<String, Error> {
    let build = || Date::new(i16::try_from(year).ok()?, i8::try_from(month).ok()?, i8::try_from(day).ok()?).ok();
    let date = build().ok_or_else(|| refuse(format!("{year}-{month}-{day} is not a day of the calendar")))?;
    Ok(date.to_string())
}

fn parse_date(text: &str, format: &str) -> Result<String, Error> {
    Date::strptime(format, text.trim())
        .map(|date| date.to_string())
        .map_err(|error| refuse(format!("{text:?} is not a day in the format {format:?}: {error}")))
}

fn format_date(day: &str, format: &str) -> Result<String, Error> {
    let day = read(day)?;
    jiff::fmt::strtime::format(format, day).map_err(|error| refuse(format!("the format {format:?}: {error}")))
}

fn shift(day: &str, span: Result<Span, jiff::Error>) -> Result<String, Error> {
    let day = read(day)?;
    span.and_then(|span| day.checked_add(span)).map(|day| day.to_string()).map_err(|error| refuse(error.to_string()))
}

/// Days from the first to the second; negative when the second is earlier.
fn days_between(from: &str, to: &str) -> Result<i64, Error> {
    let span = read(from)?.until((Unit::Day, read(to)?)).map_err(|error| refuse(error.to_string()))?;
    Ok(i64::from(span.get_days()))
}
