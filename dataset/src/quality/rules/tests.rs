//! Each rule with rows that it refuses, and with rows that look like them and are right.

use super::*;

const QUESTION: &str = "How do I keep a pond clean in summer?";
const GOOD: &str = "Skim leaves off the surface every few days, and keep a third of it in the shade. Add a pump if the water \
                    stands still. Feed the fish less than you think, since what they leave feeds the algae.";

fn check(rule: Rule, question: &str, answer: &str, known: &Known<'_>) -> Option<String> {
    let sample = Sample::pair("", question, answer);
    Rules::new(vec![rule], Bounds::default()).check(&sample, known).map(|breach| breach.reason())
}

/// The rule refuses each of these, and no other rule's question or answer stands in the way.
fn refused(rule: Rule, rows: &[(&str, &str)]) {
    for (question, answer) in rows {
        let reason = check(rule, question, answer, &Known::default());
        let reason = reason.unwrap_or_else(|| panic!("{} lets pass: {question} / {answer}", rule.name()));
        assert!(reason.starts_with(&format!("{}: ", rule.category())), "{reason}");
    }
}

/// No rule at all refuses any of these.
fn kept(rows: &[(&str, &str)]) {
    for (question, answer) in rows {
        let breach = Rules::default().check(&Sample::pair("", question, answer), &Known::default());
        assert_eq!(breach, None, "{question} / {answer}");
    }
}

#[test]
fn names_lead_back() {
    for rule in Rule::ALL {
        assert_eq!(Rule::from_name(rule.name()), Some(rule));
        assert_eq!(serde_json::to_string(&rule).unwrap(), format!("\"{}\"", rule.name()));
    }
    assert_eq!(Rule::from_name("other"), None);
}

#[test]
fn lengths() {
    let long = "word ".repeat(3001);
    let huge = "w ".repeat(17_000);
    let unbroken = "a1".repeat(600);
    refused(
        Rule::Length,
        &[
            (QUESTION, ""),
            (QUESTION, " \n"),
            (QUESTION, &long),
            (&long, GOOD),
            (QUESTION, &huge),
            (QUESTION, &unbroken),
            ("?", GOOD),
        ],
    );
    kept(&[
        (QUESTION, GOOD),
        ("2 + 2?", "4"),
        ("Which sign means danger?", "⚠"),
        ("水は何度で沸騰しますか?", "百度です。"),
    ]);
    let strict = Bounds { answer_words: 3, ..Bounds::default() };
    let breach = Rules::new(vec![Rule::Length], strict).check(&Sample::pair("", QUESTION, "Yes."), &Known::default());
    assert_eq!(breach.unwrap().reason(), "length: answer of 1 words, fewer than 3");
    // Each letter is a word where words are not parted.
    assert_eq!(check(Rule::Length, QUESTION, "水", &Known::default()), None);
}

#[test]
fn questions() {
    refused(
        Rule::NoQuestion,
        &[
            ("???", GOOD),
            ("...", GOOD),
            ("Question 3", GOOD),
            ("[Question]", GOOD),
            ("N/A", GOOD),
            ("None.", GOOD),
            ("Given the text, which of the following,", GOOD),
            ("What did the frog say to the (", GOOD),
        ],
    );
    kept(&[
        (
            "Write a haiku about ponds",
            "Still pond at evening,\na frog waits between two leaves,\nthe moon drops its coin.",
        ),
        ("Name the capital:", "Paris"),
        ("Τι ώρα είναι;", "Τρεις το μεσημέρι."),
        ("Question 3 is hard. Can you help with it?", "Of course: which book is it from?"),
        ("7", "A number that is prime."),
    ]);
    let marked = Known { question_mark: true, ..Known::default() };
    assert!(check(Rule::NoQuestion, "Describe the pond.", GOOD, &marked).is_some());
    assert_eq!(check(Rule::NoQuestion, "A frog sat.\n\nWhere did it sit?", GOOD, &marked), None);
    assert_eq!(check(Rule::NoQuestion, "池はどこですか？", GOOD, &marked), None);
}

