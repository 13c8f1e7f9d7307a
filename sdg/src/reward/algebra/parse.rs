//! Formulas as people, models and LaTeX write them.

use super::rational::Rational;

/// Longest formula, in characters.
const LONGEST: usize = 2000;
/// Deepest nesting.
const DEEPEST: usize = 40;

/// A formula.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Formula {
    Number(Rational),
    Variable(String),
    Sum(Box<Formula>, Box<Formula>),
    Negative(Box<Formula>),
    Product(Box<Formula>, Box<Formula>),
    Quotient(Box<Formula>, Box<Formula>),
    Power(Box<Formula>, Box<Formula>),
    Root(Box<Formula>),
    /// `sin`, `log`, ...: known by its name alone.
    Function(&'static str, Box<Formula>),
}

/// Functions that are told apart from products of letters. Others in LaTeX are refused.
const FUNCTIONS: [&str; 14] =
    ["arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "sin", "cos", "tan", "cot", "log", "exp", "abs", "ln"];

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Number(Rational),
    Name(String),
    Function(&'static str),
    Fraction,
    /// The square root, the cube root, ...
    Root(i64),
    Sign(char),
}

/// Reads a formula. `names` are variables of several letters; other letters are variables one by one, side by side they are
/// multiplied.
///
/// # Errors
/// Why it is none.
pub(super) fn parse(text: &str, names: &[String]) -> Result<Formula, String> {
    if text.chars().count() > LONGEST {
        return Err(format!("it is longer than {LONGEST} characters"));
    }
    let tokens = tokens(text, names)?;
    let mut parser = Parser { tokens: &tokens, next: 0, depth: 0 };
    let formula = parser.sum()?;
    match parser.peek() {
        None => Ok(formula),
        Some(token) => Err(format!("{token:?} stands where nothing more is expected")),
    }
}

fn tokens(text: &str, names: &[String]) -> Result<Vec<Token>, String> {
    let text = text.replace(r"^{\circ}", "");
    let mut found = Vec::new();
    let mut rest = text.as_str();
    // `\frac12` is a half and `\sqrt23` three times a root: so many arguments may still be single digits.
    let mut single = 0;
    while let Some(sign) = rest.chars().next() {
        let after = &rest[sign.len_utf8()..];
        if sign.is_ascii_digit() && single > 0 {
            single -= 1;
            found.push(Token::Number(Rational::parse(&rest[..1]).ok_or("a digit is none")?));
            rest = after;
            continue;
        }
        if !sign.is_whitespace() {
            single = 0;
        }
        rest = if sign.is_whitespace() || matches!(sign, '$' | '°') {
            after
        } else if sign.is_ascii_digit() || (sign == '.' && after.starts_with(|next: char| next.is_ascii_digit())) {
            let length = number_length(rest);
            found.push(Token::Number(Rational::parse(&rest[..length]).ok_or("a number has too many digits")?));
            &rest[length..]
        } else if sign == '\\' {
            let rest = command(after, &mut found)?;
            single = match found.last() {
                Some(Token::Fraction) => 2,
                Some(Token::Root(_)) => 1,
                _ => 0,
            };
            rest
        } else if sign.is_alphabetic() {
            let length = rest.find(|next: char| !next.is_alphabetic()).unwrap_or(rest.len());
            word(&rest[..length], names, &mut found)?;
            let after = &rest[length..];
            subscript(after, &mut found)?
        } else {
            let sign = match sign {
                '−' | '–' => '-',
                '×' | '·' | '⋅' => '*',
                '÷' => '/',
                '[' => '(',
                ']' => ')',
                other => other,
            };
            match sign {
                '√' => found.push(Token::Root(2)),
                '²' => found.extend([Token::Sign('^'), Token::Number(Rational::whole(2))]),
                '³' => found.extend([Token::Sign('^'), Token::Number(Rational::whole(3))]),
                '*' if after.starts_with('*') => {
                    found.push(Token::Sign('^'));
                    rest = &after[1..];
                    continue;
                }
                '+' | '-' | '*' | '/' | '^' | '(' | ')' | '{' | '}' => found.push(Token::Sign(sign)),
                '%' => found.extend([Token::Sign('/'), Token::Number(Rational::whole(100))]),
                other => return Err(format!("{other:?} stands in no formula")),
            }
            after
        };
    }
    Ok(found)
}

/// Digits with one decimal point; a comma before three digits separates thousands (`1{,}000` in LaTeX).
fn number_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let (mut end, mut point) = (0, false);
    while end < bytes.len() {
        let digits = |from: usize| bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        match bytes[end] {
            b'0'..=b'9' => end += 1,
            b'.' if !point && digits(end + 1) > 0 => {
                point = true;
                end += 1;
            }
            b',' if !point && end > 0 && digits(end + 1) == 3 => end += 4,
            b'{' if !point && text[end..].starts_with("{,}") && digits(end + 3) == 3 => end += 6,
            _ => break,
        }
    }
    end
}

