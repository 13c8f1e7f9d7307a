//! Tasks that threads share, for calls that come thick and fast.
//!
//! A step of a model is hundreds of short calls. Between two of them a thread of a pool falls asleep, and waking it takes as
//! long as the work. Within [`awake`] the threads that help a caller stay awake for a moment after its last task and find the
//! next call within a fraction of a microsecond. They are threads of the rayon pool around the caller, and go back to it when
//! nothing comes; a caller never waits for one that has taken no task.
//!
//! Elsewhere calls run on the rayon pool like any others: where they alternate with rayon's own, as in a step of training, a
//! thread that stays awake for the one is missing in the other.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use rayon::prelude::*;

use crate::buffer::SharedMut;

/// How long a thread stays awake after its last task.
const LINGER: Duration = Duration::from_micros(50);
/// Looks at the tasks between two looks at the clock.
const LOOKS: u32 = 256;
/// Helpers have a bit each.
const MOST_THREADS: usize = 64;

/// Runs a step of many short calls, between which the threads that help with them stay awake.
pub fn awake<R>(step: impl FnOnce() -> R) -> R {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            AWAKE.set(self.0);
        }
    }
    let _restore = Restore(AWAKE.replace(true));
    step()
}

/// Runs `task` for each index below `count`, on the calling thread and on those of its pool that are free.
///
/// # Panics
/// When a task does, after all have ended; when there are 2^32 tasks.
pub fn for_each(count: usize, task: impl Fn(usize) + Sync) {
    let threads = rayon::current_num_threads();
    if threads == 1 || count < 2 {
        (0..count).for_each(task);
        return;
    }
    if !AWAKE.get() {
        (0..count).into_par_iter().with_max_len(1).for_each(&task);
        return;
    }
    // A call inside a task finds no team here and makes one of its own.
    let team = TEAM.take().unwrap_or_else(|| Arc::new(Team::new(threads)));
    let result = catch_unwind(AssertUnwindSafe(|| team.run(count, &task)));
    TEAM.set(Some(team));
    if let Err(panic) = result {
        resume_unwind(panic);
    }
}

/// Runs `task` for each piece of `length` values, the last one may be shorter, with its index.
///
/// # Panics
/// As [`for_each`], and when `length` is 0.
pub fn for_each_chunk<T: Send>(values: &mut [T], length: usize, task: impl Fn(usize, &mut [T]) + Sync) {
    let all = values.len();
    let shared = SharedMut::new(values);
    for_each(all.div_ceil(length), |index| {
        let first = index * length;
        // SAFETY: pieces lie inside the slice and share no value; `values` is borrowed until all tasks have ended.
        let piece = unsafe { std::slice::from_raw_parts_mut(shared.at(first), length.min(all - first)) };
        task(index, piece);
    });
}

/// [`for_each_chunk`], and what the tasks give, in order.
///
/// # Panics
/// As [`for_each_chunk`].
pub fn map_chunks<T: Send, R: Send>(
    values: &mut [T],
    length: usize,
    task: impl Fn(usize, &mut [T]) -> R + Sync,
) -> Vec<R> {
    let mut results: Vec<Option<R>> = (0..values.len().div_ceil(length)).map(|_| None).collect();
    let shared = SharedMut::new(&mut results);
    for_each_chunk(values, length, |index, piece| {
        let result = Some(task(index, piece));
        // SAFETY: there is a result for each piece, which this task alone writes; `results` outlives the call.
        unsafe { *shared.at(index) = result };
    });
    results.into_iter().flatten().collect()
}

thread_local! {
    static AWAKE: Cell<bool> = const { Cell::new(false) };
    static TEAM: Cell<Option<Arc<Team>>> = const { Cell::new(None) };
}

/// What threads write to often stands alone in its cache lines.
#[repr(align(128))]
struct Apart<T>(T);

/// Consecutive tasks of a call that nobody has taken: the number of the first and that behind the last, in one.
///
/// A thread takes those of its own range in order, so that what it reads is one stream and it meets about the same rows from
/// call to call; then it takes the last ones of others.
struct Range(Apart<AtomicU64>);

