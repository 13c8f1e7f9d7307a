//! What a file is: by what it holds, then by its name.

use std::ffi::OsStr;
use std::path::Path;

use super::{ExtractError, archive};

/// A form of document that is read here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Markdown.
    Markdown,
    /// Text without a form.
    Text,
    /// A web page.
    Html,
    /// A Word document since 2007.
    Docx,
    /// A PDF with text in it.
    Pdf,
    /// Values separated by commas, semicolons or tabs.
    Separated,
    /// One JSON value.
    Json,
    /// One JSON value a line.
    JsonLines,
    /// Source code in the language named, as Markdown names it.
    Source(&'static str),
}

impl Format {
    /// What the bytes are; the name decides among forms of text.
    ///
    /// # Errors
    /// Forms that are known and not read here, and names that promise what the bytes do not hold.
    pub fn of(name: &Path, bytes: &[u8]) -> Result<Self, ExtractError> {
        let start = &bytes[..bytes.len().min(1024)];
        let extension = name.extension().and_then(OsStr::to_str).unwrap_or_default().to_ascii_lowercase();
        if start.windows(5).any(|window| window == b"%PDF-") {
            return Ok(Self::Pdf);
        }
        if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"PK\x05\x06") {
            return archive::kind(bytes);
        }
        if bytes.starts_with(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1") {
            // Office wraps an encrypted DOCX into its old container, with a part of this name in UTF-16.
            let name: Vec<u8> = "EncryptedPackage".encode_utf16().flat_map(u16::to_le_bytes).collect();
            let encrypted = bytes.windows(name.len()).any(|window| window == name);
            return Err(if encrypted {
                ExtractError::Encrypted("Office document")
            } else {
                ExtractError::Unsupported("an Office file from before 2007")
            });
        }
        if bytes.starts_with(b"{\\rtf") {
            return Err(ExtractError::Unsupported("RTF"));
        }
        if let Some((_, kind)) = PICTURES.iter().find(|(magic, _)| bytes.starts_with(magic)) {
            return Err(ExtractError::Unsupported(kind));
        }
        let head: Vec<u8> = start.trim_ascii_start().iter().take(15).map(u8::to_ascii_lowercase).collect();
        let page = head.starts_with(b"<!doctype html") || head.starts_with(b"<html");
        match extension.as_str() {
            "pdf" => Err(ExtractError::Damaged { form: "PDF", reason: "it does not begin with %PDF-".to_owned() }),
            "docx" => Err(ExtractError::Damaged { form: "DOCX", reason: "it is not a zip archive".to_owned() }),
            "html" | "htm" | "xhtml" => Ok(Self::Html),
            _ if page => Ok(Self::Html),
            "md" | "markdown" | "mdx" | "rst" | "adoc" => Ok(Self::Markdown),
            "csv" | "tsv" => Ok(Self::Separated),
            "json" => Ok(Self::Json),
            "jsonl" | "ndjson" => Ok(Self::JsonLines),
            other => Ok(language(other).map_or(Self::Text, Self::Source)),
        }
    }
}

const PICTURES: [(&[u8], &str); 6] = [
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"II*\0", "a TIFF picture"),
    (b"MM\0*", "a TIFF picture"),
    (b"\x1f\x8b", "a gzip file"),
];

/// The name that Markdown gives the language of files with this extension.
fn language(extension: &str) -> Option<&'static str> {
    Some(match extension {
        "rs" => "rust",
        "py" | "pyi" => "python",
        "c" | "h" => "c",
        "cc" | "cpp" | "cxx" | "hh" | "hpp" => "cpp",
        "cs" => "csharp",
        "go" => "go",
        "java" => "java",
        "kt" | "kts" => "kotlin",
        "scala" => "scala",
        "swift" => "swift",
        "js" | "mjs" | "cjs" | "jsx" => "javascript",
        "ts" | "tsx" => "typescript",
        "rb" => "ruby",
        "php" => "php",
        "pl" | "pm" => "perl",
        "lua" => "lua",
        "r" => "r",
        "jl" => "julia",
        "hs" => "haskell",
        "ml" | "mli" => "ocaml",
        "ex" | "exs" => "elixir",
        "erl" => "erlang",
        "clj" => "clojure",
        "sh" | "bash" | "zsh" => "bash",
        "ps1" => "powershell",
        "sql" => "sql",
        "yaml" | "yml" => "yaml",
        "toml" => "toml",
        "xml" | "xsd" | "svg" => "xml",
        "css" => "css",
        "tf" => "hcl",
        "proto" => "protobuf",
        "zig" => "zig",
        "tex" => "latex",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_speak_before_the_name() {
        let of = |name: &str, bytes: &[u8]| Format::of(Path::new(name), bytes);
        assert_eq!(of("a.txt", b"%PDF-1.4\n").unwrap(), Format::Pdf);
        assert_eq!(of("a", b"  <!DOCTYPE HTML><p>x").unwrap(), Format::Html);
        assert_eq!(of("a.rs", b"fn main() {}").unwrap(), Format::Source("rust"));
        assert_eq!(of("README", b"words").unwrap(), Format::Text);
        let refused = |name: &str, bytes: &[u8]| of(name, bytes).unwrap_err().to_string();
        assert_eq!(refused("a.pdf", b"words"), "is a damaged PDF: it does not begin with %PDF-");
        assert_eq!(refused("a.docx", b"words"), "is a damaged DOCX: it is not a zip archive");
        assert_eq!(refused("a.png", b"\x89PNG\r\n"), "is a PNG picture, which is not read here");
        let mut locked = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1".to_vec();
        assert_eq!(refused("a.doc", &locked), "is an Office file from before 2007, which is not read here");
        locked.extend("EncryptedPackage".encode_utf16().flat_map(u16::to_le_bytes));
        assert_eq!(refused("a.docx", &locked), "is an encrypted Office document");
    }
}
