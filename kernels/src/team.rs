//! Threads that wait for the next piece of a step awake.
//!
//! A step of one sequence is some hundred products of a few microseconds each. Waking a sleeping thread takes longer than
//! such a product, so helpers look for the next one for a while before they sleep.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Thread};

/// Looks at the slot before a helper sleeps: some tenths of a millisecond, what lies between two products of a step.
const LOOKS_BEFORE_SLEEP: usize = 6000;
/// Looks at a helper's last task before the caller offers its processor to others.
const LOOKS_BEFORE_YIELD: usize = 6000;

/// Consecutive tasks, which one thread takes in order and others only when they have done theirs: what a thread reads is then
/// one stream, as the prefetchers of processors want it.
#[repr(align(128))]
struct Range {
    next: AtomicUsize,
    end: usize,
}

/// Tasks of one call.
struct Job<'a> {
    /// The tasks, cut into a range for each thread, and how much of it is taken.
    ranges: &'a [Range],
    work: &'a (dyn Fn(usize) + Sync),
    /// Helpers that may still touch this job.
    helpers: AtomicUsize,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Job<'_> {
    /// Does tasks until there are none, those of range `own` first.
    fn take_part(&self, own: usize) {
        let count = self.ranges.len();
        for range in (own..own + count).map(|index| &self.ranges[index % count]) {
            loop {
                let task = range.next.fetch_add(1, Ordering::Relaxed);
                if task >= range.end {
                    break;
                }
                (self.work)(task);
            }
        }
    }
}

/// Where a helper finds its next job.
#[repr(align(128))]
struct Slot {
    job: AtomicPtr<Job<'static>>,
    sleeps: AtomicBool,
}

struct Helper {
    slot: Arc<Slot>,
    thread: Thread,
}

impl Helper {
    fn start(index: usize) -> Option<Self> {
        let slot = Arc::new(Slot { job: AtomicPtr::new(null_mut()), sleeps: AtomicBool::new(false) });
        let own = Arc::clone(&slot);
        let thread = thread::Builder::new().name("espalier-team".to_owned()).spawn(move || help(&own, index)).ok()?;
        Some(Self { slot, thread: thread.thread().clone() })
    }
}

/// The life of the helper that takes range `index` first.
fn help(slot: &Slot, index: usize) -> ! {
    loop {
        let mut looks = 0;
        let job = loop {
            let job = slot.job.swap(null_mut(), Ordering::SeqCst);
            if !job.is_null() {
                break job;
            }
            // A plain look leaves the line of the slot where it is.
            while slot.job.load(Ordering::Relaxed).is_null() {
                looks += 1;
                if looks < LOOKS_BEFORE_SLEEP {
                    std::hint::spin_loop();
                    continue;
                }
                slot.sleeps.store(true, Ordering::SeqCst);
                if slot.job.load(Ordering::SeqCst).is_null() {
                    thread::park();
                }
                slot.sleeps.store(false, Ordering::SeqCst);
            }
        };
        // SAFETY: the caller keeps the job until each helper that took it has left it, which is the subtraction below.
        let job = unsafe { &*job };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| job.take_part(index))) {
            *job.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
        }
        job.helpers.fetch_sub(1, Ordering::Release);
    }
}

/// Takes a job back from those who have not begun it, and waits for those who have; also when the caller panics.
struct Recall<'a> {
    job: &'a Job<'a>,
    helpers: &'a [Helper],
}

impl Drop for Recall<'_> {
    fn drop(&mut self) {
        let address = std::ptr::from_ref(self.job).cast_mut().cast();
        for helper in self.helpers {
            let slot = &helper.slot.job;
            if slot.compare_exchange(address, null_mut(), Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                self.job.helpers.fetch_sub(1, Ordering::Relaxed);
            }
        }
        let mut looks = 0;
        while self.job.helpers.load(Ordering::Acquire) > 0 {
            looks += 1;
            if looks < LOOKS_BEFORE_YIELD {
                std::hint::spin_loop();
            } else {
                thread::yield_now();
            }
        }
    }
}

/// Runs tasks `0..tasks` on as many threads as the rayon pool of the caller has, in no order; one call at a time has the
/// helpers, another one meanwhile works alone.
pub(crate) fn share(tasks: usize, work: &(dyn Fn(usize) + Sync)) {
    static HELPERS: Mutex<Vec<Helper>> = Mutex::new(Vec::new());
    let wanted = rayon::current_num_threads().min(tasks).saturating_sub(1);
    let helpers = if wanted == 0 { None } else { HELPERS.try_lock().ok() };
    let Some(mut helpers) = helpers else {
        (0..tasks).for_each(work);
        return;
    };
    while helpers.len() < wanted
        && let Some(helper) = Helper::start(helpers.len() + 1)
    {
        helpers.push(helper);
    }
    let helpers = &helpers[..wanted.min(helpers.len())];
    let count = AtomicUsize::new(helpers.len());
    let threads = helpers.len() + 1;
    let range =
        |index: usize| Range { next: AtomicUsize::new(index * tasks / threads), end: (index + 1) * tasks / threads };
    let ranges: Vec<Range> = (0..threads).map(range).collect();
    let job = Job { ranges: &ranges, work, helpers: count, panic: Mutex::new(None) };
    let recall = Recall { job: &job, helpers };
    for helper in helpers {
        helper.slot.job.store(std::ptr::from_ref(&job).cast_mut().cast(), Ordering::SeqCst);
        if helper.slot.sleeps.load(Ordering::SeqCst) {
            helper.thread.unpark();
        }
    }
    job.take_part(0);
    drop(recall);
    if let Some(panic) = job.panic.lock().unwrap_or_else(PoisonError::into_inner).take() {
        resume_unwind(panic);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once_also_after_a_sleep_and_from_many_threads() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(4).build().expect("pool");
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    pool.install(|| {
                        for round in 0..300 {
                            if round % 100 == 99 {
                                thread::sleep(std::time::Duration::from_millis(3));
                            }
                            let runs: Vec<AtomicUsize> = (0..round % 17).map(|_| AtomicUsize::new(0)).collect();
                            share(runs.len(), &|task| {
                                runs[task].fetch_add(1, Ordering::Relaxed);
                            });
                            assert!(runs.iter().all(|runs| runs.load(Ordering::Relaxed) == 1));
                        }
                    });
                });
            }
        });
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_next_call_works() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().expect("pool");
        pool.install(|| {
            for bad in 0..8 {
                let outcome = catch_unwind(|| share(8, &|task| assert!(task != bad, "task {bad}")));
                assert!(outcome.is_err());
                let sum = AtomicUsize::new(0);
                share(8, &|task| {
                    sum.fetch_add(task, Ordering::Relaxed);
                });
                assert_eq!(sum.into_inner(), 28);
            }
        });
    }
}
