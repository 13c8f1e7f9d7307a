//! Models of a Hugging Face hub, fetched by the binary from a server on loopback that breaks, refuses and lies.

#[path = "../binary/mod.rs"]
mod binary;
mod server;

use binary::{Bench, Said};
use serde_json::json;
use server::{COMMIT, Hub, Reply, Repository, ranged, refusal, stated_hash};
use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

const GGUF: &str = "tests/assets/architectures/qwen3.gguf";
const TOKEN: &str = "hf_secretsecret";

/// A repository of one GGUF file.
fn one_file() -> Repository {
    let model = fs::read(GGUF).expect("a model");
    Repository {
        files: vec![("README.md", b"# A\n".to_vec()), ("m-Q8_0.gguf", model)],
        card: json!({"license": "mit"}),
    }
}

fn model() -> Vec<u8> {
    fs::read(GGUF).expect("a model")
}

/// Runs `pipeline model ...` against a hub; its address is taken out of what it says.
fn said(bench: &Bench, hub: &Hub, token: bool, arguments: &[&str]) -> Said {
    let mut command = bench.command(arguments);
    command.env("HF_ENDPOINT", &hub.url);
    if token {
        command.env("HF_TOKEN", TOKEN);
    }
    let mut said = bench.said(&command.output().expect("the binary starts"));
    for text in [&mut said.out, &mut said.err] {
        assert!(!text.contains(TOKEN), "the token is shown: {text}");
        *text = text.replace(&hub.url, "[hub]").replace(hub.url.trim_start_matches("http://"), "[host]");
    }
    said
}

fn get(bench: &Bench, hub: &Hub, reference: &str) -> Said {
    said(bench, hub, false, &["model", "get", reference])
}

/// The one unfinished download.
fn part(bench: &Bench) -> std::path::PathBuf {
    bench.path(&format!("cache/fetching/hub/{}.part", stated_hash("m.gguf", &model())))
}

#[test]
fn a_file_is_fetched_once_listed_shown_verified_and_removed() {
    let bench = Bench::new();
    let repository = one_file();
    let hub = Hub::start(move |_, asked| repository.reply(asked));
    let reference = "hf:org/name:Q8_0";
    let first = get(&bench, &hub, reference);
    assert_eq!(first.code, 0, "{}", first.err);
    let again = get(&bench, &hub, reference);
    assert_eq!((again.code, hub.files_asked()), (0, vec![("m-Q8_0.gguf".to_owned(), 0)]));
    let mut words = format!("-- get\n{}{}-- get again\n{}{}", first.err, first.out, again.err, again.out);
    for arguments in [
        &["model", "list"][..],
        &["model", "show", reference, "--template", "--tokens", "Hello <|im_end|>"],
        &["model", "verify", reference],
    ] {
        let said = said(&bench, &hub, false, arguments);
        assert_eq!(said.code, 0, "{arguments:?}: {}", said.err);
        words += &format!("-- {}\n{}", arguments[1], said.out);
    }
    let kept = first.out.lines().next().expect("a path").replace("[dir]", bench.text("").trim_end_matches('/'));
    let folder = fs::read_dir(bench.path("cache/models")).expect("models").flatten().next().expect("a model").path();
    let kept = folder.join(kept.rsplit('/').next().expect("a name"));
    let mut bytes = fs::read(&kept).expect("the model");
    assert!(bytes == model());
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&kept, bytes).expect("a damaged model");
    words +=
        &format!("-- verify a damaged one\n{}\n", said(&bench, &hub, false, &["model", "verify", reference]).refusal());
    for _ in 0..2 {
        let said = said(&bench, &hub, false, &["model", "rm", reference]);
        words += &format!("-- rm\n{}{}", said.out, said.err);
    }
    assert!(!kept.exists());
    insta::assert_snapshot!(words);
}

#[test]
fn a_folder_is_fetched_with_all_its_parts_and_opens() {
    let bench = Bench::new();
    let file =
        |name: &'static str| (name, fs::read(format!("tests/assets/architectures/qwen3/{name}")).unwrap_or_default());
    let mut files = vec![file("config.json"), file("model.safetensors"), file("tokenizer.json")];
    files.push(("pytorch_model.bin", vec![0; 10]));
    files.push(("empty.safetensors.txt", Vec::new()));
    files.push(("README.md", b"---\nlicense: other\n---\n".to_vec()));
    let card = json!({"license": "other", "license_name": "grove-1", "license_link": "LICENSE"});
    let repository = Repository { files, card };
    let hub = Hub::start(move |_, asked| repository.reply(asked));
    let fetched = get(&bench, &hub, "hf:org/name@main");
    assert_eq!(fetched.code, 0, "{}", fetched.err);
    let names: Vec<String> = hub.files_asked().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), 4, "{names:?}");
    assert!(!names.contains(&"pytorch_model.bin".to_owned()));
    let verified = said(&bench, &hub, false, &["model", "verify", "hf:org/name@main"]);
    insta::assert_snapshot!(format!("{}{}-- verify\n{}{}", fetched.err, fetched.out, verified.err, verified.out));
    assert!(fs::read_dir(bench.path("cache/fetching/hub")).expect("a folder").next().is_none(), "nothing is left over");
}

