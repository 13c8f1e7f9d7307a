//! Web pages: the main text as Markdown.

mod page;
mod tokens;

use super::{ExtractError, Extracted, Limits, encoding};
use encoding_rs::Encoding;
use page::Page;

/// A part named main or article speaks for the page when it holds at least this share of its text.
const MAIN_SHARE: usize = 3;

/// Headings, paragraphs, lists, tables and code; scripts, styles, navigation and forms are left out. Where the page names its
/// main part, and that holds at least a third of the text, only that is kept.
pub(super) fn read(bytes: &[u8], limits: &Limits) -> Result<Extracted, ExtractError> {
    let decoded = encoding::decode_as(bytes, declared(bytes))?;
    let mut warnings = decoded.warnings;
    let mut page = Page::read(&decoded.text, false, limits)?;
    if page.cut_short {
        warnings.push("a part of navigation never closes: the whole page was read".to_owned());
        page = Page::read(&decoded.text, true, limits)?;
    }
    let text = if page.main.len() * MAIN_SHARE >= page.whole.len() { page.main } else { page.whole };
    Ok(Extracted { text, title: page.title, pages: None, warnings })
}

/// The encoding that the page names in its first kilobyte.
fn declared(bytes: &[u8]) -> Option<&'static Encoding> {
    let head = String::from_utf8_lossy(&bytes[..bytes.len().min(1024)]).to_ascii_lowercase();
    let rest = head.split_once("charset=")?.1.trim_start_matches(['"', '\'', ' ']);
    let label: String =
        rest.chars().take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | ':')).collect();
    Encoding::for_label(label.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(html: &str) -> String {
        read(html.as_bytes(), &Limits::default()).unwrap().text
    }

    #[test]
    fn the_main_text_of_a_page_is_kept_in_its_form() {
        let html = r#"<!doctype html><html><head><title>Pond &amp; frogs</title><style>p { color: red }</style>
            <script>if (a < b) document.write("<p>no</p>");</script></head><body>
            <nav><ul><li><a href="/">Home</a></ul></nav>
            <h1>The pond</h1><p>A <b>green</b> frog&nbsp;&mdash; it&#39;s
            old.<p>Second<br>line.
            <ul><li>one<ul><li>inner</li></ul></li><li><p>two</p></li></ul>
            <ol start=3><li>first<li>second</ol>
            <table><thead><tr><th>Name<th>Age</thead><tr><td>Ann<td>3 | 4<tr><td>Bo<td>5</table>
            <pre class="language-rust"><code>let a = 1;
  let b = &lt;2&gt;;</code></pre>
            <p># not a heading</p><div hidden>secret</div><form><button>Send</button></form>
            <footer>Imprint</footer></body></html>"#;
        let page = read(html.as_bytes(), &Limits::default()).unwrap();
        assert_eq!(page.title.as_deref(), Some("Pond & frogs"));
        assert_eq!(
            page.text,
            "# The pond\n\nA green frog — it's old.\n\nSecond line.\n\n- one\n  - inner\n- two\n\n3. first\n4. second\n\n| Name | Age |\n| --- | --- |\n| Ann | 3 \\| 4 |\n| Bo | 5 |\n\n```rust\nlet a = 1;\n  let b = <2>;\n```\n\n\\# not a heading"
        );
    }

    #[test]
    fn a_named_main_part_speaks_for_the_page() {
        let long = "Words of the article. ".repeat(5);
        let html = format!("<div>Menu and more menu.</div><main><h2>Here</h2><p>{long}</p></main><div>Related.</div>");
        assert_eq!(text(&html), format!("## Here\n\n{}", long.trim()));
        let tiny = format!("<main>x</main><p>{long}</p>");
        assert_eq!(text(&tiny), format!("x\n\n{}", long.trim()));
    }

    #[test]
    fn malformed_pages_give_their_words() {
        assert_eq!(
            text("<html><p>one<div>two</p></span><h2>three<p>four < five & six &unknown; &#xD800;"),
            "one\n\ntwo\n\n## three\n\nfour < five & six &unknown; \u{fffd}"
        );
        let page = read(b"<html><p>a</p><nav><p>b</p><p>c</p>", &Limits::default()).unwrap();
        assert_eq!(page.text, "a\n\nb\n\nc");
        assert_eq!(page.warnings, ["a part of navigation never closes: the whole page was read"]);
        assert_eq!(text("<html>a <!-- open"), "a");
        assert_eq!(text("<html>a<script>b</html>"), "a");
        assert_eq!(text("<html>a <b title='x"), "a");
        assert_eq!(text("<html><table><td>x"), "x");
    }

    #[test]
    fn the_page_names_its_encoding() {
        let mut html = b"<html><meta charset='iso-8859-2'><p>".to_vec();
        html.extend([0xb1, b' ', 0xe6]);
        let page = read(&html, &Limits::default()).unwrap();
        assert_eq!(page.text, "ą ć");
        assert_eq!(page.warnings, ["it is not UTF-8 from line 1 on and was read as ISO-8859-2"]);
    }

    #[test]
    fn hostile_pages_cost_no_more_than_their_length() {
        let limits = Limits { text_bytes: 1 << 20, ..Limits::default() };
        let deep = "<html>".to_owned() + &"<ul><li>x".repeat(50_000);
        assert!(read(deep.as_bytes(), &limits).is_ok());
        let tables = "<html>".to_owned() + &"<table><tr><td>x".repeat(50_000);
        assert!(read(tables.as_bytes(), &limits).is_ok());
        let attributes = "<html><p ".to_owned() + &"a ".repeat(500_000) + ">x";
        assert_eq!(read(attributes.as_bytes(), &limits).unwrap().text, "x");
        let open = "<html>".to_owned() + &"<!--".repeat(200_000);
        assert!(matches!(read(open.as_bytes(), &limits), Ok(page) if page.text.is_empty()));
        let entities = "<html>".to_owned() + &"&am".repeat(200_000);
        assert!(read(entities.as_bytes(), &limits).is_ok());
        let columns = "<html><table><tr><td colspan=1000000000>x<td>y</table>";
        assert!(read(columns.as_bytes(), &limits).unwrap().text.len() < 1000);
    }
}
