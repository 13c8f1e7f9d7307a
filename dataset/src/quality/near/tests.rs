use super::*;

/// Texts of a seeded generator: rows of words, some of them repeated with small changes.
fn texts(count: usize) -> Vec<String> {
    let mut state = 7_u64;
    let mut draw = |below: u64| {
        state = super::super::words::mixed(state.wrapping_add(0x9e37_79b9_7f4a_7c15));
        state % below
    };
    let mut texts: Vec<Vec<String>> = Vec::new();
    for index in 0..count {
        let words = if index > 3 && draw(3) == 0 {
            let mut words = texts[draw(index as u64) as usize].clone();
            for _ in 0..draw(4) {
                let place = draw(words.len() as u64) as usize;
                words[place] = format!("other{}", draw(50));
            }
            words
        } else {
            let length = [8, 30, 90][draw(3) as usize];
            (0..length)
                .map(|_| format!("w{}", draw(400)).replace(|c: char| c.is_ascii_digit() && c > '4', "x"))
                .collect()
        };
        texts.push(words);
    }
    texts.iter().map(|words| words.join(" ")).collect()
}

fn samples<'a>(ids: &'a [String], texts: &'a [String]) -> Vec<Sample<'a>> {
    ids.iter().zip(texts).map(|(id, text)| Sample::pair(id, text, "")).collect()
}

fn ids(count: usize) -> Vec<String> {
    (0..count).map(|index| format!("row-{index}")).collect()
}

