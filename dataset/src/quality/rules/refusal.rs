//! Answers that decline to answer.

use std::sync::LazyLock;

use regex::Regex;

use super::{excerpt, pattern};

/// Refusals stand at the beginning. "I cannot wait to see you" is none: what cannot be done has to be what an assistant does.
/// German, French, Spanish, Italian and Portuguese have the same forms.
static REFUSAL: LazyLock<Regex> = LazyLock::new(|| {
    let does = "(?:help|assist|provide|answer|fulfil|comply|complete|create|generate|write|access|browse|determine|discuss|\
                engage|offer|give you|share|support|process|respond|tell you|do that|do this|see any|find any|proceed)";
    let cannot = "(?:cannot|can not|can't|could not|couldn't|won't|will not|am unable to|'m unable to|am not able to|'m not \
                  able to|do not have|don't have)";
    let forms = [
        format!("(?:(?:i'?m|i am|we are|my) )?(?:(?:very|so|really|truly) )?(?:sorry|afraid|apologies)[,.]? (?:but )?(?:that )?(?:as [^,.]*, )?(?:i|we) ?{cannot}"),
        format!("(?:unfortunately, )?(?:as [^,.]*, )?(?:i|we) ?{cannot} {does}"),
        "(?:unfortunately, )?(?:i|we) (?:do not|don't) have (?:access|enough information|the ability|information|any information)".into(),
        "i(?: must|'ll have to| have to)? (?:decline|refuse) (?:to|this|that)".into(),
        "(?:es tut mir leid|tut mir leid|entschuldigung|leider)[,.]? (?:aber )?(?:ich kann|kann ich)[^.]{0,60} nicht".into(),
        "(?:es tut mir leid|tut mir leid)[,.]? (?:aber )?(?:ich kann|das kann ich)".into(),
        "(?:je suis )?désolée?,? (?:mais )?je ne (?:peux|puis)".into(),
        "lo siento,? (?:pero )?no puedo".into(),
        "mi dispiace,? (?:ma )?non posso".into(),
        "(?:me )?desculpe,? (?:mas )?(?:eu )?não posso".into(),
    ];
    pattern(&format!(r"^\W*(?:{})", forms.join("|")))
});

/// Why an answer is a refusal.
pub(super) fn refusal(answer: &str) -> Option<String> {
    let start: String = answer.trim_start().chars().take(200).collect::<String>().to_lowercase().replace('’', "'");
    REFUSAL.is_match(&start).then(|| format!("`{}`", excerpt(answer)))
}
