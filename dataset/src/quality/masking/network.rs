//! Addresses of mail and of hosts.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

use super::{before, pattern, stands_alone};

static EMAIL: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"[\p{L}\p{N}][\p{L}\p{N}._%+'-]*@(?:[\p{L}\p{N}](?:[\p{L}\p{N}-]*[\p{L}\p{N}])?\.)+\p{L}{2,24}")
});

/// Ends of file names that are no domains: pictures for dense displays are called `pond@2x.png`.
const FILES: [&str; 12] = ["png", "jpg", "jpeg", "gif", "svg", "webp", "js", "css", "ts", "json", "html", "pdf"];

pub(super) fn emails(text: &str) -> Vec<Range<usize>> {
    if !text.contains('@') {
        return Vec::new();
    }
    let mail = |range: &Range<usize>| {
        let (name, host) = text[range.clone()].split_once('@').unwrap_or_default();
        let end = host.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
        // A repository over SSH is a place, not a person.
        let repository = name == "git" && text[range.end..].starts_with([':', '/']);
        !repository && !FILES.contains(&end.as_str()) && stands_alone(text, range, "")
    };
    EMAIL.find_iter(text).map(|found| found.range()).filter(mail).collect()
}

static IPV4: LazyLock<Regex> = LazyLock::new(|| pattern(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}"));
static IPV6: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"(?:[0-9A-Fa-f]{1,4}:{1,2}){2,7}[0-9A-Fa-f]{1,4}|[0-9A-Fa-f]{3,4}::[0-9A-Fa-f]{1,4}"));
/// What is said before four numbers with dots that are no address.
static NUMBERED: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?:\b(?:v|ver\.?|versions?|releases?|builds?|sections?|sect?\.|chapters?|clauses?|firmware|paragraphs?)|§)[ :=]*$",
    )
});

pub(super) fn addresses(text: &str) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> =
        IPV4.find_iter(text).map(|found| found.range()).filter(|range| is_host(text, range)).collect();
    if text.contains(':') {
        let hosts = IPV6.find_iter(text).map(|found| found.range()).filter(|range| is_host6(text, range));
        found.extend(hosts);
        found.sort_unstable_by_key(|range| range.start);
        found.dedup_by(|later, earlier| later.start < earlier.end);
    }
    found
}

/// Addresses of a machine itself and masks of networks are no one's.
fn is_host(text: &str, range: &Range<usize>) -> bool {
    let Ok(address) = text[range.clone()].parse::<Ipv4Addr>() else { return false };
    let mask = address.octets()[0] == 255;
    let own = address.is_loopback() || address.octets()[0] == 0 || mask;
    !own && stands_alone(text, range, ".-") && !NUMBERED.is_match(&before(text, range.start, 16))
}

/// Paths of modules look like short addresses (`face::cafe`): a short one needs a digit in its first group.
fn is_host6(text: &str, range: &Range<usize>) -> bool {
    let written = &text[range.clone()];
    let Ok(address) = written.parse::<Ipv6Addr>() else { return false };
    let first = written.split(':').next().unwrap_or_default();
    let long = written.split(':').filter(|group| !group.is_empty()).count() == 8;
    let marked = first.len() >= 3 && first.contains(|letter: char| letter.is_ascii_digit());
    !address.is_loopback() && (long || marked) && stands_alone(text, range, ":.")
}
