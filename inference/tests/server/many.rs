//! Many requests, servers that fail, servers that go and come back: every request has one answer.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use espalier_inference::ServerNews;

use super::*;

/// The text of the only message.
fn text(body: &Value) -> String {
    body["messages"][0]["content"].as_str().unwrap().to_owned()
}

fn good(body: &Value) -> Reply {
    Reply::Text(200, chat_reply(&format!("re: {}", text(body))))
}

fn questions(count: usize) -> Vec<Request> {
    (0..count).map(|index| Request { seed: index as u64, ..chat(&index.to_string()) }).collect()
}

fn answered(answers: &[Result<Answer, EngineError>]) {
    for (index, answer) in answers.iter().enumerate() {
        assert_eq!(answer.as_ref().unwrap().text, format!("re: {index}"));
    }
}

#[test]
fn ten_thousand_requests_over_a_good_a_failing_and_a_dying_server() {
    let steady = Loopback::start(|call| good(&call.body));
    let failing = Loopback::start(|call| {
        // Five of eight fail, in an order that nobody sees through.
        match (call.number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 61 {
            0 => Reply::Text(500, "{\"error\": \"out of memory\"}".to_owned()),
            1 => Reply::Cut(chat_reply(&"half of it ".repeat(50))),
            2 => Reply::Text(200, "{\"choices\": [{\"message\": {\"content\"".to_owned()),
            3 => Reply::Hangup,
            4 => {
                std::thread::sleep(Duration::from_millis(30));
                good(&call.body)
            }
            _ => good(&call.body),
        }
    });
    let mut dying = Loopback::start(|call| good(&call.body));
    let urls = [steady.url(), failing.url(), dying.url()].join(",");
    let options = ServerOptions { attempts: 20, concurrency: 8, patience: Duration::from_mins(1), ..options() };
    let pool = ServerPool::open(&urls, &|_| None, options).unwrap();
    let requests = questions(10_000);
    let mut texts: Vec<Option<String>> = vec![None; requests.len()];
    let mut got = 0;
    let mut served = Vec::new();
    pool.generate(
        &requests,
        &mut |index, answer| {
            assert!(texts[index].replace(answer.unwrap().text).is_none(), "{index} was answered twice");
            got += 1;
            if got == 5_000 {
                dying.stop();
            }
            ControlFlow::Continue(())
        },
        &mut |event| {
            if let ServerNews::Served { answers, failed, .. } = event.what {
                served.push((answers, failed));
            }
        },
    )
    .unwrap();
    for (index, text) in texts.iter().enumerate() {
        assert_eq!(text.as_deref(), Some(format!("re: {index}").as_str()));
    }
    assert_eq!(served.iter().map(|(answers, _)| answers).sum::<usize>(), 10_000);
    assert!(served.iter().all(|(answers, _)| *answers > 10), "all three took part: {served:?}");
    assert!(served[1].1 > 10 && served[0].1 == 0, "{served:?}");
}

#[test]
fn a_late_answer_is_no_second_one() {
    let server = Loopback::start(|call| {
        if call.number % 3 == 0 {
            std::thread::sleep(Duration::from_millis(250));
        }
        good(&call.body)
    });
    let options = ServerOptions {
        first_byte_timeout: Duration::from_millis(100),
        attempts: 30,
        patience: Duration::from_secs(20),
        ..options()
    };
    let pool = ServerPool::open(&server.url(), &|_| None, options).unwrap();
    let (answers, events) = all(pool, &questions(12));
    answered(&answers);
    let late = |event: &ServerEvent| event.to_string().contains("the answer did not begin in time");
    assert!(events.iter().any(late), "{events:?}");
}

#[test]
fn a_server_that_comes_back_is_taken_back() {
    let up = Arc::new(AtomicBool::new(true));
    let shared = Arc::clone(&up);
    let first = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&first);
    let server = Loopback::bare(move |call| {
        if !shared.load(Ordering::SeqCst) {
            return Reply::Hangup;
        }
        match (call.method.as_str(), call.path.as_str()) {
            ("GET", "/v1/models") => Reply::Text(200, json!({"data": [{"id": "small"}]}).to_string()),
            ("GET", _) => Reply::Text(404, String::new()),
            _ => {
                if counter.fetch_add(1, Ordering::SeqCst) == 20 {
                    shared.store(false, Ordering::SeqCst);
                }
                good(&call.body)
            }
        }
    });
    let options = ServerOptions { attempts: 10, patience: Duration::from_secs(20), ..options() };
    let pool = ServerPool::open(&server.url(), &|_| None, options).unwrap();
    let mending = Arc::clone(&up);
    let mender = std::thread::spawn(move || {
        while mending.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(100));
        mending.store(true, Ordering::SeqCst);
    });
    let (answers, events) = all(pool, &questions(100));
    mender.join().unwrap();
    answered(&answers);
    let what: Vec<&ServerNews> = events.iter().map(|event| &event.what).collect();
    assert!(what.iter().any(|what| matches!(what, ServerNews::Aside { .. })), "{what:?}");
    assert!(what.iter().any(|what| matches!(what, ServerNews::Back)), "{what:?}");
}

