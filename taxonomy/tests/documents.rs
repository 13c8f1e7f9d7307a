//! Documents from disk: Word files made here, and what is refused.

use std::io::{Cursor, Write as _};
use std::path::Path;

use espalier_taxonomy::document::{ExtractError, Extracted, Limits, extract, extract_bytes};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

const HEADER: &str = r#"<?xml version="1.0"?><w:document xmlns:w="w"><w:body>"#;

fn zipped(parts: &[(&str, &str)]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in parts {
        zip.start_file(*name, SimpleFileOptions::default()).expect("a name is free");
        zip.write_all(content.as_bytes()).expect("memory is there");
    }
    zip.finish().expect("memory is there").into_inner()
}

fn word(body: &str) -> Vec<u8> {
    let document = format!("{HEADER}{body}</w:body></w:document>");
    let styles = r#"<w:styles><w:style w:styleId="T"><w:name w:val="Title"/></w:style>
        <w:style w:styleId="H1"><w:name w:val="heading 1"/></w:style><w:style w:styleId="Own"><w:basedOn w:val="H2"/></w:style>
        <w:style w:styleId="H2"><w:name w:val="Kapitel"/><w:pPr><w:outlineLvl w:val="1"/></w:pPr></w:style>
        <w:style w:styleId="A"><w:basedOn w:val="B"/></w:style><w:style w:styleId="B"><w:basedOn w:val="A"/></w:style></w:styles>"#;
    let numbering = r#"<w:numbering><w:abstractNum w:abstractNumId="7"><w:lvl w:ilvl="0"><w:numFmt w:val="decimal"/></w:lvl>
        <w:lvl w:ilvl="1"><w:numFmt w:val="bullet"/></w:lvl></w:abstractNum>
        <w:num w:numId="3"><w:abstractNumId w:val="7"/></w:num></w:numbering>"#;
    zipped(&[
        ("[Content_Types].xml", "<Types/>"),
        ("word/document.xml", &document),
        ("word/styles.xml", styles),
        ("word/numbering.xml", numbering),
        ("docProps/core.xml", "<cp:coreProperties><dc:title>Ponds &amp; frogs</dc:title></cp:coreProperties>"),
    ])
}

fn read(bytes: &[u8]) -> Result<Extracted, ExtractError> {
    extract_bytes(Path::new("a.docx"), bytes, &Limits::default())
}

fn refused(bytes: &[u8], limits: &Limits) -> String {
    extract_bytes(Path::new("a.docx"), bytes, limits).expect_err("it is to be refused").to_string()
}

