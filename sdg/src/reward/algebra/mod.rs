//! Whether two formulas are the same function.
//!
//! Both are evaluated at a few points in a finite field ([`field`]): variables stand for elements drawn from their names, and
//! two different rational functions agree there with a probability below 10^-12. So `(x+1)^2` is `x^2+2x+1`, `\frac{1}{2}` is
//! `0.5`, and nothing is rounded. Roots of numbers are computed in the field, so `\sqrt{8}` is `2\sqrt{2}` and
//! `\frac{1}{\sqrt 2}` is `\frac{\sqrt 2}{2}`. Other functions are known by name and argument: `\sin(2x)` is `\sin(x+x)`, but not
//! `2 \sin x \cos x`. What is said to be equal is equal; some equal formulas are not seen to be.

mod field;
mod parse;
mod rational;

use field::{Element, MODULUS};
use parse::{Formula, parse};
use rational::Rational;

use crate::identity::number;

/// Points at which formulas are compared, and how many of them must lie within both.
const POINTS: u64 = 6;
const ENOUGH: usize = 3;

/// A formula, several of them in order, or an equation; read once.
#[derive(Debug)]
pub(crate) struct Symbolic {
    parts: Vec<Part>,
    names: Vec<String>,
}

#[derive(Debug)]
enum Part {
    Formula(Formula),
    /// The two sides' difference is zero.
    Equation(Formula),
}

impl Symbolic {
    /// Reads `2x + 1`, `x = 5` (the 5 alone), `(1, -2)`, `x + y = 3`. `names` are variables of several letters.
    ///
    /// # Errors
    /// Why it is no formula.
    pub(crate) fn parse(text: &str, names: &[String]) -> Result<Self, String> {
        let text = text.trim().trim_end_matches(['.', ',', ';']).trim();
        let parts = split_list(text).into_iter().map(|part| read_part(part, names)).collect::<Result<_, _>>()?;
        Ok(Self { parts, names: names.to_vec() })
    }

    /// Whether an answer is the same.
    ///
    /// # Errors
    /// What differs, or why the answer is no formula.
    pub(crate) fn equals(&self, answer: &str) -> Result<(), String> {
        let other = Self::parse(answer, &self.names)?;
        if self.parts.len() != other.parts.len() {
            return Err(format!("{} formulas are not {}", other.parts.len(), self.parts.len()));
        }
        let same = self.parts.iter().zip(&other.parts).map(|(one, other)| match (one, other) {
            (Part::Formula(one), Part::Formula(other)) => same(one, other, false),
            (Part::Equation(one), Part::Equation(other)) => same(one, other, true),
            _ => Ok(false),
        });
        let same: Vec<bool> = same.collect::<Result<_, _>>()?;
        if same.iter().all(|same| *same) { Ok(()) } else { Err("the formulas differ".to_owned()) }
    }
}

/// The parts of `(a, b)`; a comma within other brackets separates nothing, one before three digits thousands.
fn split_list(text: &str) -> Vec<&str> {
    let text = text.trim_matches('$').trim();
    let plain = text.strip_prefix("\\left").unwrap_or(text);
    let inside = plain
        .strip_prefix('(')
        .and_then(|inside| inside.strip_suffix(')'))
        .map(|inside| inside.strip_suffix("\\right").unwrap_or(inside));
    let list = inside.filter(|inside| commas(inside).len() > 1).unwrap_or(text);
    commas(list)
}