#[test]
fn echoes() {
    refused(
        Rule::Echo,
        &[
            (QUESTION, "how do I keep a pond clean in summer"),
            ("Is it?", "Is it?"),
            (QUESTION, "How do I keep a pond clean in summertime?"),
        ],
    );
    kept(&[
        ("Is the pond deep or shallow?", "Shallow."),
        ("Which word is longer, frog or toadstool?", "toadstool"),
        ("Correct this sentence: he go to the pond yesterday evening.", "He went to the pond yesterday evening."),
        (
            "How do I keep a pond clean in summer?",
            "To keep a pond clean in summer, skim the leaves off and shade a third of it.",
        ),
    ]);
}

#[test]
fn refusals() {
    refused(
        Rule::Refusal,
        &[
            (QUESTION, "I'm sorry, but I can't help with that."),
            (QUESTION, "I’m sorry, but as a gardener's helper, I cannot say."),
            (QUESTION, "I am unable to provide this information."),
            (QUESTION, "Unfortunately, I do not have access to current weather data."),
            (QUESTION, "\"I cannot answer this question from the text.\""),
            (QUESTION, "Sorry, I couldn't find an answer."),
            (QUESTION, "Es tut mir leid, aber das kann ich nicht sagen."),
            (QUESTION, "Je suis désolé, mais je ne peux pas répondre."),
            (QUESTION, "Lo siento, pero no puedo ayudar con eso."),
        ],
    );
    kept(&[
        ("Write the end of a letter.", "I cannot wait to see you all again in May. Yours, Anna"),
        (
            "Write an apology for a late parcel.",
            "I am sorry that your parcel came late. We have sent a second one today.",
        ),
        ("What does the sign say?", "It says: I'm sorry, but I can't open before nine."),
        ("Wie sagt man ab?", "Es tut mir leid, am Montag geht es nicht, aber am Dienstag gern."),
    ]);
}

#[test]
fn leaks() {
    refused(
        Rule::Leak,
        &[
            (QUESTION, "Skim it.<|im_end|>\n<|im_start|>user"),
            (QUESTION, "[/INST] Skim it."),
            (QUESTION, "<start_of_turn>model\nSkim it."),
            ("<|user|> How deep is it?", GOOD),
            (QUESTION, "Skim it.\n\nQuestion: How deep is it?\nAnswer: A metre."),
            (QUESTION, "Skim it.\n\nHuman: thanks"),
            (QUESTION, "**Question 2:** How deep is it?"),
            (QUESTION, "### Response:\nSkim it."),
            (QUESTION, "As an AI language model, I would skim it."),
            (QUESTION, "As an AI, I have no pond."),
            (QUESTION, "Dear [insert name], skim it."),
            (QUESTION, "The pond of {{ name }} is clean."),
            (QUESTION, "[Answer] Skim it."),
        ],
    );
    kept(&[
        ("What does <|im_end|> mean?", "The token <|im_end|> ends a turn."),
        ("How do I print a name in Jinja?", "Write `{{ name }}`:\n```\n{{ name }}\n```"),
        ("Which parts has a quiz card?", "It has two: the question: what is asked, and the answer."),
        ("Who was first?", "She was hired as an aide, then as an airport manager."),
        ("Turn this into a dialogue: User: hi", "User: hi\nBot: hello"),
        ("What is a tag?", "Text between < and > such as <b>."),
    ]);
    let prompt = "You are a careful writer who makes questions about the text below and never uses outside knowledge.";
    let known = Known { instructions: Some(prompt), ..Known::default() };
    let answer = "As said, you are a careful writer who makes questions about the text below. So: skim it.";
    assert!(check(Rule::Leak, QUESTION, answer, &known).unwrap().contains("the answer repeats the prompt"));
    assert_eq!(check(Rule::Leak, QUESTION, GOOD, &known), None);
    assert_eq!(check(Rule::Leak, answer, answer, &known), None, "the question asks about these words");
    let turns = vec![("system", prompt), ("user", QUESTION), ("assistant", answer)];
    let sample = Sample { turns, ..Sample::default() };
    assert!(Rules::default().check(&sample, &Known::default()).is_some());
}