/// A LaTeX command behind its backslash.
fn command<'a>(text: &'a str, found: &mut Vec<Token>) -> Result<&'a str, String> {
    let length = text.find(|next: char| !next.is_ascii_alphabetic()).unwrap_or(text.len());
    if length == 0 {
        let Some(sign) = text.chars().next() else { return Err("it ends with a backslash".to_owned()) };
        match sign {
            '{' | '}' => found.push(Token::Sign(sign)),
            '%' => found.extend([Token::Sign('/'), Token::Number(Rational::whole(100))]),
            ',' | ';' | ':' | '!' | ' ' | '(' | ')' | '[' | ']' | '$' => {}
            other => return Err(format!("\\{other} is no part of a formula")),
        }
        return Ok(&text[sign.len_utf8()..]);
    }
    let (name, rest) = text.split_at(length);
    match name {
        "left" | "right" | "quad" | "qquad" | "displaystyle" | "big" | "Big" | "circ" | "degree" => {
            // `^\circ` is no power.
            if matches!(name, "circ" | "degree") && found.last() == Some(&Token::Sign('^')) {
                found.pop();
            }
            return Ok(rest);
        }
        "frac" | "dfrac" | "tfrac" | "cfrac" => found.push(Token::Fraction),
        "sqrt" => {
            let Some(inside) = rest.trim_start().strip_prefix('[') else {
                found.push(Token::Root(2));
                return Ok(rest);
            };
            let (order, rest) = inside.split_once(']').ok_or("an order of a root without its end")?;
            let order = order.trim().parse().ok().filter(|order| (2..=1000).contains(order));
            found.push(Token::Root(order.ok_or("the order of a root is a number from 2 to 1000")?));
            return Ok(rest);
        }
        "cdot" | "times" => found.push(Token::Sign('*')),
        "div" => found.push(Token::Sign('/')),
        "text" | "mathrm" | "textbf" | "mbox" => {
            // Words beside a formula, mostly its unit.
            let inside = rest.trim_start().strip_prefix('{').ok_or("\\text without braces")?;
            return inside.split_once('}').map(|(_, after)| after).ok_or_else(|| "\\text without its end".to_owned());
        }
        name => match FUNCTIONS.into_iter().find(|function| *function == name) {
            Some(function) => found.push(Token::Function(function)),
            None if GREEK.contains(&name) => found.push(Token::Name(name.to_owned())),
            None => return Err(format!("\\{name} is not known")),
        },
    }
    Ok(rest)
}

const GREEK: [&str; 20] = [
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "kappa", "lambda", "mu", "nu", "xi", "pi",
    "rho", "sigma", "tau", "phi", "psi", "omega",
];

/// A run of letters: a name, a function, or variables side by side.
fn word(word: &str, names: &[String], found: &mut Vec<Token>) -> Result<(), String> {
    /// Longest run of letters that is read as a product: `abcd`. Longer ones are words of a sentence.
    const LONGEST_PRODUCT: usize = 4;
    if names.iter().any(|name| name == word) {
        found.push(Token::Name(word.to_owned()));
    } else if word == "sqrt" {
        found.push(Token::Root(2));
    } else if let Some(function) = FUNCTIONS.into_iter().find(|function| *function == word) {
        found.push(Token::Function(function));
    } else if GREEK.contains(&word) {
        found.push(Token::Name(word.to_owned()));
    } else if word.chars().count() <= LONGEST_PRODUCT {
        found.extend(word.chars().map(|letter| match letter {
            'π' => Token::Name("pi".to_owned()),
            letter => Token::Name(letter.to_string()),
        }));
    } else {
        return Err(format!("{word:?} is a word, not a formula"));
    }
    Ok(())
}

/// `_1` and `_{12}` belong to the variable before.
fn subscript<'a>(text: &'a str, found: &mut [Token]) -> Result<&'a str, String> {
    let Some(text) = text.strip_prefix('_') else { return Ok(text) };
    let (index, rest) = match text.strip_prefix('{') {
        Some(inside) => inside.split_once('}').ok_or("an index without its end")?,
        None => text.split_at(text.chars().next().map_or(0, char::len_utf8)),
    };
    match found.last_mut() {
        Some(Token::Name(name)) => name.push_str(&format!("_{index}")),
        _ => return Err("an index stands behind no variable".to_owned()),
    }
    Ok(rest)
}

