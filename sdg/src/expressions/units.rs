//! Conversion between units of one quantity.

use minijinja::value::Value;
use minijinja::{Environment, Error, ErrorKind};

use super::numbers::tidy;

pub(crate) fn register(environment: &mut Environment<'static>) {
    environment.add_filter("convert", convert);
    environment.add_function("convert", convert);
}

/// A unit: the value in the quantity's base unit is `value * factor + offset`.
struct Unit {
    names: &'static [&'static str],
    quantity: &'static str,
    factor: f64,
    offset: f64,
}

const fn unit(quantity: &'static str, names: &'static [&'static str], factor: f64) -> Unit {
    Unit { names, quantity, factor, offset: 0.0 }
}

/// Factors are exact by definition (international yard and pound of 1959, US gallon) or SI prefixes.
const UNITS: &[Unit] = &[
    unit("length", &["m", "meter", "meters", "metre", "metres"], 1.0),
    unit("length", &["km", "kilometer", "kilometers", "kilometre", "kilometres"], 1000.0),
    unit("length", &["cm", "centimeter", "centimeters", "centimetre", "centimetres"], 0.01),
    unit("length", &["mm", "millimeter", "millimeters", "millimetre", "millimetres"], 0.001),
    unit("length", &["mi", "mile", "miles"], 1609.344),
    unit("length", &["yd", "yard", "yards"], 0.9144),
    unit("length", &["ft", "foot", "feet"], 0.3048),
    unit("length", &["in", "inch", "inches"], 0.0254),
    unit("mass", &["kg", "kilogram", "kilograms"], 1.0),
    unit("mass", &["g", "gram", "grams"], 0.001),
    unit("mass", &["mg", "milligram", "milligrams"], 1e-6),
    unit("mass", &["t", "tonne", "tonnes"], 1000.0),
    unit("mass", &["lb", "lbs", "pound", "pounds"], 0.453_592_37),
    unit("mass", &["oz", "ounce", "ounces"], 0.028_349_523_125),
    unit("time", &["s", "second", "seconds"], 1.0),
    unit("time", &["ms", "millisecond", "milliseconds"], 0.001),
    unit("time", &["min", "minute", "minutes"], 60.0),
    unit("time", &["h", "hour", "hours"], 3600.0),
    unit("time", &["d", "day", "days"], 86_400.0),
    unit("time", &["week", "weeks"], 604_800.0),
    unit("volume", &["l", "L", "liter", "liters", "litre", "litres"], 1.0),
    unit("volume", &["ml", "mL", "milliliter", "milliliters", "millilitre", "millilitres"], 0.001),
    unit("volume", &["m3", "cubic meter", "cubic meters"], 1000.0),
    unit("volume", &["gal", "gallon", "gallons"], 3.785_411_784),
    unit("volume", &["qt", "quart", "quarts"], 0.946_352_946),
    unit("volume", &["pt", "pint", "pints"], 0.473_176_473),
    unit("volume", &["cup", "cups"], 0.236_588_236_5),
    Unit { names: &["K", "kelvin"], quantity: "temperature", factor: 1.0, offset: 0.0 },
    Unit { names: &["C", "°C", "celsius", "Celsius"], quantity: "temperature", factor: 1.0, offset: 273.15 },
    Unit {
        names: &["F", "°F", "fahrenheit", "Fahrenheit"],
        quantity: "temperature",
        factor: 5.0 / 9.0,
        offset: 273.15 - 32.0 * 5.0 / 9.0,
    },
];

fn find(name: &str) -> Result<&'static Unit, Error> {
    UNITS.iter().find(|unit| unit.names.contains(&name)).ok_or_else(|| {
        let known: Vec<&str> = UNITS.iter().map(|unit| unit.names[0]).collect();
        Error::new(ErrorKind::InvalidOperation, format!("{name:?} is not a unit; known: {}", known.join(", ")))
    })
}

/// A value in another unit; `None` where one of them is not known.
///
/// # Errors
/// Units of different quantities.
pub(crate) fn converted(value: f64, from: &str, to: &str) -> Option<Result<f64, String>> {
    let known = |name: &str| UNITS.iter().find(|unit| unit.names.contains(&name));
    Some(between(value, (from, known(from)?), (to, known(to)?)))
}

fn convert(value: f64, from: &str, to: &str) -> Result<Value, Error> {
    let refuse = |reason| Error::new(ErrorKind::InvalidOperation, reason);
    between(value, (from, find(from)?), (to, find(to)?)).map(tidy).map_err(refuse)
}

fn between(value: f64, (from, source): (&str, &Unit), (to, target): (&str, &Unit)) -> Result<f64, String> {
    if source.quantity != target.quantity {
        return Err(format!("{from} is a unit of {}, {to} of {}", source.quantity, target.quantity));
    }
    let result = (value * source.factor + (source.offset - target.offset)) / target.factor;
    // Fifteen digits hide the rounding of the two steps: 3 ft is 36 in, not 36.00000000000001.
    let rounded: f64 = format!("{result:.14e}").parse().unwrap_or(result);
    Ok(if rounded.abs() < 1e-12 * value.abs().max(1.0) { 0.0 } else { rounded })
}
