#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

use super::*;
use crate::request::ServerUsage;

const BOUNDS: Bounds =
    Bounds { attempts: 5, first_pause: Duration::from_millis(100), patience: Duration::from_secs(30) };

/// The next of some numbers without order.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

/// An answer of ten tokens.
fn answer(text: &str) -> Answer {
    let server_usage = Some(ServerUsage { new_tokens: 10, estimated: false });
    Answer { text: text.to_owned(), server_usage, ..Answer::empty(0, 0) }
}

fn standing(server: usize, limit: Limit) -> Standing {
    Standing { url: format!("http://{server}"), health: Health::up(), limit, estimated: false }
}

/// What a simulated server does.
#[derive(Clone, Copy, Debug)]
struct Manners {
    /// Of 100 requests so many fail, half of them without a connection.
    failing: u64,
    /// Of 100 requests so many are sent back with a pause.
    busy: u64,
    /// From this time on nothing listens there.
    dies: Duration,
    slots: Option<usize>,
    seconds: f64,
}

const GOOD: Manners = Manners { failing: 0, busy: 0, dies: Duration::MAX, slots: Some(4), seconds: 1.0 };

/// What comes back at a time.
enum Coming {
    Sent { of: (usize, usize, u32) },
    Probed { server: usize },
}

struct Simulation {
    delivered: Vec<Option<Result<Answer, EngineError>>>,
    /// Who answered how many.
    by_server: Vec<usize>,
    end: Option<EngineError>,
    elapsed: Duration,
    events: Vec<ServerEvent>,
}

/// A call over servers with these manners, by a clock that only the simulation moves. Panics when an answer comes twice, when a
/// server gets more at once than it may, or when nothing can happen any more.
fn simulate(manners: &[Manners], requests: usize, seed: u64) -> Simulation {
    let limit = |of: &Manners| of.slots.map_or(Limit::climbing(1, 64), |slots| Limit::of_slots(slots, 64));
    let standings = manners.iter().enumerate().map(|(server, of)| standing(server, limit(of))).collect();
    let mut now = Duration::ZERO;
    let mut schedule = Schedule::new(standings, 0..requests as u64, BOUNDS, now);
    let mut coming: Vec<(Duration, Coming)> = Vec::new();
    let mut state = seed;
    let mut result = Simulation {
        delivered: (0..requests).map(|_| None).collect(),
        by_server: vec![0; manners.len()],
        end: None,
        elapsed: Duration::ZERO,
        events: Vec::new(),
    };
    while !schedule.ended() {
        for order in schedule.orders(now) {
            let (server, of) = match order {
                Order::Send { server, request, episode } => (server, Coming::Sent { of: (server, request, episode) }),
                Order::Probe { server } => (server, Coming::Probed { server }),
            };
            let takes = manners[server].seconds * (0.5 + next(&mut state) as f64 % 1000.0 / 1000.0);
            coming.push((now + Duration::from_secs_f64(takes), of));
        }
        for (server, of) in manners.iter().enumerate() {
            let at_once = coming.iter().filter(|(_, coming)| matches!(coming, Coming::Sent { of } if of.0 == server));
            assert!(at_once.count() <= of.slots.unwrap_or(64));
        }
        result.end = schedule.given_up(now);
        if result.end.is_some() {
            break;
        }
        let first = coming.iter().map(|(time, _)| *time).min();
        let wake = schedule.wake(now);
        now = now.max(first.into_iter().chain(wake).min().expect("something happens"));
        let Some(place) = coming.iter().position(|(time, _)| *time <= now) else { continue };
        match coming.swap_remove(place).1 {
            Coming::Probed { server } => {
                let there = now < manners[server].dies;
                schedule.probed(server, if there { Ok(None) } else { Err("refused".to_owned()) }, now);
            }
            Coming::Sent { of } => {
                let manners = manners[of.0];
                let chance = next(&mut state) % 100;
                let outcome = if now >= manners.dies {
                    Outcome::Failed(Severity::Dead, "refused".to_owned())
                } else if chance < manners.failing {
                    let severity = if chance.is_multiple_of(2) { Severity::Dead } else { Severity::Broken };
                    Outcome::Failed(severity, "500".to_owned())
                } else if chance < manners.failing + manners.busy {
                    let wished = Some(Duration::from_secs(chance % 4));
                    Outcome::Busy { overloaded: chance.is_multiple_of(2), wished, reason: "429".to_owned() }
                } else {
                    Outcome::Answered(answer(&of.1.to_string()))
                };
                let good = matches!(outcome, Outcome::Answered(_));
                if let Some((request, answer)) = schedule.settle(of, outcome, now) {
                    result.by_server[of.0] += usize::from(good);
                    assert!(result.delivered[request].replace(answer).is_none(), "{request} was delivered twice");
                }
            }
        }
    }
    result.elapsed = now;
    result.events = schedule.finish(now).1;
    result
}

