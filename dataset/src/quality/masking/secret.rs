//! Keys and passwords.

use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

use super::{pattern, stands_alone};

/// Keys with a beginning of their own, as the services document them. The first group is of those that words may look like: they
/// need a run of 16 letters and digits with both in it.
static KEYS: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?x)
        ( sk-[A-Za-z0-9_-]{20,} | hf_[A-Za-z0-9]{20,} | key-[0-9a-f]{32} | npm_[A-Za-z0-9]{36} )
        | (?: AKIA | ASIA )[0-9A-Z]{16} | gh[pousr]_[A-Za-z0-9]{36,} | github_pat_[A-Za-z0-9_]{22,} | glpat-[A-Za-z0-9_-]{20,}
        | xox[abeoprs]-[A-Za-z0-9-]{10,} | AIza[0-9A-Za-z_-]{35} | ya29\.[0-9A-Za-z_-]{20,}
        | (?: sk | rk | pk )_(?: live | test )_[0-9A-Za-z]{16,} | pypi-AgEIcHlwaS5vcmc[0-9A-Za-z_-]{20,}
        | SG\.[0-9A-Za-z_-]{22}\.[0-9A-Za-z_-]{43} | dop_v1_[0-9a-f]{64}
        | eyJ[0-9A-Za-z_-]{10,}\.eyJ[0-9A-Za-z_-]{10,}\.[0-9A-Za-z_-]{10,}
        | -----BEGIN\x20(?:[A-Z]+\x20){0,3}PRIVATE\x20KEY-----[A-Za-z0-9+/=\s\\:,-]*?-----END\x20(?:[A-Z]+\x20){0,3}PRIVATE\x20KEY-----",
    )
});

/// User and password before the host of a URL.
static CREDENTIALS: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r#"\b[A-Za-z][A-Za-z0-9+.-]{1,20}://([^\s:/?\#@\[\]"'<>]+:[^\s/?\#@"'<>]+)@[A-Za-z0-9\[]"#)
});

pub(super) fn keys(text: &str) -> Vec<Range<usize>> {
    let random = |key: &str| {
        key.split(['-', '_']).any(|run| {
            run.len() >= 16
                && run.contains(|c: char| c.is_ascii_digit())
                && run.contains(|c: char| c.is_ascii_alphabetic())
        })
    };
    let keys = KEYS.captures_iter(text).filter(|found| found.get(1).is_none_or(|key| random(key.as_str())));
    keys.filter_map(|found| found.get(0))
        .map(|found| found.range())
        .filter(|range| stands_alone(text, range, ""))
        .collect()
}

/// What stands between `://` and `@`.
pub(super) fn credentials(text: &str) -> Vec<Range<usize>> {
    CREDENTIALS.captures_iter(text).filter_map(|found| found.get(1)).map(|found| found.range()).collect()
}