#[test]
fn loops_are_repetition() {
    let sentence = "The pond is clean because the pond is kept clean by those who clean it. ".repeat(4);
    let alternating: String = (0..6)
        .map(|i| {
            if i % 2 == 0 {
                "The pond has two frogs and one old duck in it. "
            } else {
                "Fish swim around in it all day long without rest. "
            }
        })
        .collect();
    let scattered = format!(
        "Clean the filter of the pump every week with cold water. {0} Also {0} And {0} Finally {0}",
        "clean the filter of the pump every single week with cold water from the tap, then dry it."
    );
    refused(
        Rule::Repetition,
        &[
            (QUESTION, &"very ".repeat(30)),
            (QUESTION, &format!("It is {}clean.", "very, ".repeat(20))),
            (QUESTION, &sentence),
            (QUESTION, &alternating),
            (QUESTION, &scattered),
            (
                QUESTION,
                "- skim the leaves\n- feed the fish\n- skim the leaves\n- feed the fish\n- skim the leaves\n- feed the fish",
            ),
            (QUESTION, &format!("W{}w!", "o".repeat(40))),
            (QUESTION, &"池はきれいです。".repeat(5)),
        ],
    );
}

#[test]
fn lists_tables_poems_and_code_are_no_repetition() {
    let list: String = ["leaves", "algae", "mud", "dead fish", "weeds", "stones"]
        .map(|what| format!("- To remove {what} from the pond, use a net that is made for {what}.\n"))
        .concat();
    let table = "| month | work |\n|---|---|\n| May | skim it |\n| June | skim it |\n| July | feed less |\n| August | feed less |";
    let poem =
        "Row, row, row your boat,\nGently down the stream.\nMerrily, merrily, merrily, merrily,\nLife is but a dream.";
    let code = format!("Like this:\n```c\n{}```\nThat is all.", "    free(pond);\n".repeat(12));
    let zeros = format!("The matrix is {}.", "0 ".repeat(24).trim_end());
    kept(&[
        (QUESTION, &list),
        ("Make a table of pond work.", table),
        ("Write out the song.", poem),
        ("Free it many times.", &code),
        ("Give a zero matrix.", &zeros),
        ("Laugh!", "Ha ha ha ha ha!"),
        ("Spell it slowly.", "Nooooooo!"),
        ("List the days.", "Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday"),
    ]);
}

#[test]
fn cut_answers() {
    refused(
        Rule::Truncated,
        &[
            (
                QUESTION,
                "Skim the leaves off. Shade a third of it. If the water stands still, you should also add a pump that",
            ),
            (QUESTION, "Do this:\n```sh\nskim --all"),
            (QUESTION, "池の葉を取ります。日陰を作ります。水が動かないときは次にポンプを"),
        ],
    );
    kept(&[
        (QUESTION, "Skim it"),
        (
            QUESTION,
            "You need a net. Then do this. In short:\n\n- skim the leaves that lie on the water\n- shade a third of the whole pond",
        ),
        ("Sign a letter.", "Thank you. See you soon.\n\nAnna Berg"),
        (
            "Write a poem without dots.",
            "still pond at evening\na frog waits between two green leaves\nthe moon drops its coin",
        ),
        (
            "Which file?",
            "It is version 1.2.3 of the file at example.org/pond and you find it under the name of the pond",
        ),
    ]);
    let known = Known { out_of_tokens: true, ..Known::default() };
    assert_eq!(check(Rule::Truncated, QUESTION, "All.", &known).unwrap(), "cut off: the teacher had no tokens left");
}

