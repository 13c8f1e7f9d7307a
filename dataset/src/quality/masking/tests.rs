use proptest::prelude::*;

use super::*;

fn masked(text: &str) -> String {
    mask(text, &mut Masked::new()).into_owned()
}

#[test]
fn each_kind_is_replaced() {
    let cases = [
        ("Write to anna.berg+pond@mail.example.co.uk, please.", "Write to [EMAIL], please."),
        ("<jürgen@müller.de>;o'neil@example.com", "<[EMAIL]>;[EMAIL]"),
        ("mailto:a_b@x.org?subject=hi", "mailto:[EMAIL]?subject=hi"),
        ("Call +14155550132 or +49 (0)30 901820 now", "Call [PHONE] or [PHONE] now"),
        ("+44 20 7946 0958, +33 1 23 45 67 89; +91-98765-43210", "[PHONE], [PHONE]; [PHONE]"),
        ("(415) 555-0132 / 415-555-0132 / 415.555.0132 / 1-800-555-0199", "[PHONE] / [PHONE] / [PHONE] / [PHONE]"),
        ("Tel.: 030/1234567, mobile 0171 2345678", "Tel.: [PHONE], mobile [PHONE]"),
        ("(phone: 555 0132 77)", "(phone: [PHONE])"),
        ("Appelez le 01 23 45 67 89.", "Appelez le [PHONE]."),
        ("020 7946 0958 and 07700 900123", "[PHONE] and [PHONE]"),
        ("0049 170 1234567", "[PHONE]"),
        ("Call +14155550132 2 times, or (415-555-0132) 3 times.", "Call [PHONE] 2 times, or ([PHONE]) 3 times."),
        ("from 203.0.113.7:8080 and 192.168.1.20.", "from [IP_ADDRESS]:8080 and [IP_ADDRESS]."),
        (
            "2001:db8:85a3::8a2e:370:7334 fe80::1 2001:0db8:0000:0000:0000:ff00:0042:8329",
            "[IP_ADDRESS] [IP_ADDRESS] [IP_ADDRESS]",
        ),
        (
            "Card 4111 1111 1111 1111, 5500-0000-0000-0004, 378282246310005.",
            "Card [CREDIT_CARD], [CREDIT_CARD], [CREDIT_CARD].",
        ),
        ("6011111111111117 3782 822463 10005", "[CREDIT_CARD] [CREDIT_CARD]"),
        ("DE89 3704 0044 0532 0130 00 AND GB29NWBK60161331926819", "[IBAN] AND [IBAN]"),
        ("NO93 8601 1117 947", "[IBAN]"),
        ("SSN 123-45-6789; her social security number is 123456789", "SSN [SSN]; her social security number is [SSN]"),
        ("postgres://admin:s3cr3t!@db.example.org/ponds", "postgres://[CREDENTIALS]@db.example.org/ponds"),
        ("https://anna:pa55@example.org", "https://[CREDENTIALS]@example.org"),
        ("key=AKIAIOSFODNN7EXAMPLE", "key=[API_KEY]"),
        ("ghp_aBcDeFgHiJkLmNoPqRsTuVwXyZ0123456789", "[API_KEY]"),
        ("\"sk-proj-abcd1234efgh5678ijkl9012mnop3456\"", "\"[API_KEY]\""),
        ("hf_AbCdEfGh12345678IjKlMnOp90123456", "[API_KEY]"),
        ("xoxb-123456789012-abcdefGHIJKL", "[API_KEY]"),
        ("AIzaSyA1234567890abcdefghijklmnopqrstuv", "[API_KEY]"),
        (
            "Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
            "Bearer [API_KEY]",
        ),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIEow+/=\nAB\n-----END RSA PRIVATE KEY-----", "[API_KEY]"),
    ];
    for (text, expected) in cases {
        assert_eq!(masked(text), expected, "{text}");
    }
}