#[test]
fn a_killed_fetch_goes_on_where_it_was() {
    let bench = Bench::new();
    let (repository, model) = (one_file(), model());
    let half = model.len() / 2;
    let body = model.clone();
    let hub = Hub::start(move |number, asked| match number {
        1 => Reply::Part { from: 0, body: body.clone(), sent: half, stays: true },
        _ => repository.reply(asked),
    });
    let mut command = bench.command(&["model", "get", "hf:org/name"]);
    let mut child =
        command.env("HF_ENDPOINT", &hub.url).stderr(Stdio::null()).stdout(Stdio::null()).spawn().expect("a start");
    let begun = Instant::now();
    while fs::metadata(part(&bench)).map_or(0, |part| part.len()) < half as u64 {
        assert!(begun.elapsed() < Duration::from_mins(1), "half of the file never came");
        std::thread::sleep(Duration::from_millis(10));
    }
    let other = get(&bench, &hub, "hf:org/name");
    assert!(other.code == 75 && other.err.contains("another process is fetching"), "{}", other.err);
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    let second = get(&bench, &hub, "hf:org/name");
    assert_eq!(second.code, 0, "{}", second.err);
    let files = hub.files_asked();
    assert_eq!(files, [("m-Q8_0.gguf".to_owned(), 0), ("m-Q8_0.gguf".to_owned(), half)]);
    assert_eq!(said(&bench, &hub, false, &["model", "verify", "hf:org/name"]).code, 0);
}

#[test]
fn broken_connections_and_a_busy_hub_cost_time_only() {
    let bench = Bench::new();
    let (repository, body) = (one_file(), model());
    let (third, length) = (body.len() / 3, body.len());
    let hub = Hub::start(move |number, asked| match number {
        0 => Reply::Whole(503, Vec::new(), Vec::new()),
        2 => Reply::Whole(429, vec![("retry-after", "1".into())], Vec::new()),
        3 => Reply::Part { from: 0, body: body.clone(), sent: third, stays: false },
        4 => Reply::Part { from: asked.from, body: body.clone(), sent: third, stays: false },
        _ => repository.reply(asked),
    });
    let fetched = get(&bench, &hub, "hf:org/name");
    assert_eq!(fetched.code, 0, "{}", fetched.err);
    let from: Vec<usize> = hub.files_asked().into_iter().map(|(_, from)| from).collect();
    assert_eq!(from, [0, 0, third, 2 * third]);
    assert!(length > 2 * third);
}

#[test]
fn a_hub_without_ranges_sends_the_whole_again_and_a_damaged_beginning_is_not_kept() {
    let model = model();
    for ranges in [false, true] {
        let bench = Bench::new();
        let repository = one_file();
        let hub = Hub::start(move |_, asked| match asked.from {
            from if from > 0 && !ranges => repository.reply(&server::Asked { from: 0, ..asked.clone() }),
            _ => repository.reply(asked),
        });
        let mut begun = model[..1000].to_vec();
        begun[500] ^= 1;
        let place = part(&bench);
        fs::create_dir_all(place.parent().expect("a folder")).expect("a folder");
        fs::write(place, begun).expect("a part");
        let fetched = get(&bench, &hub, "hf:org/name");
        assert_eq!(fetched.code, 0, "{}", fetched.err);
        let from: Vec<usize> = hub.files_asked().into_iter().map(|(_, from)| from).collect();
        assert_eq!(from, if ranges { vec![1000, 0] } else { vec![1000] });
        assert_eq!(said(&bench, &hub, false, &["model", "verify", "hf:org/name"]).code, 0);
    }
}

#[test]
fn the_token_goes_to_the_hub_and_to_nobody_else() {
    let bench = Bench::new();
    let store = Hub::start(|_, asked| ranged(asked, &model()));
    let (repository, address) = (one_file(), format!("{}/bucket/m?signature=s3cret", store.url));
    let hub = Hub::start(move |_, asked| match asked.path.contains("/resolve/") {
        true if asked.path.ends_with("again") => Reply::Whole(302, vec![("location", address.clone())], Vec::new()),
        true => Reply::Whole(307, vec![("location", format!("{}/again", asked.path))], Vec::new()),
        false => repository.reply(asked),
    });
    let fetched = said(&bench, &hub, true, &["model", "get", "hf:org/name", "--json"]);
    assert_eq!(fetched.code, 0, "{}", fetched.err);
    assert!(hub.asked().iter().all(|asked| asked.token.as_deref() == Some(&format!("Bearer {TOKEN}"))));
    assert!(store.asked().len() == 1 && store.asked()[0].token.is_none(), "{:?}", store.asked());
    let holds_token = |path: &std::path::Path| {
        fs::read(path).is_ok_and(|text| text.windows(TOKEN.len()).any(|part| part == TOKEN.as_bytes()))
    };
    for entry in fs::read_dir(bench.path("cache/references")).expect("references").flatten() {
        assert!(!holds_token(&entry.path()));
    }
}

