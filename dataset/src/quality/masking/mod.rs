//! What names or opens something of a person, replaced by what it is: `[EMAIL]`, `[PHONE]` and so on.
//!
//! Only shapes are known, and where a shape has a check (Luhn, mod 97, numbers that are never given out) it must hold. Names and
//! addresses of streets have none: they stay.

mod account;
mod network;
mod phone;
mod secret;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use regex::Regex;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::row::Row;

/// What is masked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Personal {
    /// Keys and tokens of known services, private keys, JSON web tokens.
    ApiKey,
    /// User and password in a URL.
    Credentials,
    /// Addresses of e-mail.
    Email,
    /// International bank account numbers (ISO 13616).
    Iban,
    /// Payment cards (ISO/IEC 7812).
    CreditCard,
    /// Social security numbers of the United States.
    SocialSecurityNumber,
    /// Addresses of hosts, IPv4 and IPv6.
    IpAddress,
    /// Telephone numbers.
    Phone,
}

impl Personal {
    /// Every kind, in the order in which they are looked for: what may hold another one comes before it.
    pub const ALL: [Self; 8] = [
        Self::ApiKey,
        Self::Credentials,
        Self::Email,
        Self::Iban,
        Self::CreditCard,
        Self::SocialSecurityNumber,
        Self::IpAddress,
        Self::Phone,
    ];

    /// What stands in its place.
    pub fn placeholder(self) -> &'static str {
        match self {
            Self::ApiKey => "[API_KEY]",
            Self::Credentials => "[CREDENTIALS]",
            Self::Email => "[EMAIL]",
            Self::Iban => "[IBAN]",
            Self::CreditCard => "[CREDIT_CARD]",
            Self::SocialSecurityNumber => "[SSN]",
            Self::IpAddress => "[IP_ADDRESS]",
            Self::Phone => "[PHONE]",
        }
    }

    /// The word used in files and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::ApiKey => "api_key",
            Self::Credentials => "credentials",
            Self::Email => "email",
            Self::Iban => "iban",
            Self::CreditCard => "credit_card",
            Self::SocialSecurityNumber => "social_security_number",
            Self::IpAddress => "ip_address",
            Self::Phone => "phone",
        }
    }

    /// Where it stands in a text: ranges in order that do not touch.
    fn find(self, text: &str) -> Vec<Range<usize>> {
        match self {
            Self::ApiKey => secret::keys(text),
            Self::Credentials => secret::credentials(text),
            Self::Email => network::emails(text),
            Self::Iban => account::ibans(text),
            Self::CreditCard => account::cards(text),
            Self::SocialSecurityNumber => account::social_security_numbers(text),
            Self::IpAddress => network::addresses(text),
            Self::Phone => phone::numbers(text),
        }
    }
}

/// How often what was masked.
pub type Masked = BTreeMap<Personal, u64>;

/// A text with everything personal replaced; `masked` counts it. Masking a masked text changes nothing.
pub fn mask<'a>(text: &'a str, masked: &mut Masked) -> Cow<'a, str> {
    let mut text = Cow::Borrowed(text);
    loop {
        let mut changed = false;
        for kind in Personal::ALL {
            let found = kind.find(&text);
            if found.is_empty() {
                continue;
            }
            *masked.entry(kind).or_default() += found.len() as u64;
            text = Cow::Owned(replaced(&text, &found, kind.placeholder()));
            changed = true;
        }
        // A placeholder is a border where there was none: what it uncovers is found in another round. Each round leaves less.
        if !changed {
            return text;
        }
    }
}

fn replaced(text: &str, ranges: &[Range<usize>], placeholder: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut end = 0;
    for range in ranges {
        result.push_str(&text[end..range.start]);
        result.push_str(placeholder);
        end = range.end;
    }
    result.push_str(&text[end..]);
    result
}

/// Masks what a row says: its turns, the teacher's words and the texts that it is about.
pub fn mask_row(row: &mut Row) -> Masked {
    let mut masked = Masked::new();
    // A turn is what the teacher said, once more: it is counted once.
    for turn in &mut row.turns {
        mask_in_place(&mut turn.content, &mut masked);
    }
    let mut again = Masked::new();
    mask_in_place(&mut row.answer, &mut again);
    mask_slots(&mut row.slots, &mut again);
    for text in [&mut row.chunk, &mut row.context, &mut row.reasoning].into_iter().flatten() {
        mask_in_place(text, &mut again);
    }
    for (kind, count) in again {
        masked.entry(kind).or_insert(count);
    }
    masked
}

/// Slots are an object of JSON and stay one: a number that is masked becomes a text.
fn mask_slots(slots: &mut String, masked: &mut Masked) {
    let Ok(Value::Object(mut values)) = serde_json::from_str(slots) else { return mask_in_place(slots, masked) };
    let before = masked.clone();
    for value in values.values_mut() {
        match value {
            Value::String(text) => mask_in_place(text, masked),
            Value::Number(number) => {
                if let Cow::Owned(text) = mask(&number.to_string(), masked) {
                    *value = Value::String(text);
                }
            }
            _ => {}
        }
    }
    if *masked != before {
        *slots = Value::Object(values).to_string();
    }
}

fn mask_in_place(text: &mut String, masked: &mut Masked) {
    if let Cow::Owned(changed) = mask(text, masked) {
        *text = changed;
    }
}

/// A pattern of ours: tests compile every one.
fn pattern(text: &str) -> Regex {
    Regex::new(text).unwrap_or_else(|error| unreachable!("{text}: {error}"))
}

/// Whether a range stands alone: no letter or digit touches it, nor one of `joints` with a letter or digit behind.
fn stands_alone(text: &str, range: &Range<usize>, joints: &str) -> bool {
    let mut before = text[..range.start].chars().rev();
    let mut after = text[range.end..].chars();
    let joined = |near: Option<char>, far: Option<char>| match near {
        Some(letter) if letter.is_alphanumeric() || letter == '_' => true,
        Some(letter) if joints.contains(letter) => far.is_some_and(char::is_alphanumeric),
        _ => false,
    };
    !joined(before.next(), before.next()) && !joined(after.next(), after.next())
}

/// The digits of a text.
fn digits(text: &str) -> Vec<u32> {
    text.chars().filter_map(|letter| letter.to_digit(10)).collect()
}

/// The last characters before a place, in lower case.
fn before(text: &str, place: usize, characters: usize) -> String {
    let start = text[..place].char_indices().rev().take(characters).last().map_or(place, |(start, _)| start);
    text[start..place].to_lowercase()
}

#[cfg(test)]
mod tests;
