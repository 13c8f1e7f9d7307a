//! What of a text is written for a reader: not code.

/// A text without its fenced blocks and without code in backticks; a block that is never closed goes to the end.
pub(super) fn prose(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut fenced = false;
    for line in text.split_inclusive('\n') {
        if is_fence(line) {
            fenced = !fenced;
            kept.push('\n');
        } else if !fenced {
            // A backtick without its other half is a backtick.
            let parts: Vec<&str> = line.split('`').collect();
            let last = parts.len() - 1;
            for (place, part) in parts.iter().enumerate() {
                if place % 2 == 0 {
                    kept.push_str(part);
                } else if place == last {
                    kept.push('`');
                    kept.push_str(part);
                } else {
                    kept.push(' ');
                }
            }
        }
    }
    kept
}

/// Whether a line opens or closes a block of code.
pub(super) fn is_fence(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with("```") || line.starts_with("~~~")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_left_out() {
        assert_eq!(prose("Say `x = 1` or\n```py\nx = 2\n```\nit's ` so"), "Say   or\n\n\nit's ` so");
        assert_eq!(prose("a\n```\nnever closed"), "a\n\n");
    }
}
