//! Names of glyphs, as fonts give them, and the characters that they stand for.

/// The text of a glyph's name; none for names that tell nothing (`g12`, `cid34`).
pub(super) fn text(name: &str) -> Option<String> {
    // What follows a point is a variant: `a.sc` is an `a`.
    let name = name.split('.').next().filter(|name| !name.is_empty())?;
    if let Ok(index) = NAMES.binary_search_by(|(known, _)| (*known).cmp(name)) {
        return Some(NAMES[index].1.to_owned());
    }
    let mut letters = name.chars();
    if let (Some(letter), None) = (letters.next(), letters.next())
        && letter.is_ascii_alphabetic()
    {
        return Some(letter.to_string());
    }
    let digits = name.strip_prefix("uni").filter(|digits| digits.len() == 4).or(name.strip_prefix('u'))?;
    if !(4..=6).contains(&digits.len()) {
        return None;
    }
    char::from_u32(u32::from_str_radix(digits, 16).ok()?).map(String::from)
}

/// Sorted by name.
#[rustfmt::skip]
const NAMES: [(&str, &str); 476] = [
    ("AE", "Æ"), ("Aacute", "Á"), ("Abreve", "Ă"), ("Acaron", "Ǎ"), ("Acircumflex", "Â"), ("Adieresis", "Ä"),
    ("Adotaccent", "Ȧ"), ("Agrave", "À"), ("Alpha", "Α"), ("Amacron", "Ā"), ("Aogonek", "Ą"), ("Aring", "Å"),
    ("Atilde", "Ã"), ("Bdotaccent", "Ḃ"), ("Beta", "Β"), ("Cacute", "Ć"), ("Ccaron", "Č"), ("Ccedilla", "Ç"),
    ("Ccircumflex", "Ĉ"), ("Cdotaccent", "Ċ"), ("Chi", "Χ"), ("Dcaron", "Ď"), ("Dcedilla", "Ḑ"), ("Dcroat", "Đ"),
    ("Ddotaccent", "Ḋ"), ("Delta", "Δ"), ("Eacute", "É"), ("Ebreve", "Ĕ"), ("Ecaron", "Ě"), ("Ecedilla", "Ȩ"),
    ("Ecircumflex", "Ê"), ("Edieresis", "Ë"), ("Edotaccent", "Ė"), ("Egrave", "È"), ("Emacron", "Ē"),
    ("Eogonek", "Ę"), ("Epsilon", "Ε"), ("Eta", "Η"), ("Eth", "Ð"), ("Etilde", "Ẽ"), ("Euro", "€"),
    ("Fdotaccent", "Ḟ"), ("Gacute", "Ǵ"), ("Gamma", "Γ"), ("Gbreve", "Ğ"), ("Gcaron", "Ǧ"), ("Gcedilla", "Ģ"),
    ("Gcircumflex", "Ĝ"), ("Gdotaccent", "Ġ"), ("Gmacron", "Ḡ"), ("Hcaron", "Ȟ"), ("Hcedilla", "Ḩ"),
    ("Hcircumflex", "Ĥ"), ("Hdieresis", "Ḧ"), ("Hdotaccent", "Ḣ"), ("Iacute", "Í"), ("Ibreve", "Ĭ"), ("Icaron", "Ǐ"),
    ("Icircumflex", "Î"), ("Idieresis", "Ï"), ("Idotaccent", "İ"), ("Igrave", "Ì"), ("Imacron", "Ī"),
    ("Iogonek", "Į"), ("Iota", "Ι"), ("Itilde", "Ĩ"), ("Jcircumflex", "Ĵ"), ("Kacute", "Ḱ"), ("Kappa", "Κ"),
    ("Kcaron", "Ǩ"), ("Kcedilla", "Ķ"), ("Lacute", "Ĺ"), ("Lambda", "Λ"), ("Lcaron", "Ľ"), ("Lcedilla", "Ļ"),
    ("Lslash", "Ł"), ("Macute", "Ḿ"), ("Mdotaccent", "Ṁ"), ("Mu", "Μ"), ("Nacute", "Ń"), ("Ncaron", "Ň"),
    ("Ncedilla", "Ņ"), ("Ndotaccent", "Ṅ"), ("Ngrave", "Ǹ"), ("Ntilde", "Ñ"), ("Nu", "Ν"), ("OE", "Œ"),
    ("Oacute", "Ó"), ("Obreve", "Ŏ"), ("Ocaron", "Ǒ"), ("Ocircumflex", "Ô"), ("Odieresis", "Ö"), ("Odotaccent", "Ȯ"),
    ("Ograve", "Ò"), ("Ohungarumlaut", "Ő"), ("Omacron", "Ō"), ("Omega", "Ω"), ("Omicron", "Ο"), ("Oogonek", "Ǫ"),
    ("Oslash", "Ø"), ("Otilde", "Õ"), ("Pacute", "Ṕ"), ("Pdotaccent", "Ṗ"), ("Phi", "Φ"), ("Pi", "Π"), ("Psi", "Ψ"),
    ("Racute", "Ŕ"), ("Rcaron", "Ř"), ("Rcedilla", "Ŗ"), ("Rdotaccent", "Ṙ"), ("Rho", "Ρ"), ("Sacute", "Ś"),
    ("Scaron", "Š"), ("Scedilla", "Ş"), ("Scircumflex", "Ŝ"), ("Scommaaccent", "Ș"), ("Sdotaccent", "Ṡ"),
    ("Sigma", "Σ"), ("Tau", "Τ"), ("Tcaron", "Ť"), ("Tcedilla", "Ţ"), ("Tcommaaccent", "Ț"), ("Tdotaccent", "Ṫ"),
    ("Theta", "Θ"), ("Thorn", "Þ"), ("Uacute", "Ú"), ("Ubreve", "Ŭ"), ("Ucaron", "Ǔ"), ("Ucircumflex", "Û"),
    ("Udieresis", "Ü"), ("Ugrave", "Ù"), ("Uhungarumlaut", "Ű"), ("Umacron", "Ū"), ("Uogonek", "Ų"), ("Upsilon", "Υ"),
    ("Uring", "Ů"), ("Utilde", "Ũ"), ("Vtilde", "Ṽ"), ("Wacute", "Ẃ"), ("Wcircumflex", "Ŵ"), ("Wdieresis", "Ẅ"),
    ("Wdotaccent", "Ẇ"), ("Wgrave", "Ẁ"), ("Xdieresis", "Ẍ"), ("Xdotaccent", "Ẋ"), ("Xi", "Ξ"), ("Yacute", "Ý"),
    ("Ycircumflex", "Ŷ"), ("Ydieresis", "Ÿ"), ("Ydotaccent", "Ẏ"), ("Ygrave", "Ỳ"), ("Ymacron", "Ȳ"), ("Ytilde", "Ỹ"),
    ("Zacute", "Ź"), ("Zcaron", "Ž"), ("Zcircumflex", "Ẑ"), ("Zdotaccent", "Ż"), ("Zeta", "Ζ"), ("aacute", "á"),
    ("abreve", "ă"), ("acaron", "ǎ"), ("acircumflex", "â"), ("acute", "´"), ("adieresis", "ä"), ("adotaccent", "ȧ"),
    ("ae", "æ"), ("agrave", "à"), ("alpha", "α"), ("amacron", "ā"), ("ampersand", "&"), ("aogonek", "ą"),
    ("approxequal", "≈"), ("aring", "å"), ("arrowdblleft", "⇐"), ("arrowdblright", "⇒"), ("arrowdown", "↓"),
    ("arrowleft", "←"), ("arrowright", "→"), ("arrowup", "↑"), ("asciicircum", "^"), ("asciitilde", "~"),
    ("asterisk", "*"), ("asteriskmath", "∗"), ("at", "@"), ("atilde", "ã"), ("backslash", "\\"), ("bar", "|"),
    ("bdotaccent", "ḃ"), ("beta", "β"), ("braceleft", "{"), ("braceright", "}"), ("bracketleft", "["),
    ("bracketright", "]"), ("breve", "˘"), ("brokenbar", "¦"), ("bullet", "•"), ("cacute", "ć"), ("caron", "ˇ"),
    ("ccaron", "č"), ("ccedilla", "ç"), ("ccircumflex", "ĉ"), ("cdotaccent", "ċ"), ("cedilla", "¸"), ("cent", "¢"),
    ("checkmark", "✓"), ("chi", "χ"), ("circumflex", "ˆ"), ("colon", ":"), ("comma", ","), ("copyright", "©"),
    ("currency", "¤"), ("dagger", "†"), ("daggerdbl", "‡"), ("dcaron", "ď"), ("dcedilla", "ḑ"), ("dcroat", "đ"),
    ("ddotaccent", "ḋ"), ("degree", "°"), ("delta", "δ"), ("dieresis", "¨"), ("divide", "÷"), ("dollar", "$"),
    ("dotaccent", "˙"), ("dotlessi", "ı"), ("eacute", "é"), ("ebreve", "ĕ"), ("ecaron", "ě"), ("ecedilla", "ȩ"),
    ("ecircumflex", "ê"), ("edieresis", "ë"), ("edotaccent", "ė"), ("egrave", "è"), ("eight", "8"), ("element", "∈"),
    ("ellipsis", "…"), ("emacron", "ē"), ("emdash", "—"), ("endash", "–"), ("eogonek", "ę"), ("epsilon", "ε"),
    ("epsilon1", "ε"), ("equal", "="), ("equivalence", "≡"), ("eta", "η"), ("eth", "ð"), ("etilde", "ẽ"),
    ("exclam", "!"), ("exclamdown", "¡"), ("existential", "∃"), ("f_f", "ff"), ("f_f_i", "ffi"), ("f_f_l", "ffl"),
    ("f_i", "fi"), ("f_l", "fl"), ("f_t", "ft"), ("fdotaccent", "ḟ"), ("ff", "ff"), ("ffi", "ffi"), ("ffl", "ffl"),
    ("fi", "fi"), ("filledbox", "■"), ("five", "5"), ("fl", "fl"), ("florin", "ƒ"), ("four", "4"), ("fraction", "⁄"),
    ("gacute", "ǵ"), ("gamma", "γ"), ("gbreve", "ğ"), ("gcaron", "ǧ"), ("gcedilla", "ģ"), ("gcircumflex", "ĝ"),
    ("gdotaccent", "ġ"), ("germandbls", "ß"), ("gmacron", "ḡ"), ("gradient", "∇"), ("grave", "`"), ("greater", ">"),
    ("greaterequal", "≥"), ("guillemotleft", "«"), ("guillemotright", "»"), ("guilsinglleft", "‹"),
    ("guilsinglright", "›"), ("hcaron", "ȟ"), ("hcedilla", "ḩ"), ("hcircumflex", "ĥ"), ("hdieresis", "ḧ"),
    ("hdotaccent", "ḣ"), ("hungarumlaut", "˝"), ("hyphen", "-"), ("iacute", "í"), ("ibreve", "ĭ"), ("icaron", "ǐ"),
    ("icircumflex", "î"), ("idieresis", "ï"), ("igrave", "ì"), ("imacron", "ī"), ("infinity", "∞"), ("integral", "∫"),
    ("intersection", "∩"), ("iogonek", "į"), ("iota", "ι"), ("itilde", "ĩ"), ("jcaron", "ǰ"), ("jcircumflex", "ĵ"),
    ("kacute", "ḱ"), ("kappa", "κ"), ("kcaron", "ǩ"), ("kcedilla", "ķ"), ("lacute", "ĺ"), ("lambda", "λ"),
    ("lcaron", "ľ"), ("lcedilla", "ļ"), ("less", "<"), ("lessequal", "≤"), ("logicalnot", "¬"), ("lozenge", "◊"),
    ("lslash", "ł"), ("macron", "¯"), ("macute", "ḿ"), ("mdotaccent", "ṁ"), ("minus", "−"), ("mu", "µ"),
    ("multiply", "×"), ("nabla", "∇"), ("nacute", "ń"), ("nbspace", " "), ("ncaron", "ň"), ("ncedilla", "ņ"),
    ("ndotaccent", "ṅ"), ("ngrave", "ǹ"), ("nine", "9"), ("nonbreakingspace", " "), ("notequal", "≠"),
    ("ntilde", "ñ"), ("nu", "ν"), ("numbersign", "#"), ("oacute", "ó"), ("obreve", "ŏ"), ("ocaron", "ǒ"),
    ("ocircumflex", "ô"), ("odieresis", "ö"), ("odotaccent", "ȯ"), ("oe", "œ"), ("ogonek", "˛"), ("ograve", "ò"),
    ("ohungarumlaut", "ő"), ("omacron", "ō"), ("omega", "ω"), ("omicron", "ο"), ("one", "1"), ("onehalf", "½"),
    ("onequarter", "¼"), ("onesuperior", "¹"), ("oogonek", "ǫ"), ("openbullet", "◦"), ("ordfeminine", "ª"),
    ("ordmasculine", "º"), ("oslash", "ø"), ("otilde", "õ"), ("pacute", "ṕ"), ("paragraph", "¶"), ("parenleft", "("),
    ("parenright", ")"), ("partialdiff", "∂"), ("pdotaccent", "ṗ"), ("percent", "%"), ("period", "."),
    ("periodcentered", "·"), ("perthousand", "‰"), ("phi", "φ"), ("phi1", "ϕ"), ("pi", "π"), ("plus", "+"),
    ("plusminus", "±"), ("product", "∏"), ("propersubset", "⊂"), ("proportional", "∝"), ("psi", "ψ"),
    ("question", "?"), ("questiondown", "¿"), ("quotedbl", "\""), ("quotedblbase", "„"), ("quotedblleft", "“"),
    ("quotedblright", "”"), ("quoteleft", "‘"), ("quoteright", "’"), ("quotesinglbase", "‚"), ("quotesingle", "'"),
    ("racute", "ŕ"), ("radical", "√"), ("rcaron", "ř"), ("rcedilla", "ŗ"), ("rdotaccent", "ṙ"), ("registered", "®"),
    ("rho", "ρ"), ("ring", "˚"), ("sacute", "ś"), ("scaron", "š"), ("scedilla", "ş"), ("scircumflex", "ŝ"),
    ("scommaaccent", "ș"), ("sdotaccent", "ṡ"), ("section", "§"), ("semicolon", ";"), ("seven", "7"),
    ("sfthyphen", "-"), ("sigma", "σ"), ("sigma1", "ς"), ("similar", "∼"), ("six", "6"), ("slash", "/"),
    ("softhyphen", "-"), ("space", " "), ("square", "□"), ("sterling", "£"), ("summation", "∑"), ("t_i", "ti"),
    ("t_t", "tt"), ("tau", "τ"), ("tcaron", "ť"), ("tcedilla", "ţ"), ("tcommaaccent", "ț"), ("tdieresis", "ẗ"),
    ("tdotaccent", "ṫ"), ("theta", "θ"), ("theta1", "ϑ"), ("thorn", "þ"), ("three", "3"), ("threequarters", "¾"),
    ("threesuperior", "³"), ("tilde", "˜"), ("trademark", "™"), ("triangleright", "▷"), ("two", "2"),
    ("twosuperior", "²"), ("uacute", "ú"), ("ubreve", "ŭ"), ("ucaron", "ǔ"), ("ucircumflex", "û"), ("udieresis", "ü"),
    ("ugrave", "ù"), ("uhungarumlaut", "ű"), ("umacron", "ū"), ("underscore", "_"), ("union", "∪"),
    ("universal", "∀"), ("uogonek", "ų"), ("upsilon", "υ"), ("uring", "ů"), ("utilde", "ũ"), ("vtilde", "ṽ"),
    ("wacute", "ẃ"), ("wcircumflex", "ŵ"), ("wdieresis", "ẅ"), ("wdotaccent", "ẇ"), ("wgrave", "ẁ"), ("wring", "ẘ"),
    ("xdieresis", "ẍ"), ("xdotaccent", "ẋ"), ("xi", "ξ"), ("yacute", "ý"), ("ycircumflex", "ŷ"), ("ydieresis", "ÿ"),
    ("ydotaccent", "ẏ"), ("yen", "¥"), ("ygrave", "ỳ"), ("ymacron", "ȳ"), ("yring", "ẙ"), ("ytilde", "ỹ"),
    ("zacute", "ź"), ("zcaron", "ž"), ("zcircumflex", "ẑ"), ("zdotaccent", "ż"), ("zero", "0"), ("zeta", "ζ"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_give_their_characters() {
        assert!(NAMES.is_sorted_by(|a, b| a.0 < b.0));
        let of = |name| text(name).unwrap_or_default();
        assert_eq!(
            (of("Adieresis"), of("ffi"), of("a.sc"), of("A")),
            ("Ä".into(), "ffi".into(), "a".into(), "A".into())
        );
        assert_eq!(
            (of("uni20AC"), of("u1F600"), of("g12"), of(".notdef")),
            ("€".into(), "😀".into(), String::new(), String::new())
        );
    }
}