#[test]
fn a_server_that_starts_late_joins_and_one_with_another_model_does_not() {
    let steady = Loopback::start(|call| {
        std::thread::sleep(Duration::from_millis(5));
        good(&call.body)
    });
    // Free a moment ago: nobody is there when the pool opens.
    let absent = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (late, wrong) = (absent(), absent());
    let pool = open(&format!("{},http://{late},http://{wrong}", steady.url())).unwrap();
    let late = Loopback::at(late, |call| match (call.method.as_str(), call.path.as_str()) {
        ("GET", "/v1/models") => Reply::Text(200, json!({"data": [{"id": "small"}]}).to_string()),
        ("GET", _) => Reply::Text(404, String::new()),
        _ => good(&call.body),
    });
    let wrong = Loopback::at(wrong, |call| match call.path.as_str() {
        "/v1/models" => Reply::Text(200, json!({"data": [{"id": "large"}]}).to_string()),
        _ => Reply::Text(404, String::new()),
    });
    assert_ne!(late.address(), wrong.address());
    let (answers, events) = all(pool, &questions(300));
    answered(&answers);
    assert!(late.count() > 20 && wrong.count() == 0, "{events:?}");
    let words: Vec<String> = events.iter().map(ToString::to_string).collect();
    assert!(words.iter().any(|words| words.contains("it does not serve small; it serves large")), "{words:?}");
}

#[test]
fn when_all_are_gone_what_was_answered_is_kept() {
    let mut servers: Vec<Loopback> = (0..2).map(|_| Loopback::start(|call| good(&call.body))).collect();
    let urls: Vec<String> = servers.iter().map(Loopback::url).collect();
    let pool = open(&urls.join(",")).unwrap();
    let mut got = 0;
    let error = pool
        .generate(
            &questions(2_000),
            &mut |_, answer| {
                assert!(answer.is_ok());
                got += 1;
                if got == 100 {
                    servers.iter_mut().for_each(Loopback::stop);
                }
                ControlFlow::Continue(())
            },
            &mut |_| {},
        )
        .unwrap_err();
    let EngineError::ServersGone { unanswered, .. } = &error else { panic!("{error}") };
    assert!(got >= 100 && got + unanswered == 2_000, "{got} and {unanswered}");
    for url in urls {
        assert!(error.to_string().contains(&format!("{url}: connection refused")), "{error}");
    }
}

#[test]
fn a_server_that_tells_no_slots_is_climbed() {
    // Four at a time, the others wait.
    let slots = Arc::new((Mutex::new(4), std::sync::Condvar::new()));
    let server = Loopback::start(move |call| {
        let (free, freed) = &*slots;
        let mut guard = freed.wait_while(free.lock().unwrap(), |free| *free == 0).unwrap();
        *guard -= 1;
        drop(guard);
        std::thread::sleep(Duration::from_millis(4));
        *free.lock().unwrap() += 1;
        freed.notify_one();
        good(&call.body)
    });
    let pool = ServerPool::open(&server.url(), &|_| None, ServerOptions { concurrency: 64, ..options() }).unwrap();
    let (answers, events) = all(pool, &questions(400));
    answered(&answers);
    let steps: Vec<(usize, usize)> = events
        .iter()
        .filter_map(|event| match event.what {
            ServerNews::Concurrency { from, to, .. } => Some((from, to)),
            _ => None,
        })
        .collect();
    assert_eq!(steps[0], (1, 2), "{events:?}");
    assert!(steps.len() >= 2, "{events:?}");
}