#[test]
fn false_friends_stay() {
    let texts = [
        "Version 1.2.3.4 came after v10.0.0.1 and release 4.3.2.1",
        "see section 3.1.4.1 and § 1.2.3.4, then 1.2.3.4.5",
        "On 2019-03-05, 05.03.2019, 3/5/2019 and 2019/03/05",
        "ISBN 978-3-16-148410-0 and ISBN-10 3-16-148410-0, 9783161484100",
        "from 1990-1995 to 2001 - 2010",
        "127.0.0.1, 0.0.0.0, 255.255.255.0, 300.1.2.3, ::1",
        "at 12:30:45 from 00:1A:2B:3C:4D:5E",
        "std::fmt::Debug, face::cafe and a::b",
        "1234 5678 9012 3456 and 4111 1111 1111 1112",
        "0000 0000 0000 0000",
        "DE89 3704 0044 0532 0130 01 and FR00 none",
        "000-12-3456, 666-12-3456, 900-12-3456 and order 123456789",
        "picture@2x.png, lodash@4.17.21, @anna, git@github.com:anna/pond.git",
        "anna at example dot com",
        "It grew by +20 000 000 people to 1 234 567 890.",
        "3.14159265358979 and 1,234,567.89 and 1609459200000",
        "pi = 3.141 592 653 589 793",
        "https://example.org:8080/a@b and http://user@host",
        "sk-learn-contributions-are-welcome-here and hf_transformers_library_is_large",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "01 02 03 04 05 06 07",
        "Call it 42. The phone has 128 GB.",
        "RFC 2822, 10.1000/182, 192.168.1",
        "[EMAIL] [PHONE] [IP_ADDRESS] https://[CREDENTIALS]@host.org",
        "",
    ];
    for text in texts {
        assert_eq!(masked(text), text);
    }
}

#[test]
fn counts_are_by_kind() {
    let mut counts = Masked::new();
    mask("a@b.org, c@d.org and +4930901820", &mut counts);
    assert_eq!(counts, Masked::from([(Personal::Email, 2), (Personal::Phone, 1)]));
    let mut row = Row {
        turns: vec![crate::Turn::new("user", "Who?"), crate::Turn::new("assistant", "a@b.org")],
        answer: "a@b.org".into(),
        slots: r#"{"card":4111111111111111,"day":5,"mail":"a@b.org"}"#.into(),
        chunk: Some("a@b.org and 203.0.113.7".into()),
        ..Row::default()
    };
    assert_eq!(
        mask_row(&mut row),
        Masked::from([(Personal::Email, 1), (Personal::CreditCard, 1), (Personal::IpAddress, 1)])
    );
    assert_eq!(row.slots, r#"{"card":"[CREDIT_CARD]","day":5,"mail":"[EMAIL]"}"#);
    assert_eq!((row.turns[1].content.as_str(), row.answer.as_str()), ("[EMAIL]", "[EMAIL]"));
    assert_eq!(row.chunk.as_deref(), Some("[EMAIL] and [IP_ADDRESS]"));
    assert_eq!(mask_row(&mut row), Masked::new());
}

#[test]
fn no_check_fails_by_one_digit() {
    let digits = |text: &str| -> usize {
        (0..text.len())
            .filter(|&at| text.as_bytes()[at].is_ascii_digit())
            .map(|at| {
                let changed: String = text
                    .char_indices()
                    .map(|(place, letter)| match letter.to_digit(10) {
                        Some(digit) if place == at => char::from_digit((digit + 1) % 10, 10).unwrap_or('0'),
                        _ => letter,
                    })
                    .collect();
                usize::from(masked(&changed) != changed)
            })
            .sum()
    };
    assert_eq!(digits("4111111111111111"), 0);
    assert_eq!(digits("DE89370400440532013000"), 0);
}

fn any_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "(?s).{0,6}",
        "[0-9 .+()/:@-]{0,20}",
        Just("anna@example.org".to_owned()),
        Just("4111 1111 1111 1111".to_owned()),
        Just("+49 30 901820".to_owned()),
        Just("DE89370400440532013000".to_owned()),
        Just("203.0.113.7".to_owned()),
        Just("https://a:b@c.org".to_owned()),
        Just("AKIAIOSFODNN7EXAMPLE".to_owned()),
        Just("2001:db8::1".to_owned()),
        Just("123-45-6789".to_owned()),
        Just("[EMAIL]".to_owned()),
        Just("tel ".to_owned()),
    ];
    proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn a_masked_text_stays_as_it_is(text in any_text()) {
        let once = masked(&text);
        let mut counts = Masked::new();
        prop_assert_eq!(mask(&once, &mut counts), once.as_str());
        prop_assert!(counts.is_empty());
    }
}
