//! Names of licences as SPDX writes them.

/// The licences that `InstructLab`'s taxonomy takes works under.
pub const ACCEPTED: [&str; 6] = ["CC0-1.0", "CDLA-Permissive-2.0", "CC-BY-4.0", "CC-BY-SA-4.0", "Apache-2.0", "MIT"];

/// Identifiers other than those of Creative Commons, with what is left of their usual spellings when only letters and digits
/// count and the words of [`FILLER`] are dropped.
const KNOWN: [(&str, &[&str]); 26] = [
    ("Apache-2.0", &["apache2", "apache20", "asl20"]),
    ("MIT", &["mit", "expat"]),
    ("CDLA-Permissive-2.0", &["cdlapermissive20", "cdlapermissive2", "communitydataagreementpermissive20"]),
    ("CDLA-Permissive-1.0", &["cdlapermissive10"]),
    ("CDLA-Sharing-1.0", &["cdlasharing10"]),
    ("BSD-2-Clause", &["bsd2clause", "bsd2", "simplifiedbsd", "freebsd"]),
    ("BSD-3-Clause", &["bsd3clause", "bsd3", "newbsd", "modifiedbsd"]),
    ("ISC", &["isc"]),
    ("Unlicense", &["unlicense"]),
    ("0BSD", &["0bsd"]),
    ("MPL-2.0", &["mpl20", "mpl2", "mozilla20"]),
    ("EPL-2.0", &["epl20", "eclipse20"]),
    ("GPL-2.0-only", &["gpl20only", "gpl20", "gplv2", "gpl2", "gnugeneral20"]),
    ("GPL-2.0-or-later", &["gpl20orlater", "gpl2orlater"]),
    ("GPL-3.0-only", &["gpl30only", "gpl30", "gplv3", "gpl3", "gnugeneral30"]),
    ("GPL-3.0-or-later", &["gpl30orlater", "gpl3orlater"]),
    ("LGPL-2.1-only", &["lgpl21only", "lgpl21"]),
    ("LGPL-3.0-only", &["lgpl30only", "lgpl30", "lgpl3"]),
    ("AGPL-3.0-only", &["agpl30only", "agpl30", "agpl3"]),
    ("AGPL-3.0-or-later", &["agpl30orlater"]),
    ("GFDL-1.2-only", &["gfdl12only", "gfdl12", "gnufreedocumentation12"]),
    ("GFDL-1.3-only", &["gfdl13only", "gfdl13", "gfdl", "gnufreedocumentation13", "gnufreedocumentation"]),
    ("ODbL-1.0", &["odbl10", "odbl", "opendatabase10", "opendatacommonsopendatabase10"]),
    ("ODC-By-1.0", &["odcby10", "odcby"]),
    ("PDDL-1.0", &["pddl10", "pddl"]),
    ("OGL-UK-3.0", &["ogluk30", "ogl30", "opengovernment30"]),
];

/// Words that tell no licence from another.
const FILLER: [&str; 9] = ["the", "license", "licence", "licensed", "under", "public", "international", "version", "v"];

/// The SPDX identifier of a licence in one of its usual spellings (`CC BY-NC-SA 4.0`, `Apache License, Version 2.0`); `None` for
/// one that is not known here.
pub fn spdx(stated: &str) -> Option<String> {
    let lower = stated.to_lowercase().replace("public domain dedication", "");
    let words: Vec<&str> = lower
        .split(|found: char| !(found.is_alphanumeric() || found == '.'))
        .map(|word| word.trim_matches('.'))
        .filter(|word| !word.is_empty() && !FILLER.contains(word))
        .collect();
    if let Some(identifier) = creative_commons(&words) {
        return Some(identifier);
    }
    let key: String = words.concat().chars().filter(|found| found.is_alphanumeric()).collect();
    let found = KNOWN.iter().find(|(identifier, spellings)| {
        let own: String = identifier.to_lowercase().chars().filter(|found| found.is_alphanumeric()).collect();
        own == key || spellings.contains(&key.as_str())
    });
    found.map(|(identifier, _)| (*identifier).to_owned())
}

/// Parts of a Creative Commons licence in their order in its name.
const PARTS: [(&str, &[&str]); 4] = [
    ("BY", &["by", "attribution"]),
    ("NC", &["nc", "noncommercial"]),
    ("SA", &["sa", "sharealike"]),
    ("ND", &["nd", "noderivatives", "noderivs"]),
];

fn creative_commons(words: &[&str]) -> Option<String> {
    let text = words.join(" ");
    let joined = text.replace(' ', "");
    if joined.starts_with("cc0") || text.starts_with("creative commons zero") {
        return Some("CC0-1.0".to_owned());
    }
    let rest = text.strip_prefix("creative commons").or_else(|| text.strip_prefix("cc"))?;
    let rest = rest.replace("non commercial", "noncommercial").replace("share alike", "sharealike");
    let rest = rest.replace("no derivatives", "noderivatives");
    let mut name = "CC".to_owned();
    let mut number = None;
    let mut taken = 0;
    let words: Vec<&str> = rest.split(' ').filter(|word| !word.is_empty() && *word != "unported").collect();
    for (part, spellings) in PARTS {
        if words.iter().any(|word| spellings.contains(word)) {
            name = format!("{name}-{part}");
            taken += 1;
        }
    }
    for word in &words {
        if ["1.0", "2.0", "2.5", "3.0", "4.0"].contains(word) {
            number = Some(*word);
        }
    }
    (taken > 0 && words.len() == taken + 1 && name.starts_with("CC-BY"))
        .then(|| format!("{name}-{}", number.unwrap_or_default()))
        .filter(|_| number.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_spellings() {
        for (stated, expected) in [
            ("CC-BY-SA-4.0", Some("CC-BY-SA-4.0")),
            ("CC BY-NC-SA 4.0", Some("CC-BY-NC-SA-4.0")),
            ("cc by 3.0", Some("CC-BY-3.0")),
            ("Creative Commons Attribution-ShareAlike 4.0 International", Some("CC-BY-SA-4.0")),
            (
                "Creative Commons Attribution-NonCommercial-NoDerivatives 4.0 International License",
                Some("CC-BY-NC-ND-4.0"),
            ),
            ("CC0 1.0 Universal", Some("CC0-1.0")),
            ("CC0", Some("CC0-1.0")),
            ("Apache License, Version 2.0", Some("Apache-2.0")),
            ("apache-2.0", Some("Apache-2.0")),
            ("The MIT License", Some("MIT")),
            ("CDLA-Permissive-2.0", Some("CDLA-Permissive-2.0")),
            ("GNU Free Documentation License", Some("GFDL-1.3-only")),
            ("BSD 3-Clause License", Some("BSD-3-Clause")),
            ("CC BY", None),
            ("CC-SA-4.0", None),
            ("CC BY 4.0 with changes", None),
            ("public domain", None),
            ("all rights reserved", None),
            ("", None),
        ] {
            assert_eq!(spdx(stated).as_deref(), expected, "{stated}");
        }
        for accepted in ACCEPTED {
            assert_eq!(spdx(accepted).as_deref(), Some(accepted));
        }
        for (identifier, _) in KNOWN {
            assert_eq!(spdx(identifier).as_deref(), Some(identifier));
        }
    }
}