/// Every row against every kept one.
fn plain(samples: &[Sample<'_>], threshold: f64) -> Vec<Option<Duplicate>> {
    let mut kept: Vec<(&str, Fingerprint)> = Vec::new();
    let mut found = Vec::new();
    for sample in samples {
        let fingerprint = Fingerprint::new(sample, Compared::Conversation);
        let mut best: Option<Duplicate> = None;
        for (id, other) in &kept {
            let similarity = fingerprint.similarity(other);
            if similarity >= threshold && best.as_ref().is_none_or(|best| similarity > best.similarity) {
                best = Some(Duplicate { kept: (*id).to_owned(), similarity });
            }
        }
        if best.is_none() {
            kept.push((sample.id, fingerprint));
        }
        found.push(best);
    }
    found
}

#[test]
fn bands_find_what_comparing_all_pairs_finds() {
    let (ids, texts) = (ids(1500), texts(1500));
    let samples = samples(&ids, &texts);
    let expected = plain(&samples, 0.8);
    let found = NearDuplicates::new(0.8, Compared::default()).add_all(&samples).unwrap();
    let duplicates = expected.iter().flatten().count();
    assert!((150..600).contains(&duplicates), "{duplicates}");
    let different = expected.iter().zip(&found).filter(|(a, b)| a.is_some() != b.is_some()).count();
    // One pair in a hundred at the threshold, fewer above it, may not meet.
    assert!(different * 100 <= duplicates, "{different} of {duplicates}");
}

#[test]
fn neither_threads_nor_portions_nor_the_place_of_shingles_matter() {
    let folder = tempfile::tempdir().unwrap();
    let (ids, texts) = (ids(600), texts(600));
    let samples = samples(&ids, &texts);
    let expected = NearDuplicates::new(0.8, Compared::default()).add_all(&samples).unwrap();
    for threads in [1, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let path = folder.path().join("rows.part");
        let mut known = NearDuplicates::new(0.8, Compared::default()).with_scratch(&path).unwrap();
        let found: Vec<_> = pool.install(|| samples.chunks(37).flat_map(|some| known.add_all(some).unwrap()).collect());
        assert_eq!(found, expected);
        drop(known);
        assert!(!path.exists());
    }
}

#[test]
fn earlier_runs_are_known_and_a_repeated_run_is_not_its_own_twin() {
    let folder = tempfile::tempdir().unwrap();
    let index = folder.path().join("deep/known.index");
    let (ids, texts) = (ids(300), texts(300));
    let samples = samples(&ids, &texts);
    let new = |source: &str| NearDuplicates::new(0.8, Compared::default()).with_index(&index, source).unwrap();
    let mut first = new("first");
    let found = first.add_all(&samples[..200]).unwrap();
    first.append_to(&index).unwrap();
    let bytes = std::fs::read(&index).unwrap();
    let mut again = new("first");
    assert_eq!(again.add_all(&samples[..200]).unwrap(), found);
    again.append_to(&index).unwrap();
    let mut second = new("second");
    assert_eq!(second.kept(), first.kept());
    assert!(second.add_all(&samples[..200]).unwrap().iter().all(Option::is_some));
    // In one go or in two runs: the same verdicts.
    let whole = NearDuplicates::new(0.8, Compared::default()).add_all(&samples).unwrap();
    assert_eq!(second.add_all(&samples[200..]).unwrap(), whole[200..]);

    for length in [bytes.len() - 1, bytes.len() - 200] {
        std::fs::write(&index, &bytes[..length]).unwrap();
        let mut cut = new("second");
        assert!(cut.kept() < first.kept() && cut.kept() + 40 > first.kept());
        cut.add_all(&samples[200..]).unwrap();
        cut.append_to(&index).unwrap();
        assert!(new("third").kept() >= cut.kept());
    }
    let mut broken = bytes.clone();
    broken[100] ^= 1;
    std::fs::write(&index, &broken).unwrap();
    let error = NearDuplicates::new(0.8, Compared::default()).with_index(&index, "x").unwrap_err().to_string();
    assert!(error.contains("known.index") && error.contains("damaged"), "{error}");
    std::fs::write(&index, "{\"a\": 1}").unwrap();
    let error = NearDuplicates::new(0.8, Compared::default()).with_index(&index, "x").unwrap_err().to_string();
    assert!(error.contains("not an index"), "{error}");
}

#[test]
fn questions_about_one_passage_are_no_twins() {
    let passage = texts(40).join(" ");
    let (first, second) =
        (format!("{passage}\n\nWho wrote the letter?"), format!("{passage}\n\nWhere does the boat lie at night?"));
    let again = format!("{passage}\n\nWho wrote the  letter ?");
    let samples = [
        Sample::pair("a", &first, "Anna did."),
        Sample::pair("b", &second, "In the harbour."),
        Sample::pair("c", &again, "anna did"),
    ];
    let found = NearDuplicates::new(0.8, Compared::default()).add_all(&samples).unwrap();
    assert_eq!(found[..2], [None, None]);
    assert_eq!(found[2].as_ref().unwrap().reason(), "near-duplicate: 1.00 like a");
}

#[test]
fn the_question_alone_may_be_compared() {
    let samples = [
        Sample::pair("a", "What lives in the old pond?", "A frog lives there, and two ducks."),
        Sample::pair("b", "what lives in the OLD pond", "Nothing that anybody has ever seen."),
    ];
    assert_eq!(NearDuplicates::new(0.8, Compared::Conversation).add_all(&samples).unwrap(), [None, None]);
    let found = NearDuplicates::new(0.8, Compared::Question).add_all(&samples).unwrap();
    assert_eq!(found[1], Some(Duplicate { kept: "a".into(), similarity: 1.0 }));
}

#[test]
fn rows_keep_the_reason() {
    let row = |id: &str, question: &str, verdict| Row {
        id: id.into(),
        turns: vec![crate::Turn::new("user", question), crate::Turn::new("assistant", "A frog lives there.")],
        verdict,
        ..Row::default()
    };
    let mut rows = [
        row("a", "What lives in the pond?", Verdict::Rejected),
        row("b", "What lives in the pond?", Verdict::Accepted),
        row("c", "What lives in the  pond", Verdict::Accepted),
        row("", "", Verdict::Accepted),
    ];
    reject_near_duplicates(&mut rows, &mut NearDuplicates::new(0.8, Compared::default())).unwrap();
    let verdicts: Vec<bool> = rows.iter().map(|row| row.verdict == Verdict::Accepted).collect();
    assert_eq!(verdicts, [false, true, false, true]);
    assert_eq!(rows[2].reason, "near-duplicate: 1.00 like b");
    assert_eq!(rows[2].reason_category(), "near-duplicate");
}