struct Parser<'a> {
    tokens: &'a [Token],
    next: usize,
    depth: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next)
    }

    fn takes(&mut self, sign: char) -> bool {
        let found = self.peek() == Some(&Token::Sign(sign));
        self.next += usize::from(found);
        found
    }

    fn expect(&mut self, sign: char) -> Result<(), String> {
        if self.takes(sign) { Ok(()) } else { Err(format!("a `{sign}` is missing")) }
    }

    fn sum(&mut self) -> Result<Formula, String> {
        self.deeper()?;
        let mut sum = self.product()?;
        loop {
            if self.takes('+') {
                sum = Formula::Sum(sum.into(), self.product()?.into());
            } else if self.takes('-') {
                sum = Formula::Sum(sum.into(), Formula::Negative(self.product()?.into()).into());
            } else {
                self.depth -= 1;
                return Ok(sum);
            }
        }
    }

    fn product(&mut self) -> Result<Formula, String> {
        let mut product = self.signed()?;
        loop {
            if self.takes('*') {
                product = Formula::Product(product.into(), self.signed()?.into());
            } else if self.takes('/') {
                product = Formula::Quotient(product.into(), self.signed()?.into());
            } else if self.begins_factor() {
                product = Formula::Product(product.into(), self.power()?.into());
            } else {
                return Ok(product);
            }
        }
    }

    /// Whether the next token begins a factor without a sign of multiplication before it.
    fn begins_factor(&self) -> bool {
        match self.peek() {
            None => false,
            Some(Token::Sign(sign)) => matches!(sign, '(' | '{'),
            Some(_) => true,
        }
    }

    fn signed(&mut self) -> Result<Formula, String> {
        let mut negative = false;
        while let Some(Token::Sign(sign @ ('+' | '-'))) = self.peek() {
            negative ^= *sign == '-';
            self.next += 1;
        }
        let power = self.power()?;
        Ok(if negative { Formula::Negative(power.into()) } else { power })
    }

    fn power(&mut self) -> Result<Formula, String> {
        let base = self.atom()?;
        if self.takes('^') {
            return Ok(Formula::Power(base.into(), self.exponent()?.into()));
        }
        match base {
            // `1\frac{1}{2}` is one and a half.
            Formula::Number(whole) if whole.is_whole() && self.peek() == Some(&Token::Fraction) => {
                let is_plain = |part: &Formula| matches!(part, Formula::Number(_));
                match self.atom()? {
                    Formula::Quotient(over, under) if is_plain(&over) && is_plain(&under) => {
                        Ok(Formula::Sum(base.into(), Formula::Quotient(over, under).into()))
                    }
                    factor => Ok(Formula::Product(base.into(), factor.into())),
                }
            }
            base => Ok(base),
        }
    }

    /// Powers of powers stand from right to left: `2^3^2` is 2^9.
    fn exponent(&mut self) -> Result<Formula, String> {
        self.deeper()?;
        let mut negative = false;
        while let Some(Token::Sign(sign @ ('+' | '-'))) = self.peek() {
            negative ^= *sign == '-';
            self.next += 1;
        }
        let base = self.atom()?;
        let power = if self.takes('^') { Formula::Power(base.into(), self.exponent()?.into()) } else { base };
        self.depth -= 1;
        Ok(if negative { Formula::Negative(power.into()) } else { power })
    }

    /// Every way down counts here, so that the depth is bounded.
    fn deeper(&mut self) -> Result<(), String> {
        self.depth += 1;
        if self.depth > DEEPEST { Err(format!("it is nested deeper than {DEEPEST} levels")) } else { Ok(()) }
    }

    fn group(&mut self, open: char) -> Result<Formula, String> {
        let inside = self.sum()?;
        self.expect(if open == '(' { ')' } else { '}' })?;
        Ok(inside)
    }

    fn atom(&mut self) -> Result<Formula, String> {
        self.deeper()?;
        let Some(token) = self.peek().cloned() else {
            return Err("it ends where a number or a name is due".to_owned());
        };
        self.next += 1;
        let formula = match token {
            Token::Number(number) => Formula::Number(number),
            Token::Name(name) => Formula::Variable(name),
            Token::Fraction => {
                let over = self.atom()?;
                Formula::Quotient(over.into(), self.atom()?.into())
            }
            Token::Root(2) => Formula::Root(self.atom()?.into()),
            Token::Root(order) => {
                let exponent = Rational::new(1, order.into()).ok_or("there is no root of order 0")?;
                Formula::Power(self.atom()?.into(), Formula::Number(exponent).into())
            }
            Token::Function(name) => {
                let power = if self.takes('^') { Some(self.atom()?) } else { None };
                let argument = self.power()?;
                let function = Formula::Function(name, argument.into());
                match power {
                    Some(power) => Formula::Power(function.into(), power.into()),
                    None => function,
                }
            }
            Token::Sign(sign @ ('(' | '{')) => self.group(sign)?,
            Token::Sign(sign) => return Err(format!("`{sign}` stands where a number or a name is due")),
        };
        self.depth -= 1;
        Ok(formula)
    }
}
