//! The licence that `attribution.txt` beside a leaf names.

/// The values of `License of the work`, several blocks joined by `; `, each once. `None` when the file names none.
pub(crate) fn license(text: &str) -> Option<String> {
    let mut licenses: Vec<&str> = Vec::new();
    for line in text.lines() {
        let Some((key, value)) = line.split_once(':') else { continue };
        let key = key.trim().trim_start_matches(['-', '*', ' ']).to_ascii_lowercase();
        let value = value.trim();
        if matches!(key.as_str(), "license of the work" | "licence of the work" | "license" | "licence")
            && !value.is_empty()
            && value != "-"
            && !licenses.contains(&value)
        {
            licenses.push(value);
        }
    }
    (!licenses.is_empty()).then(|| licenses.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_joined() {
        let text = "Title of work: A\nLicense of the work: CC-BY-SA-4.0\nCreator names: x\n\nTitle of work: B\nLicense of the work: MIT\n";
        assert_eq!(license(text).as_deref(), Some("CC-BY-SA-4.0; MIT"));
        assert_eq!(license("Title of work: A\nLicense of the work: -\n"), None);
    }
}