#[test]
fn every_request_is_delivered_once_whatever_servers_do() {
    for seed in 0..60 {
        let mut state = seed;
        let servers = 1 + next(&mut state) as usize % 4;
        let mut manners: Vec<Manners> = (0..servers)
            .map(|_| Manners {
                failing: next(&mut state) % 40,
                busy: next(&mut state) % 10,
                dies: match next(&mut state) % 3 {
                    0 => Duration::from_secs(next(&mut state) % 60),
                    _ => Duration::MAX,
                },
                slots: next(&mut state).is_multiple_of(2).then(|| 1 + next(&mut state) as usize % 8),
                seconds: 0.1 + next(&mut state) as f64 % 10.0,
            })
            .collect();
        // One that stays, so that all can be answered.
        manners[0] = Manners { failing: manners[0].failing, ..GOOD };
        let result = simulate(&manners, 300, seed);
        assert!(result.end.is_none(), "{manners:?}: {:?}", result.end);
        for (request, answer) in result.delivered.iter().enumerate() {
            match answer.as_ref().expect("an answer") {
                Ok(answer) => assert_eq!(answer.text, request.to_string()),
                Err(EngineError::GivenUp { attempts, reasons }) => {
                    assert!(*attempts == 5 && !reasons.is_empty());
                }
                Err(error) => panic!("{error}"),
            }
        }
        let given_up = result.delivered.iter().flatten().filter(|answer| answer.is_err()).count();
        assert!(given_up <= 15, "{given_up} of 300 given up: {manners:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_schedule() {
    let manners = [Manners { failing: 20, busy: 5, ..GOOD }, GOOD];
    let [one, other] = [(); 2].map(|()| simulate(&manners, 200, 3));
    assert_eq!((one.elapsed, one.by_server), (other.elapsed, other.by_server));
}

#[test]
fn a_fast_server_takes_more_and_none_stands_still() {
    let fast = Manners { seconds: 0.25, ..GOOD };
    let result = simulate(&[fast, GOOD], 500, 1);
    assert!((350..450).contains(&result.by_server[0]), "{:?}", result.by_server);
    // 500 answers by 4 slots of 4/s and 4 of 1/s.
    assert!(result.elapsed < Duration::from_secs_f64(1.15 * 500.0 / 20.0), "{:?}", result.elapsed);
    // A few requests are spread, not put upon the first.
    assert_eq!(simulate(&[GOOD, GOOD], 4, 1).by_server, [2, 2]);
}

#[test]
fn what_a_dying_server_had_goes_to_the_others() {
    let dying = Manners { dies: Duration::from_secs(5), ..GOOD };
    let result = simulate(&[dying, GOOD], 200, 1);
    assert!(result.delivered.iter().all(|answer| matches!(answer, Some(Ok(_)))));
    assert!(result.by_server[0] > 5 && result.by_server.iter().sum::<usize>() == 200);
    let served = result.events.iter().find_map(|event| match event.what {
        ServerNews::Served { failed, .. } if event.url == "http://0" => Some(failed),
        _ => None,
    });
    assert!(served.is_some_and(|failed| (1..=10).contains(&failed)), "a look comes before every further request");
}

#[test]
fn when_all_are_gone_the_call_ends_with_each_server_and_its_error() {
    let dying = |seconds| Manners { dies: Duration::from_secs(seconds), ..GOOD };
    let result = simulate(&[dying(5), dying(9)], 200, 1);
    let answered = result.delivered.iter().flatten().filter(|answer| answer.is_ok()).count();
    let left = 200 - result.delivered.iter().flatten().count();
    assert!(answered > 20 && left > 20);
    assert_eq!(
        result.end.unwrap().to_string(),
        format!(
            "no server answers for 30 s: http://0: refused; http://1: refused; {left} requests are left without an answer; \
             check that it runs and that host and port are right, then run the same again"
        )
    );
    assert!(result.elapsed < Duration::from_secs(9 + 30 + 15), "{:?}", result.elapsed);
}

#[test]
fn a_failed_request_goes_to_another_server_first() {
    let standings = (0..2).map(|server| standing(server, Limit::of_slots(1, 9))).collect();
    let mut schedule = Schedule::new(standings, [1, 2], BOUNDS, Duration::ZERO);
    let Order::Send { server, request, episode } = schedule.orders(Duration::ZERO)[0] else { panic!("a request") };
    let failed = Outcome::Failed(Severity::Broken, "half an answer".to_owned());
    assert!(schedule.settle((server, request, episode), failed, Duration::ZERO).is_none());
    assert_eq!(schedule.orders(Duration::ZERO), [], "the other server is at work, and this one had it");
    let other = (1 - server, 1 - request, 0);
    let (delivered, _) = schedule.settle(other, Outcome::Answered(answer("x")), Duration::ZERO).unwrap();
    assert_eq!(delivered, 1 - request);
    assert_eq!(schedule.orders(Duration::ZERO), [Order::Send { server: 1 - server, request, episode: 0 }]);
}

#[test]
fn a_request_is_given_up_with_all_reasons() {
    let mut schedule = Schedule::new(vec![standing(0, Limit::of_slots(1, 9))], [1], BOUNDS, Duration::ZERO);
    let mut now = Duration::ZERO;
    loop {
        now += Duration::from_secs(10);
        for order in schedule.orders(now) {
            match order {
                Order::Probe { server } => schedule.probed(server, Ok(None), now),
                Order::Send { server, request, episode } => {
                    let reason = if schedule.jobs[0].attempts < 2 { "500" } else { "half" };
                    let failed = Outcome::Failed(Severity::Broken, reason.to_owned());
                    if let Some((_, answer)) = schedule.settle((server, request, episode), failed, now) {
                        let words = "no server answered it in 5 tries: http://0: 500 (2 times); http://0: half (3 times); \
                                     look into the servers' logs, then ask again";
                        assert_eq!(answer.unwrap_err().to_string(), words);
                        assert!(schedule.ended());
                        return;
                    }
                }
            }
        }
    }
}

#[test]
fn a_server_that_refuses_us_is_left_out_and_alone_ends_the_call() {
    let standings = |count| (0..count).map(|server| standing(server, Limit::of_slots(1, 9))).collect::<Vec<_>>();
    for servers in [1, 2] {
        let mut schedule = Schedule::new(standings(servers), [1], BOUNDS, Duration::ZERO);
        let Order::Send { server, request, episode } = schedule.orders(Duration::ZERO)[0] else { panic!("a request") };
        let refused = Outcome::Excluded("the server answered 401".to_owned());
        assert!(schedule.settle((server, request, episode), refused, Duration::ZERO).is_none());
        let orders = schedule.orders(Duration::ZERO);
        match schedule.given_up(Duration::ZERO) {
            None => assert_eq!((servers, orders.len()), (2, 1)),
            Some(error) => {
                assert_eq!((servers, orders.len()), (1, 0));
                assert!(matches!(error, EngineError::ServersGone { patience: None, .. }), "{error}");
            }
        }
    }
}

#[test]
fn that_counts_are_estimates_is_said_once_a_server() {
    let mut standings: Vec<Standing> = (0..2).map(|server| standing(server, Limit::of_slots(9, 9))).collect();
    for call in 0..2 {
        let mut schedule = Schedule::new(standings, 0..8, BOUNDS, Duration::ZERO);
        for order in schedule.orders(Duration::ZERO) {
            let Order::Send { server, request, episode } = order else { panic!("all are there") };
            let server_usage = Some(ServerUsage { new_tokens: 10, estimated: server == 1 });
            let answered = Outcome::Answered(Answer { server_usage, ..answer("x") });
            assert!(schedule.settle((server, request, episode), answered, Duration::ZERO).is_some());
        }
        let said: Vec<ServerEvent> =
            schedule.news().into_iter().filter(|event| event.what == ServerNews::Estimated).collect();
        assert_eq!(said.len(), 1 - call, "{said:?}");
        assert!(said.iter().all(|event| event.url == "http://1"));
        standings = schedule.finish(Duration::from_secs(1)).0;
    }
}