#[test]
fn languages() {
    let texts = [
        ("en", GOOD),
        (
            "de",
            "Nehmen Sie alle paar Tage die Blätter von der Oberfläche und halten Sie ein Drittel im Schatten. Füttern Sie die Fische \
                weniger, als Sie denken.",
        ),
        (
            "fr",
            "Enlevez les feuilles de la surface tous les quelques jours et gardez un tiers du bassin à l'ombre. Nourrissez les poissons \
                moins que vous ne le pensez.",
        ),
        (
            "ru",
            "Каждые несколько дней убирайте листья с поверхности и держите треть пруда в тени. Кормите рыб меньше, чем вам кажется.",
        ),
        ("zh", "每隔几天清理水面上的叶子，让三分之一的池塘处于阴凉处。喂鱼的量要比你想的少。"),
        ("ja", "数日ごとに水面の葉を取り除き、池の三分の一を日陰にしてください。魚の餌は思ったより少なくします。"),
        (
            "es",
            "Retire las hojas de la superficie cada pocos días y mantenga un tercio del estanque a la sombra. Alimente a los peces \
                menos de lo que piensa.",
        ),
    ];
    for (code, text) in texts {
        for (other, _) in texts {
            let known = Known { language: Language::from_name(other), ..Known::default() };
            let found = check(Rule::Language, QUESTION, text, &known);
            // Chinese in Japanese is told by trigrams only, of which Chinese has none.
            let told = code != other && (code, other) != ("zh", "ja");
            assert_eq!(found.is_some(), told, "{code} where {other} is asked for: {found:?}");
        }
    }
    let english = Known { language: Language::from_name("English"), ..Known::default() };
    let keeps = [
        "42",
        "Café",
        "東京",
        "π ≈ 3.14",
        "Bonjour means good day.",
        "`print('Привет, мир, как дела сегодня')`",
        "In German: Guten Tag, wie geht es Ihnen heute?",
        "SELECT name FROM ponds WHERE depth > 3 ORDER BY name",
    ];
    for text in keeps {
        assert_eq!(check(Rule::Language, QUESTION, text, &english), None, "{text}");
    }
    assert_eq!(Language::from_name("en-GB"), Language::from_name("eng"));
    assert_eq!(Language::from_name("zh-Hant").unwrap().name(), "Mandarin");
    assert_eq!(Language::from_name("Klingon"), None);
}

#[test]
fn copies_of_seeds() {
    let seeds = Seeds::new([("How deep is the old pond?", "It is a metre deep."), ("Who cleans it?", GOOD)]);
    let known = Known { seeds: Some(&seeds), ..Known::default() };
    let check = |question, answer| check(Rule::SeedCopy, question, answer, &known);
    assert_eq!(check("how deep is  the old pond", "Two metres.").unwrap(), "copy of a seed: the question is a seed's");
    assert!(check("So how deep is the old pond?", "Two metres.").unwrap().contains("seed 1"));
    assert!(check("What shall I do?", GOOD).unwrap().contains("seed 2"));
    assert_eq!(check("How wide is the new lake?", "It is a metre deep."), None);
}

#[test]
fn the_first_broken_rule_is_the_reason() {
    let sample = Sample::pair("", "N/A", "I'm sorry, but I can't help with that.");
    let breach =
        |rules| Rules::new(rules, Bounds::default()).check(&sample, &Known::default()).map(|breach| breach.rule);
    assert_eq!(breach(vec![Rule::Refusal, Rule::NoQuestion]), Some(Rule::NoQuestion));
    assert_eq!(breach(vec![Rule::Refusal]), Some(Rule::Refusal));
    assert_eq!(breach(vec![]), None);
    // A text that is only learned has no question.
    let text = Sample { turns: vec![("assistant", GOOD)], ..Sample::default() };
    assert_eq!(Rules::default().check(&text, &Known::default()), None);
}

mod any_text {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn no_rule_fails(question in "\\PC{0,80}|(?s).{0,60}", answer in "\\PC{0,200}|(?s).{0,100}|([ab`\n.|] ?){0,120}") {
            let seeds = Seeds::new([(question.as_str(), answer.as_str())]);
            for language in ["en", "ja", "sr"] {
                let known = Known {
                    language: Language::from_name(language),
                    seeds: Some(&seeds),
                    instructions: Some(&question),
                    ..Known::default()
                };
                for rule in Rule::ALL {
                    if let Some(reason) = check(rule, &question, &answer, &known) {
                        prop_assert!(reason.starts_with(rule.category()));
                    }
                }
            }
        }
    }
}
