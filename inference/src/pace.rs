//! How much of the machine a backend may take, and when its steps may run so that it takes no more.
//!
//! A limit decides when a step runs and on how many threads, never what it computes: results are the same with any of them.

use std::time::Duration;

/// What a backend may take of its machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Threads of a forward pass, `1..=THREADS_MAX`.
    pub threads: usize,
    /// Share of all processors, `1..=100`; at 100 nothing ever rests.
    pub cpu_percent: u8,
    /// Bytes of the caches of running requests together.
    pub kv_bytes_max: u64,
    /// Bytes of ended sessions that are kept.
    pub prefix_bytes_max: u64,
}

/// What may be taken in one go after a rest.
const BURST: Duration = Duration::from_millis(100);
/// Longest rest that is owed: where something else in this process takes more than the share, work still goes on, slowly.
const REST_MAX: Duration = Duration::from_secs(30);

/// Keeps the processor time of a process below a share of the machine: time earns credit, computing spends it, and who is in
/// debt rests.
#[derive(Clone, Debug)]
pub struct Pacer {
    /// Seconds of processor time that a second earns; nothing where all may be taken.
    rate: Option<f64>,
    /// Seconds of processor time that may still be taken; below zero they are owed.
    credit: f64,
    /// Clock and processor time as they were last read, in seconds.
    last: Option<(f64, f64)>,
}

impl Pacer {
    /// Lets `percent` of so many processors be taken.
    #[must_use]
    pub fn new(percent: u8, processors: usize) -> Pacer {
        #[expect(clippy::cast_precision_loss, reason = "a number of processors")]
        let rate = (percent < 100).then(|| f64::from(percent.max(1)) / 100.0 * processors as f64);
        Pacer { rate, credit: 0.0, last: None }
    }

    /// Whether anything ever rests.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.rate.is_some()
    }

    /// How long to rest before the next step, given the time since some beginning and all processor time taken so far.
    pub fn rest(&mut self, clock: Duration, taken: Duration) -> Duration {
        let Some(rate) = self.rate else { return Duration::ZERO };
        let now = (clock.as_secs_f64(), taken.as_secs_f64());
        let (clock, taken) = self.last.replace(now).unwrap_or(now);
        let earned = (now.0 - clock).max(0.0) * rate;
        let spent = (now.1 - taken).max(0.0);
        let (most, least) = (BURST.as_secs_f64() * rate, -REST_MAX.as_secs_f64() * rate);
        self.credit = (self.credit + earned - spent).clamp(least, most);
        Duration::from_secs_f64((-self.credit).max(0.0) / rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps of so many seconds on so many threads, with rests, for a while; the share of all processors that they took.
    #[expect(clippy::cast_precision_loss, reason = "a number of processors")]
    fn share(percent: u8, processors: usize, step: f64, threads: f64) -> f64 {
        let mut pacer = Pacer::new(percent, processors);
        let (mut clock, mut taken) = (0.0, 0.0);
        while clock < 120.0 {
            let rest = pacer.rest(Duration::from_secs_f64(clock), Duration::from_secs_f64(taken));
            if rest.is_zero() {
                clock += step;
                taken += step * threads;
            } else {
                clock += rest.as_secs_f64();
            }
        }
        100.0 * taken / (clock * processors as f64)
    }

    #[test]
    fn the_share_is_kept_whatever_a_step_takes() {
        for (percent, processors, step, threads) in
            [(25, 2, 0.001, 1.0), (25, 2, 0.5, 2.0), (10, 16, 0.02, 1.0), (1, 4, 0.01, 1.0), (60, 8, 0.1, 8.0)]
        {
            let got = share(percent, processors, step, threads);
            let wanted = f64::from(percent).min(100.0 * threads / processors as f64);
            assert!((got - wanted).abs() < wanted * 0.1 + 0.5, "{percent} % of {processors}: {got}");
        }
        assert!(share(100, 2, 0.01, 2.0) > 99.0, "all of it rests never");
    }

    #[test]
    fn idle_time_is_no_credit_for_later_and_a_debt_is_bounded() {
        let mut pacer = Pacer::new(50, 2);
        assert_eq!(pacer.rest(Duration::ZERO, Duration::ZERO), Duration::ZERO);
        // An hour of nothing, then a second of both processors: all of it but the burst is owed.
        assert_eq!(pacer.rest(Duration::from_secs(3_600), Duration::ZERO), Duration::ZERO);
        let rest = pacer.rest(Duration::from_secs(3_601), Duration::from_secs(2)).as_secs_f64();
        assert!((0.9..=1.0).contains(&rest), "{rest}");
        let rest = pacer.rest(Duration::from_secs(3_602), Duration::from_secs(9_000));
        assert_eq!(rest, REST_MAX);
    }
}
