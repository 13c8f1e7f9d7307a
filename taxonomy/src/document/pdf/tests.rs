use std::fmt::Write as _;
use std::io::Write as _;

use super::*;
use flate2::Compression;
use flate2::write::ZlibEncoder;

/// A file of these objects, numbered from 1; the first is the catalogue.
fn file(objects: &[Vec<u8>], trailer: &str) -> Vec<u8> {
    let mut bytes = b"%PDF-1.4\n".to_vec();
    for (index, object) in objects.iter().enumerate() {
        bytes.extend(format!("{} 0 obj\n", index + 1).bytes());
        bytes.extend(object);
        bytes.extend(b"\nendobj\n");
    }
    bytes.extend(format!("trailer\n<< /Root 1 0 R {trailer} >>\nstartxref\n0\n%%EOF\n").bytes());
    bytes
}

fn stream(entries: &str, content: &[u8]) -> Vec<u8> {
    let mut bytes = format!("<< {entries} /Length {} >>\nstream\n", content.len()).into_bytes();
    bytes.extend(content);
    bytes.extend(b"\nendstream");
    bytes
}

fn packed(content: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// A file with one page for each program, Helvetica as F1 and its bold kind as F2.
fn pages(programs: &[&str]) -> Vec<u8> {
    let kids: String = (0..programs.len()).map(|index| format!("{} 0 R ", 5 + 2 * index)).collect();
    let mut objects: Vec<Vec<u8>> = vec![
        b"<< /Type /Catalog /Pages 2 0 R >>".to_vec(),
        format!(
            "<< /Type /Pages /Kids [{kids}] /Count {} /Resources << /Font << /F1 3 0 R /F2 4 0 R >> >> >>",
            programs.len()
        )
        .into_bytes(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>".to_vec(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica-Bold /Encoding << /Differences [1 /ffi /Adieresis] >> >>"
            .to_vec(),
    ];
    for (index, program) in programs.iter().enumerate() {
        objects.push(format!("<< /Type /Page /Parent 2 0 R /Contents {} 0 R >>", 6 + 2 * index).into_bytes());
        objects.push(stream("/Filter /FlateDecode", &packed(program.as_bytes())));
    }
    file(&objects, "/Info << /Title (On ponds) >>")
}

fn text(bytes: &[u8]) -> String {
    read(bytes, &Limits::default()).unwrap().text
}

#[test]
fn sizes_make_headings_and_distances_make_paragraphs() {
    let program = "BT /F2 20 Tf 72 700 Td (The p) Tj (ond) Tj /F1 10 Tf 0 -30 Td 12 TL
        (A green frog lived in the pond, where the wa-) Tj T* (ter was deep and the reeds grew high, as it) Tj T*
        [(sa) 10 (id) -300 (itself.)] TJ 0 -30 Td (\\267 one) Tj (\\225 two) ' (\\225 three) ' /F2 10 Tf 0 -30 Td (Its water) Tj
        /F1 10 Tf 0 -20 Td (Cold, and na\\357ve \\(very\\) \\223deep\\224.) Tj /F2 10 Tf 0 -20 Td (\\001 \\002.) Tj ET";
    assert_eq!(
        text(&pages(&[program])),
        "# The pond\n\nA green frog lived in the pond, where the water was deep and the reeds grew high, as it said itself.\n\n- one\n- two\n- three\n\n## Its water\n\nCold, and naïve (very) “deep”.\n\nffi Ä."
    );
    let read = read(&pages(&[program]), &Limits::default()).unwrap();
    assert_eq!((read.title.as_deref(), read.pages), (Some("On ponds"), Some(1)));
}

#[test]
fn running_heads_go_and_paragraphs_go_over_pages() {
    let page = |number: usize, body: &str| {
        format!(
            "BT /F1 10 Tf 72 780 Td (The book of ponds) Tj 0 -60 Td ({body}) Tj ET BT /F1 10 Tf 300 40 Td ({number}) Tj ET
             /Artifact BMC BT /F1 10 Tf 72 20 Td (watermark) Tj ET EMC"
        )
    };
    let programs = [page(1, "The frog sat on a"), page(2, "stone."), page(3, "It was green.")];
    let programs: Vec<&str> = programs.iter().map(String::as_str).collect();
    assert_eq!(text(&pages(&programs)), "The frog sat on a stone.\n\nIt was green.");
}

#[test]
fn later_versions_packed_objects_and_wide_fonts_are_read() {
    let map = "1 beginbfrange <0001> <001a> <0061> endbfrange 1 beginbfchar <0020> <0020> endbfchar";
    let inner = "1 0 2 60 << /Type /Catalog /Pages 2 0 R >>                                << /Kids [7 0 R] >>";
    let header = "1 0 2 60 ".len();
    let objects = [
        b"<< /Old true >>".to_vec(),
        b"<< /Kids [] >>".to_vec(),
        b"<< /Subtype /Type0 /Encoding /Identity-H /ToUnicode 4 0 R /DescendantFonts [5 0 R] >>".to_vec(),
        stream("", map.as_bytes()),
        b"<< /Subtype /CIDFontType2 /DW 600 /W [1 [500 500] 3 9 400] >>".to_vec(),
        stream("", b"q 1 0 0 1 72 700 cm /X Do Q"),
        b"<< /Type /Page /Contents [6 0 R] /Resources << /XObject << /X 8 0 R >> >> >>".to_vec(),
        stream(
            "/Subtype /Form /Resources << /Font << /F 3 0 R >> >>",
            b"BT /F 12 Tf <0006000f0007> Tj 20 0 Td <00020020> Tj BI /W 1 ID \x00(EI Tj EI <0001> Tj ET",
        ),
        stream(&format!("/Type /ObjStm /N 2 /First {header} /Filter /FlateDecode"), &packed(inner.as_bytes())),
    ];
    assert_eq!(text(&file(&objects, "")), "fog b a");
}

#[test]
fn without_its_tree_every_page_is_found() {
    let whole = pages(&["BT /F1 10 Tf (one) Tj ET"]);
    let broken = String::from_utf8_lossy(&whole).into_owned();
    // Only the ASCII parts are changed, so the packed page is kept apart.
    let at = whole.windows(12).position(|window| window == b"/Pages 2 0 R").unwrap();
    let mut bytes = whole.clone();
    bytes[at + 7] = b'9';
    assert!(broken.contains("/Pages 2 0 R"));
    assert!(matches!(read(&bytes, &Limits::default()), Err(ExtractError::Scanned { pages: 1 })));
    let own = whole.windows(19).position(|window| window == b"/Parent 2 0 R /Cont").unwrap();
    let mut with_fonts = bytes[..own].to_vec();
    with_fonts.extend(b"/Resources << /Font << /F1 3 0 R >> >> ");
    with_fonts.extend(&bytes[own..]);
    assert_eq!(text(&with_fonts), "one");
}

#[test]
fn what_cannot_be_read_says_why_and_what_to_do() {
    let error = |bytes: &[u8]| {
        let error = read(bytes, &Limits::default()).unwrap_err();
        format!("{error}; {}", error.hint())
    };
    let locked = file(&[b"<< /Type /Catalog >>".to_vec()], "/Encrypt << /Filter /Standard >>");
    assert_eq!(error(&locked), "is an encrypted PDF; save it without a password: `qpdf --decrypt IN.pdf OUT.pdf`");
    assert_eq!(
        error(&pages(&["q 100 0 0 100 0 0 cm /Im1 Do Q", ""])),
        "has no text on its 2 page(s), so they are pictures of text; give a PDF with a text layer (`ocrmypdf IN.pdf OUT.pdf` adds one), or Markdown that a docling server made of it"
    );
    assert_eq!(
        error(b"%PDF-1.7\nnothing"),
        "is a damaged PDF: it has no pages; open it in the program that made it and save it again, or save it as Markdown"
    );
}

#[test]
fn hostile_files_are_refused_within_bounds() {
    let limits = Limits { unpacked_bytes: 1 << 20, text_bytes: 1 << 16, ..Limits::default() };
    let refused = |bytes: &[u8]| read(bytes, &limits).unwrap_err().to_string();
    let bomb = packed(&packed(&vec![b' '; 4 << 20]));
    let objects = [
        b"<< /Pages 2 0 R >>".to_vec(),
        b"<< /Kids [3 0 R 3 0 R 2 0 R] >>".to_vec(),
        b"<< /Type /Page /Contents 4 0 R >>".to_vec(),
        stream("/Filter [/FlateDecode /FlateDecode]", &bomb),
    ];
    assert_eq!(refused(&file(&objects, "")), "passes a limit: what it unpacks to in bytes is more than 1048576");
    // A form that shows itself doubles with each level.
    let mut itself = pages(&["/X Do"]);
    itself
        .extend(b"2 0 obj << /Kids [5 0 R] /Resources << /Font << /F1 3 0 R >> /XObject << /X 9 0 R >> >> >> endobj\n");
    let again = "/X Do ".repeat(8) + "BT /F1 9 Tf (words and words and words) Tj ET";
    let mut form = b"9 0 obj ".to_vec();
    form.extend(stream("/Subtype /Form", again.as_bytes()));
    itself.extend(form);
    assert!(refused(&itself).starts_with("passes a limit: "));
    for start in ["1 0 obj [", "1 0 obj (", "1 0 obj << /A ", "1 0 obj <", "trailer << "] {
        let deep = "%PDF-1.4\n".to_owned() + &start.repeat(50_000);
        assert!(read(deep.as_bytes(), &limits).is_err(), "{start}");
    }
    let mut nested = String::from("%PDF-1.4\n1 0 obj ");
    let _ = write!(nested, "{}", "[".repeat(200_000));
    assert!(read(nested.as_bytes(), &limits).is_err());
}

#[test]
fn every_beginning_and_every_change_of_a_file_is_survived() {
    let whole = pages(&["BT /F1 10 Tf (one two) Tj T* (three) ' ET"]);
    for end in (0..whole.len()).step_by(3) {
        let _ = read(&whole[..end], &Limits::default());
    }
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 0x15;
        let _ = read(&changed, &Limits::default());
    }
}