#[test]
fn what_cannot_be_fetched_is_said_with_a_remedy() {
    let mut words = String::new();
    let mut note = |name: &str, said: Said, code: i32| {
        assert_eq!(said.code, code, "{name}: {}", said.err);
        words += &format!("{name}\n{}\n\n", said.refusal());
    };
    let bench = Bench::new();
    let repository = one_file();
    let hub = Hub::start(move |_, asked| repository.reply(asked));
    note("no such repository", get(&bench, &hub, "hf:org/nmae"), 2);
    note("no such repository, with a token", said(&bench, &hub, true, &["model", "get", "hf:org/nmae"]), 2);
    note("no such revision", get(&bench, &hub, "hf:org/name@v9"), 2);
    note("no such file", get(&bench, &hub, "hf:org/name:m-Q4_0.gguf"), 2);
    let gated = one_file();
    let hub = Hub::start(move |_, asked| {
        if asked.path.contains("/resolve/") {
            refusal(if asked.token.is_some() { 403 } else { 401 }, "GatedRepo")
        } else {
            gated.reply(asked)
        }
    });
    note("gated", get(&bench, &hub, "hf:org/name"), 2);
    note("gated, with a token", said(&bench, &hub, true, &["model", "get", "hf:org/name"]), 2);
    let lies = one_file();
    let hub = Hub::start(move |_, asked| {
        if asked.path.contains("/resolve/") { ranged(asked, &vec![7; model().len()]) } else { lies.reply(asked) }
    });
    note("a wrong hash", get(&bench, &hub, "hf:org/name"), 75);
    assert!(!part(&bench).exists(), "nothing of it is kept");
    let hub = Hub::start(|_, _| Reply::Whole(200, Vec::new(), b"<html>Welcome to the router</html>".to_vec()));
    note("no hub", get(&bench, &hub, "hf:org/name"), 75);
    let hub = Hub::start(|_, asked| Reply::Whole(302, vec![("location", asked.path.clone())], Vec::new()));
    note("redirects without end", get(&bench, &hub, "hf:org/name"), 75);
    let hub = Hub::start(|_, _| Reply::Whole(429, vec![("retry-after", "0".into())], Vec::new()));
    note("too many requests", get(&bench, &hub, "hf:org/name"), 75);
    let hub = Hub::start(|_, _| Reply::Whole(502, vec![("retry-after", "0".into())], Vec::new()));
    note("a hub that fails", get(&bench, &hub, "hf:org/name"), 75);
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let hub = hub.moved_to(format!("http://{closed}"));
    note("nobody there", get(&bench, &hub, "hf:org/name"), 75);
    insta::assert_snapshot!(words);
}

#[test]
fn without_a_connection_what_other_tools_fetched_is_used() {
    let bench = Bench::new();
    let offline = |arguments: &[&str]| {
        let output = bench.command(arguments).env("HF_HUB_OFFLINE", "1").output().expect("the binary starts");
        bench.said(&output)
    };
    let refused = offline(&["model", "get", "hf:org/name"]);
    assert_eq!(refused.code, 2);
    let folder = bench.path("huggingface/hub/models--org--name");
    let blob = folder.join("blobs").join(stated_hash("m.gguf", &model()));
    let snapshot = folder.join("snapshots").join(COMMIT);
    for folder in [blob.parent().expect("a folder"), &snapshot, &folder.join("refs")] {
        fs::create_dir_all(folder).expect("a folder");
    }
    fs::write(&blob, model()).expect("a blob");
    fs::write(folder.join("refs/main"), COMMIT).expect("a reference");
    std::os::unix::fs::symlink(&blob, snapshot.join("m.gguf")).expect("a link");
    let found = offline(&["model", "get", "hf:org/name"]);
    assert_eq!(found.code, 0, "{}", found.err);
    let verified = offline(&["model", "verify", "hf:org/name"]);
    assert_eq!(verified.code, 0, "{}", verified.err);
    insta::assert_snapshot!(format!(
        "{}\n-- in the cache of another tool\n{}{}",
        refused.refusal(),
        found.err,
        found.out
    ));
    // The same blob serves online too: only the list of files is asked for.
    fs::remove_dir_all(bench.path("cache")).expect("a cache");
    let repository = one_file();
    let hub = Hub::start(move |_, asked| repository.reply(asked));
    assert_eq!(get(&bench, &hub, "hf:org/name").code, 0);
    assert!(hub.files_asked().is_empty() && hub.asked().len() == 1);
}