fn paragraph(style: &str, text: &str) -> String {
    format!(r#"<w:p><w:pPr><w:pStyle w:val="{style}"/></w:pPr><w:r><w:t xml:space="preserve">{text}</w:t></w:r></w:p>"#)
}

fn item(level: usize, text: &str) -> String {
    format!(
        r#"<w:p><w:pPr><w:numPr><w:ilvl w:val="{level}"/><w:numId w:val="3"/></w:numPr></w:pPr><w:r><w:t>{text}</w:t></w:r></w:p>"#
    )
}

#[test]
fn a_word_file_keeps_its_headings_lists_and_tables() {
    let cell = |text: &str| format!("<w:tc><w:p><w:r><w:t>{text}</w:t></w:r></w:p></w:tc>");
    let table = format!(
        "<w:tbl><w:tr>{}{}</w:tr><w:tr>{}<w:tc><w:p/><w:tbl><w:tr>{}</w:tr></w:tbl></w:tc></w:tr></w:tbl>",
        cell("Name"),
        cell("Age"),
        cell("Ann"),
        cell("3 &lt; 4")
    );
    let body = [
        paragraph("T", "The pond"),
        paragraph("H1", "Frogs"),
        paragraph("A", "A green "),
        "<w:p><w:r><w:t>One</w:t><w:tab/><w:t>two</w:t></w:r><w:del><w:r><w:delText>gone</w:delText></w:r></w:del>\
         <w:r><w:rPr><w:vanish/></w:rPr><w:t>hidden</w:t></w:r><w:r><w:t>&#46;</w:t></w:r></w:p>"
            .to_owned(),
        item(0, "first"),
        item(1, "inner"),
        item(0, "second"),
        paragraph("Own", "Ages"),
        table,
        "<mc:AlternateContent><mc:Choice><w:p><w:r><w:t>box</w:t></w:r></w:p></mc:Choice><mc:Fallback><w:p><w:r><w:t>box</w:t>\
         </w:r></w:p></mc:Fallback></mc:AlternateContent>"
            .to_owned(),
    ];
    let found = read(&word(&body.concat())).unwrap();
    assert_eq!(found.title.as_deref(), Some("Ponds & frogs"));
    assert_eq!(
        found.text,
        "# The pond\n\n# Frogs\n\nA green\n\nOne two.\n\n1. first\n  - inner\n2. second\n\n## Ages\n\n| Name | Age |\n| --- | --- |\n| Ann | 3 < 4 |\n\nbox"
    );
}

#[test]
fn a_hostile_word_file_is_refused_within_bounds() {
    let limits = Limits { text_bytes: 1 << 16, unpacked_bytes: 4 << 20, ratio: 100, ..Limits::default() };
    let bomb = word(&format!("<w:p>{}</w:p>", " ".repeat(3 << 20)));
    assert_eq!(refused(&bomb, &limits), "passes a limit: the growth of a part as it unpacks is more than 100");
    let large = word(&format!("<w:p>{}</w:p>", " ".repeat(5 << 20)));
    let wide = Limits { ratio: 1 << 20, ..limits };
    assert_eq!(refused(&large, &wide), "passes a limit: what it unpacks to in bytes is more than 4194304");
    assert_eq!(
        refused(&word(&"<w:sdt>".repeat(200)), &limits),
        "passes a limit: the nesting of its XML is more than 128"
    );
    let long = paragraph("A", &"word ".repeat(20_000));
    assert_eq!(refused(&word(&long), &limits), "passes a limit: its text in bytes is more than 65536");
    let entities =
        r#"<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;">]><w:document>&c;</w:document>"#;
    let bytes = zipped(&[("word/document.xml", entities)]);
    assert_eq!(refused(&bytes, &limits), "is a damaged DOCX: its XML has a document type definition");
    let bytes = zipped(&[("word/document.xml", "<w:document>&c;</w:document>")]);
    assert_eq!(refused(&bytes, &limits), "is a damaged DOCX: its XML has an entity &c; that is not defined");
    let bytes = zipped(&[("word/document.xml", "<a/>"), ("../../etc/passwd", "x")]);
    assert_eq!(
        refused(&bytes, &limits),
        "is a damaged zip archive: the name of an entry leads out of it: ../../etc/passwd"
    );
    let few = Limits { entries: 2, ..limits };
    assert_eq!(refused(&word(""), &few), "passes a limit: the number of entries is more than 2");
    let whole = word(&paragraph("A", "words"));
    assert!(refused(&whole[..whole.len() / 2], &limits).starts_with("is a damaged zip archive: "));
    let broken = zipped(&[("word/document.xml", "<w:document><w:p>")]);
    assert_eq!(refused(&broken, &limits), "is a damaged DOCX: its XML ends in the middle");
}

#[test]
fn other_archives_are_named() {
    for (part, words) in [
        ("xl/workbook.xml", "is an Excel workbook (save its sheets as CSV), which is not read here"),
        ("ppt/presentation.xml", "is a PowerPoint presentation (save it as PDF), which is not read here"),
        ("content.xml", "is an OpenDocument file (save it as DOCX), which is not read here"),
        ("a.txt", "is a zip archive, which is not read here"),
    ] {
        assert_eq!(refused(&zipped(&[(part, "x")]), &Limits::default()), words);
    }
}

#[test]
fn a_locked_entry_is_said_to_be_encrypted() {
    let mut bytes = word(&paragraph("A", "words"));
    // The flag of encryption, in every header of the archive.
    for at in 0..bytes.len() - 8 {
        match &bytes[at..at + 4] {
            b"PK\x03\x04" => bytes[at + 6] |= 1,
            b"PK\x01\x02" => bytes[at + 8] |= 1,
            _ => {}
        }
    }
    assert_eq!(refused(&bytes, &Limits::default()), "is an encrypted DOCX");
}

#[test]
fn files_are_read_from_disk_within_their_limits() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pond.md");
    std::fs::write(&path, "\u{feff}# A pond\r\n\r\nA frog.\r\n").unwrap();
    let found = extract(&path, &Limits::default()).unwrap();
    assert_eq!((found.text.as_str(), found.title.as_deref()), ("# A pond\n\nA frog.\n", Some("A pond")));
    let small = Limits { file_bytes: 10, ..Limits::default() };
    assert_eq!(extract(&path, &small).unwrap_err().to_string(), "passes a limit: its size in bytes is more than 10");
    let short = Limits { text_bytes: 10, ..Limits::default() };
    assert_eq!(extract(&path, &short).unwrap_err().to_string(), "passes a limit: its text in bytes is more than 10");
    std::fs::write(&path, " \n\t\n").unwrap();
    assert!(matches!(extract(&path, &Limits::default()), Err(ExtractError::Empty)));
    assert!(matches!(extract(&folder.path().join("none"), &Limits::default()), Err(ExtractError::Read(_))));
    for name in ["a.md", "a.html", "a.csv", "a.json", "a.jsonl", "a.rs", "a.txt"] {
        let binary = extract_bytes(Path::new(name), &[0, 159, 146, 150, 1, 2, 3], &Limits::default());
        assert!(matches!(binary, Err(ExtractError::Binary { .. })), "{name}: {binary:?}");
    }
}