fn commas(text: &str) -> Vec<&str> {
    let (mut depth, mut start) = (0_i32, 0);
    let mut parts = Vec::new();
    for (index, sign) in text.char_indices() {
        match sign {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 0 && !separates_thousands(text, index) => {
                parts.push(&text[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn separates_thousands(text: &str, comma: usize) -> bool {
    let before = text[..comma].ends_with(|sign: char| sign.is_ascii_digit());
    before && text[comma + 1..].bytes().take_while(u8::is_ascii_digit).count() == 3
}

fn read_part(text: &str, names: &[String]) -> Result<Part, String> {
    let Some((left, right)) = text.split_once('=') else { return Ok(Part::Formula(parse(text, names)?)) };
    if right.contains('=') {
        return Err("it has several equals signs".to_owned());
    }
    let (left, right) = (parse(left, names)?, parse(right, names)?);
    if matches!(left, Formula::Variable(_)) {
        return Ok(Part::Formula(right));
    }
    Ok(Part::Equation(Formula::Sum(left.into(), Formula::Negative(right.into()).into())))
}

/// Whether two formulas agree at every point; for equations, also with the opposite sign.
fn same(one: &Formula, other: &Formula, either_sign: bool) -> Result<bool, String> {
    let mut compared = 0;
    let (mut equal, mut opposite) = (true, either_sign);
    for point in 0..POINTS {
        if let (Some(one), Some(other)) = (evaluate(one, point), evaluate(other, point)) {
            compared += 1;
            equal &= one == other;
            opposite &= one == other.negated();
        }
    }
    if compared < ENOUGH {
        return Err("it divides by zero".to_owned());
    }
    Ok(equal || opposite)
}

/// An element that a name and its arguments always give at a point.
fn drawn(name: &str, arguments: &[Element], point: u64) -> Element {
    let values: Vec<[u8; 8]> = arguments.iter().map(|argument| argument.value().to_le_bytes()).collect();
    let point = point.to_le_bytes();
    let mut parts: Vec<&[u8]> = vec![b"algebra", name.as_bytes(), &point];
    parts.extend(values.iter().map(<[u8; 8]>::as_slice));
    Element::new(number(&parts))
}

/// The value at a point; `None` where it divides by zero.
fn evaluate(formula: &Formula, point: u64) -> Option<Element> {
    Some(match formula {
        Formula::Number(number) => image(*number)?,
        // A constant of its own, the same at every point for what it is worth: nothing is known of it.
        Formula::Variable(name) => drawn(name, &[], point),
        Formula::Sum(one, other) => evaluate(one, point)?.plus(evaluate(other, point)?),
        Formula::Negative(inside) => evaluate(inside, point)?.negated(),
        Formula::Product(one, other) => evaluate(one, point)?.times(evaluate(other, point)?),
        Formula::Quotient(over, under) => evaluate(over, point)?.times(evaluate(under, point)?.inverse()?),
        Formula::Root(inside) => root(inside, evaluate(inside, point)?, point)?,
        Formula::Function(name, inside) => drawn(name, &[evaluate(inside, point)?], point),
        Formula::Power(base, exponent) => power(base, exponent, point)?,
    })
}

fn image(number: Rational) -> Option<Element> {
    let size = |number: i128| (number.unsigned_abs() % u128::from(MODULUS)) as u64;
    let over = Element::new(size(number.over()));
    let over = if number.over() < 0 { over.negated() } else { over };
    Some(over.times(Element::new(size(number.under())).inverse()?))
}

fn power(base: &Formula, exponent: &Formula, point: u64) -> Option<Element> {
    let value = evaluate(base, point)?;
    let whole = |number: i128, value: Element| {
        let size = u64::try_from(number.unsigned_abs()).ok()?;
        let power = value.power(size);
        if number < 0 { power.inverse() } else { Some(power) }
    };
    match constant(exponent) {
        Some(exponent) if exponent.is_whole() => whole(exponent.over(), value),
        Some(exponent) if exponent.under() == 2 => whole(exponent.over(), root(base, value, point)?),
        _ => Some(drawn("power", &[value, evaluate(exponent, point)?], point)),
    }
}

/// The square root: of a number, the product of its primes' roots, so that roots multiply as they should; of anything else a
/// function of its value.
fn root(inside: &Formula, value: Element, point: u64) -> Option<Element> {
    let unknown = || Some(drawn("root", &[value], point));
    let Some(number) = constant(inside) else { return unknown() };
    match (root_of_whole(number.over()), root_of_whole(number.under())) {
        (Some(over), Some(under)) => Some(over.times(under.inverse()?)),
        _ => unknown(),
    }
}

/// `None` for negative numbers, for those too large to be taken apart, and where a prime has no root in the field.
fn root_of_whole(number: i128) -> Option<Element> {
    const LARGEST: i128 = 1_000_000_000_000;
    if !(0..=LARGEST).contains(&number) {
        return None;
    }
    let mut left = number as u64;
    if left == 0 {
        return Some(Element::ZERO);
    }
    let mut result = Element::ONE;
    let mut prime = 2;
    while prime * prime <= left {
        let mut times = 0_u64;
        while left.is_multiple_of(prime) {
            left /= prime;
            times += 1;
        }
        result = result.times(Element::new(prime).power(times / 2));
        if times % 2 == 1 {
            result = result.times(Element::new(prime).root()?);
        }
        prime += 1;
    }
    // What is left is a prime, or one.
    Some(result.times(Element::new(left).root()?))
}

/// The exact value of a formula without variables, roots and functions, where it is of moderate size.
fn constant(formula: &Formula) -> Option<Rational> {
    match formula {
        Formula::Number(number) => Some(*number),
        Formula::Sum(one, other) => constant(one)?.plus(constant(other)?),
        Formula::Negative(inside) => Some(constant(inside)?.negated()),
        Formula::Product(one, other) => constant(one)?.times(constant(other)?),
        Formula::Quotient(over, under) => constant(over)?.times(constant(under)?.inverse()?),
        Formula::Power(base, exponent) => {
            let exponent = constant(exponent)?;
            if exponent.is_whole() { constant(base)?.power(exponent.over()) } else { None }
        }
        Formula::Variable(_) | Formula::Root(_) | Formula::Function(..) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(one: &str, other: &str) -> bool {
        Symbolic::parse(one, &[]).unwrap_or_else(|error| panic!("{one}: {error}")).equals(other).is_ok()
    }

    #[test]
    fn equal_formulas() {
        for (one, other) in [
            ("(x+1)^2", "x^2 + 2x + 1"),
            (r"\frac{1}{2}", "0.5"),
            (r"\frac12", "1/2"),
            (r"1\frac{1}{2}", "3/2"),
            (r"\frac{x^2-1}{x-1}", "x + 1"),
            (r"\sqrt{8}", r"2\sqrt{2}"),
            (r"\frac{1}{\sqrt{2}}", r"\frac{\sqrt 2}{2}"),
            ("sqrt(6)", r"\sqrt2 \cdot \sqrt3"),
            ("√(1/4)", "0.5"),
            ("8^(1/2)", "2^{3/2}"),
            (r"(\sqrt{5}+1)(\sqrt{5}-1)", "4"),
            (r"\sin(2x)", r"\sin(x+x)"),
            (r"\sin^2 x", r"(\sin x)^2"),
            ("x**3", "x·x·x"),
            ("-x^2", "-(x*x)"),
            ("2^10", "1024"),
            ("1,024", "1024"),
            (r"1{,}024.0", "2^{10}"),
            ("50%", "1/2"),
            (r"90^\circ", "90"),
            (r"5\text{ cm}", "5"),
            (r"$x = 5$", "5"),
            ("y = 2x + 1", "1 + 2x"),
            ("x + y = 3", "3 = y + x"),
            ("(1, -2)", r"\left(1, -\frac{4}{2}\right)"),
            ("x_1 + x_{2}", "x_2+x_{1}"),
            (r"2\pi r", "π*r*2"),
            ("a/b/c", "a/(bc)"),
            ("2^{-1}", "0.5"),
            (r"-1\frac{1}{2}", "-1.5"),
            (r"3^2\frac{1}{2}", "4.5"),
            (r"\sqrt[3]{x}", "x^{1/3}"),
            (r"\sqrt23", r"3\sqrt{2}"),
            ("2^3^2", "512"),
            (r"45^{\circ}", "45"),
            ("10^{100}", "100^{50}"),
        ] {
            assert!(same(one, other), "{one} is {other}");
            assert!(same(other, one), "{other} is {one}");
        }
    }

    #[test]
    fn different_formulas() {
        for (one, other) in [
            ("x", "y"),
            ("x^2", "x"),
            (r"\sqrt{x^2}", "x"),
            (r"\sqrt{2}", "1.41421356"),
            (r"\sqrt{2}", r"-\sqrt{2}"),
            (r"\pi", "3.14159"),
            ("(x+1)^2", "x^2+1"),
            ("(1, 2)", "(2, 1)"),
            ("(1, 2)", "1"),
            ("x + y = 3", "x + y = 4"),
            ("1/3", "0.3333333333"),
            ("2^x", "x^2"),
            ("ab", "a+b"),
            (r"\sin x", r"\cos x"),
        ] {
            assert!(!same(one, other), "{one} is not {other}");
        }
    }

    #[test]
    fn what_is_no_formula_is_refused_in_bounded_time() {
        let truth = Symbolic::parse("x", &[]).unwrap();
        for hostile in [
            String::new(),
            "(".repeat(1900),
            "-".repeat(1900),
            "^".repeat(100),
            "x^".repeat(900) + "2",
            "x".repeat(5000),
            r"\frac".repeat(390),
            r"\sqrt".repeat(390),
            "sin".repeat(600),
            format!("{}x", "\\sin ".repeat(300)),
            "9".repeat(40),
            "9^9^9^9^9".to_owned(),
            "(9^999999999)^999999999".to_owned(),
            "1/0".to_owned(),
            "1/(x-x)".to_owned(),
            "seven apples".to_owned(),
            r"\input{file}".to_owned(),
            "x = 1 = 2".to_owned(),
            "_1".to_owned(),
            r"\text{a".to_owned(),
            "x\u{0}".to_owned(),
        ] {
            assert!(truth.equals(&hostile).is_err(), "{hostile}");
        }
    }

    #[test]
    fn names_of_several_letters_are_variables_where_they_are_said() {
        let names = ["distance".to_owned(), "time".to_owned()];
        let truth = Symbolic::parse("distance / time", &names).unwrap();
        assert!(truth.equals("(2 distance)/(2*time)").is_ok());
        assert!(truth.equals("time / distance").is_err());
        assert!(Symbolic::parse("distance", &[]).is_err());
    }

    /// A formula drawn by seed, written plainly and in LaTeX, with its factors turned round in one.
    fn random(seed: u64, depth: u64) -> (String, String) {
        let draw = |what: &str| number(&[b"formula", what.as_bytes(), &seed.to_le_bytes(), &depth.to_le_bytes()]);
        let part = |side: u64| random(seed.wrapping_mul(31).wrapping_add(side), depth - 1);
        if depth == 0 {
            let leaf = match draw("leaf") % 4 {
                0 => ["x", "y", "z"][(draw("name") % 3) as usize].to_owned(),
                1 => format!("{}.5", draw("half") % 9),
                _ => (1 + draw("whole") % 30).to_string(),
            };
            return (leaf.clone(), leaf);
        }
        let ((one, one_latex), (other, other_latex)) = (part(1), part(2));
        match draw("kind") % 5 {
            0 => (format!("({one} + {other})"), format!("({other_latex}+{one_latex})")),
            1 => (format!("({one} - {other})"), format!(r"\left(-{{{other_latex}}} + {one_latex}\right)")),
            2 => (format!("{one}*({other})"), format!(r"{other_latex} \cdot {{{one_latex}}}")),
            3 => (format!("({one})/(({other})^2+7)"), format!(r"\frac{{{one_latex}}}{{7+{{{other_latex}}}^{{2}}}}")),
            _ => (format!("({one})^3"), format!(r"{{{one_latex}}}^2 \times ({one_latex})")),
        }
    }

    #[test]
    fn a_formula_is_the_same_in_both_writings_and_no_other() {
        for seed in 0..300 {
            let (plain, latex) = random(seed, seed % 4);
            let truth = Symbolic::parse(&plain, &[]).unwrap_or_else(|error| panic!("{plain}: {error}"));
            assert_eq!(truth.equals(&latex), Ok(()), "{plain} is {latex}");
            assert_eq!(truth.equals(&format!("({latex}) - 0.001 + 1/1000")), Ok(()));
            assert!(truth.equals(&format!("{latex} + 0.001")).is_err(), "{latex}");
        }
    }
}
