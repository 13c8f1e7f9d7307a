//! XML as a walk over elements, within limits.

use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, XmlVersion};

use super::{ExtractError, Limits, encoding};

/// One step of a walk. Names stand without their prefix.
#[derive(Debug)]
pub(super) enum Step<'a> {
    /// An element begins.
    Open(&'a str, &'a BytesStart<'a>),
    /// It ends.
    Close(&'a str),
    /// Text of the element, entities resolved.
    Text(&'a str),
}

/// Walks over a part of a document. Document type definitions are refused: they can define entities that grow without end,
/// and no document format needs them.
pub(super) fn walk(
    bytes: &[u8],
    form: &'static str,
    limits: &Limits,
    visit: &mut dyn FnMut(Step<'_>) -> Result<(), ExtractError>,
) -> Result<(), ExtractError> {
    let damaged = |reason: String| ExtractError::Damaged { form, reason };
    let text = encoding::decode(bytes)?.text;
    let mut reader = Reader::from_str(&text);
    reader.config_mut().allow_dangling_amp = true;
    let mut depth = 0_usize;
    loop {
        let event = reader
            .read_event()
            .map_err(|error| damaged(format!("its XML is broken at byte {}: {error}", reader.error_position())))?;
        match event {
            Event::Start(element) => {
                depth += 1;
                if depth > limits.depth {
                    return Err(ExtractError::Limit { what: "the nesting of its XML", limit: limits.depth as u64 });
                }
                visit(Step::Open(element.local_name().into_inner(), &element))?;
            }
            Event::Empty(element) => {
                visit(Step::Open(element.local_name().into_inner(), &element))?;
                visit(Step::Close(element.local_name().into_inner()))?;
            }
            Event::End(element) => {
                depth = depth.saturating_sub(1);
                visit(Step::Close(element.local_name().into_inner()))?;
            }
            Event::Text(text) => visit(Step::Text(&text.into_inner()))?,
            Event::CData(text) => visit(Step::Text(&text.into_inner()))?,
            Event::GeneralRef(reference) => {
                let name = reference.borrow().into_inner();
                match (reference.resolve_char_ref(), quick_xml::escape::resolve_xml_entity(&name)) {
                    (Ok(Some(c)), _) => visit(Step::Text(c.encode_utf8(&mut [0; 4])))?,
                    (_, Some(text)) => visit(Step::Text(text))?,
                    _ => return Err(damaged(format!("its XML has an entity &{name}; that is not defined"))),
                }
            }
            Event::DocType(_) => return Err(damaged("its XML has a document type definition".to_owned())),
            Event::Eof if depth > 0 => return Err(damaged("its XML ends in the middle".to_owned())),
            Event::Eof => return Ok(()),
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
        }
    }
}

/// The value of an attribute, its prefix aside.
pub(super) fn attribute(element: &BytesStart<'_>, name: &str) -> Option<String> {
    // A check for doubled names would take a time that grows with their square.
    let mut attributes = element.attributes();
    attributes.with_checks(false);
    let found = attributes.flatten().find(|attribute| attribute.key.local_name().into_inner() == name)?;
    found.normalized_value(XmlVersion::default()).ok().map(std::borrow::Cow::into_owned)
}
