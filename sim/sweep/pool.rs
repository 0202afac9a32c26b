//! Does work on several threads and hands the results over in order.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

/// Does every task on `jobs` threads, each of which takes the next one. Where `stop` says so, no more are begun; those
/// before are ended and told.
///
/// `tell` is called on this thread whenever a task is done, with how many are, and then with each result in the order of
/// the tasks: the results that it is told are always those of the first so and so many tasks.
pub fn in_parallel<T: Copy + Send + Sync, R: Send>(
    jobs: usize,
    tasks: &[T],
    work: impl Fn(T) -> R + Sync,
    stop: impl Fn() -> bool + Sync,
    mut tell: impl FnMut(usize, Option<R>),
) {
    let next = AtomicUsize::new(0);
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..jobs.min(tasks.len()) {
            let (sender, next, work, stop) = (sender.clone(), &next, &work, &stop);
            scope.spawn(move || {
                while !stop() {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(task) = tasks.get(index) else { return };
                    if sender.send((index, work(*task))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut waiting = BTreeMap::new();
        let mut told = 0;
        for (done, (index, result)) in receiver.iter().enumerate() {
            tell(done + 1, None);
            waiting.insert(index, result);
            while let Some(result) = waiting.remove(&told) {
                told += 1;
                tell(done + 1, Some(result));
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    fn squares(jobs: usize, stop_after: usize) -> Vec<usize> {
        let tasks: Vec<usize> = (0..100).collect();
        let (stop, mut results) = (AtomicBool::new(false), Vec::new());
        in_parallel(
            jobs,
            &tasks,
            |task| {
                if task == stop_after {
                    stop.store(true, Ordering::Relaxed);
                }
                task * task
            },
            || stop.load(Ordering::Relaxed),
            |_, result| results.extend(result),
        );
        results
    }

    #[test]
    fn results_come_in_order_however_many_threads_there_are() {
        let expected: Vec<usize> = (0..100).map(|task| task * task).collect();
        for jobs in [1, 2, 7, 1000] {
            assert_eq!(squares(jobs, usize::MAX), expected, "{jobs} threads");
        }
    }

    #[test]
    fn what_is_told_before_a_stop_is_the_beginning() {
        for jobs in [1, 4] {
            let results = squares(jobs, 10);
            assert!(results.len() > 10 && results.len() < 100, "{jobs} threads: {}", results.len());
            assert!(results.iter().enumerate().all(|(task, result)| *result == task * task));
        }
    }
}