/// From where a task is taken.
#[derive(Clone, Copy)]
enum End {
    First,
    Last,
}

impl Range {
    fn offer(&self, first: usize, end: usize) {
        self.0.0.store((first as u64) << 32 | end as u64, Ordering::Release);
    }

    fn bounds(bits: u64) -> (u64, u64) {
        (bits >> 32, bits & u64::from(u32::MAX))
    }

    fn is_open(&self) -> bool {
        let (first, end) = Self::bounds(self.0.0.load(Ordering::Relaxed));
        first < end
    }

    fn take(&self, from: End) -> Option<usize> {
        let mut bits = self.0.0.load(Ordering::Relaxed);
        loop {
            let (first, end) = Self::bounds(bits);
            if first >= end {
                return None;
            }
            let (task, rest) = match from {
                End::First => (first, (first + 1) << 32 | end),
                End::Last => (end - 1, first << 32 | (end - 1)),
            };
            match self.0.0.compare_exchange_weak(bits, rest, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Some(task as usize),
                Err(now) => bits = now,
            }
        }
    }
}

/// A thread that calls and those that help it.
struct Team {
    owner: ThreadId,
    /// One for each thread, the owner's first.
    ranges: Vec<Range>,
    /// Tasks that have ended.
    ended: Apart<AtomicUsize>,
    /// What a task does. Written while no task is left or running; read by who has taken a task that does not count as ended.
    task: UnsafeCell<Option<*const (dyn Fn(usize) + Sync)>>,
    /// A bit for each range whose thread helps, or will when it is free.
    helpers: AtomicU64,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `task` is the only part that is not `Sync` and `Send`; its line says who reads it, and `Team::run` writes it.
unsafe impl Sync for Team {}
// SAFETY: as above.
unsafe impl Send for Team {}

impl Team {
    fn new(threads: usize) -> Self {
        Self {
            owner: thread::current().id(),
            ranges: (0..threads.min(MOST_THREADS)).map(|_| Range(Apart(AtomicU64::new(0)))).collect(),
            ended: Apart(AtomicUsize::new(0)),
            task: UnsafeCell::new(None),
            helpers: AtomicU64::new(0),
            panic: Mutex::new(None),
        }
    }

    /// Runs a call of at least one task. Only the owner calls this.
    fn run(self: &Arc<Self>, count: usize, task: &(dyn Fn(usize) + Sync)) {
        assert!(u32::try_from(count).is_ok(), "{count} tasks in one call");
        // SAFETY: the lifetime is lengthened for as long as tasks may run: this function ends after the last of them.
        let task: &'static (dyn Fn(usize) + Sync) = unsafe { std::mem::transmute(task) };
        // SAFETY: all tasks of the call before have ended, so nobody reads it.
        unsafe { *self.task.get() = Some(task) };
        self.ended.0.store(0, Ordering::Relaxed);
        let threads = self.ranges.len().min(count);
        // The owner's own come last: meanwhile the others begin.
        for index in (0..threads).rev() {
            self.ranges[index].offer(index * count / threads, (index + 1) * count / threads);
        }
        let present = self.helpers.load(Ordering::Relaxed);
        for index in (1..threads).filter(|index| present >> index & 1 == 0) {
            self.helpers.fetch_or(1 << index, Ordering::Relaxed);
            let team = Arc::clone(self);
            rayon::spawn(move || team.help(index));
        }
        self.work(0);
        let mut waited = 0_u32;
        while self.ended.0.load(Ordering::Acquire) < count {
            waited += 1;
            if waited.is_multiple_of(16 * LOOKS) {
                // The thread with the last task has lost its processor: it may be this one.
                thread::yield_now();
            }
            std::hint::spin_loop();
        }
        let panic = self.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    /// Does the tasks of a range, then those that others have left; says whether there were any.
    fn work(&self, own: usize) -> bool {
        let count = self.ranges.len();
        let mut any = self.drain(own, End::First);
        for other in 1..count {
            any |= self.drain((own + other) % count, End::Last);
        }
        any
    }

    /// Does tasks of a range until none is left there; says whether there was one.
    fn drain(&self, range: usize, from: End) -> bool {
        let mut done = 0;
        while let Some(index) = self.ranges[range].take(from) {
            // SAFETY: what a task does was written before its tasks were offered, and stays until all count as ended.
            let result = catch_unwind(AssertUnwindSafe(|| unsafe {
                if let Some(task) = *self.task.get() {
                    (*task)(index);
                }
            }));
            if let Err(panic) = result {
                *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
            }
            done += 1;
        }
        if done > 0 {
            self.ended.0.fetch_add(done, Ordering::Release);
        }
        done > 0
    }

    /// Does tasks, those of one range first, until none has come for a while.
    fn help(&self, own: usize) {
        // A pool gives the owner its own request back when nobody else took it.
        if thread::current().id() != self.owner {
            let mut last = Instant::now();
            while last.elapsed() < LINGER {
                for _ in 0..LOOKS {
                    if self.ranges[own].is_open() && self.work(own) {
                        last = Instant::now();
                    }
                    std::hint::spin_loop();
                }
                // Others may have taken its own before it looked.
                if self.work(own) {
                    last = Instant::now();
                }
            }
        }
        self.helpers.fetch_and(!(1 << own), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    /// Runs in a pool, with threads that stay awake and with those of rayon.
    fn with_threads(threads: usize, mut run: impl FnMut() + Send) {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool").install(|| {
            awake(&mut run);
            run();
        });
    }

    #[test]
    fn every_task_runs_once() {
        for threads in [1, 2, 4] {
            with_threads(threads, || {
                for count in (0..300).chain([0, 1, 2, 3]) {
                    let runs: Vec<AtomicU32> = (0..count).map(|_| AtomicU32::new(0)).collect();
                    for_each(count, |index| {
                        runs[index].fetch_add(1, Ordering::Relaxed);
                    });
                    assert!(runs.iter().all(|runs| runs.load(Ordering::Relaxed) == 1), "{count} tasks");
                }
            });
        }
    }

    #[test]
    fn tasks_may_call_too() {
        let sum = AtomicU32::new(0);
        with_threads(3, || {
            for_each(8, |outer| {
                for_each(50, |inner| {
                    sum.fetch_add((outer * inner) as u32, Ordering::Relaxed);
                });
            });
        });
        assert_eq!(sum.into_inner(), 2 * 28 * 1225);
    }

    #[test]
    fn callers_at_the_same_time_do_not_wait_for_one_another() {
        let sums: Vec<AtomicU32> = (0..6).map(|_| AtomicU32::new(0)).collect();
        thread::scope(|scope| {
            for sum in &sums {
                scope.spawn(|| {
                    awake(|| {
                        for _ in 0..200 {
                            for_each(10, |index| {
                                sum.fetch_add(index as u32, Ordering::Relaxed);
                            });
                        }
                    });
                });
            }
        });
        assert!(sums.into_iter().all(|sum| sum.into_inner() == 200 * 45));
    }

    #[test]
    fn chunks_cover_everything() {
        let mut values = vec![0; 1003];
        with_threads(2, || {
            for_each_chunk(&mut values, 100, |index, chunk| {
                chunk.iter_mut().enumerate().for_each(|(at, value)| *value = index * 100 + at);
            });
            assert_eq!(map_chunks(&mut values, 500, |index, chunk| (index, chunk[0])), [(0, 0), (1, 500), (2, 1000)]);
        });
        assert!(values.into_iter().enumerate().all(|(at, value)| at == value));
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_next_call_works() {
        let done = AtomicU32::new(0);
        with_threads(2, || {
            for _ in 0..20 {
                let result = catch_unwind(AssertUnwindSafe(|| {
                    for_each(16, |index| assert!(index != 11, "task {index} fails"));
                }));
                let panic = result.expect_err("a task fails");
                assert_eq!(panic.downcast_ref::<String>().map(String::as_str), Some("task 11 fails"));
                for_each(16, |_| {
                    done.fetch_add(1, Ordering::Relaxed);
                });
            }
        });
        assert_eq!(done.into_inner(), 2 * 320);
    }
}
