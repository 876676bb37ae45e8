//! How many bytes go to and come from all peers together in a second: one bucket, which fills with time.
//!
//! What consensus says never waits, in either direction: it is counted, and what else there is to say waits for it. Bytes are those of
//! messages; what TLS and TCP add is a few in a hundred.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::{Bytes, Message};

use super::Channel;
use super::peer::QUEUE_MAX;

/// What may pass in one go after silence.
const BURST: Duration = Duration::from_millis(250);
/// Longest wait for anything: a debt above it is forgiven, so that no peer looks dead.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// The bucket of all connections of a node.
#[derive(Debug)]
pub struct Throttle(Mutex<Bucket>);

#[derive(Debug)]
struct Bucket {
    /// Bytes a second; nothing where as many may pass as come.
    rate: Option<f64>,
    /// Bytes that may pass now; below zero they are owed.
    credit: f64,
    since: Instant,
}

impl Default for Throttle {
    fn default() -> Throttle {
        Throttle(Mutex::new(Bucket { rate: None, credit: 0.0, since: Instant::now() }))
    }
}

impl Bucket {
    /// Brings the credit up to now.
    fn fill(&mut self, rate: f64) {
        let passed = self.since.elapsed().as_secs_f64();
        self.since = Instant::now();
        let (least, most) = (-WAIT_MAX.as_secs_f64() * rate, BURST.as_secs_f64() * rate);
        self.credit = (self.credit + passed * rate).clamp(least, most);
    }
}

impl Throttle {
    /// Lets so many kilobits a second pass from now on; nothing lets everything pass.
    pub fn set(&self, kbps: Option<u32>) {
        let mut bucket = self.bucket();
        bucket.rate = kbps.map(|kbps| f64::from(kbps) * 1_000.0 / 8.0);
        (bucket.credit, bucket.since) = (0.0, Instant::now());
    }

    fn bucket(&self) -> MutexGuard<'_, Bucket> {
        self.0.lock().expect("no section that holds this lock panics")
    }

    /// Counts bytes that pass.
    fn count(&self, bytes: usize) {
        let mut bucket = self.bucket();
        let Some(rate) = bucket.rate else { return };
        bucket.fill(rate);
        bucket.credit -= f64::from(u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    /// How long something that can wait has to.
    fn wait(&self) -> Duration {
        let mut bucket = self.bucket();
        let Some(rate) = bucket.rate else { return Duration::ZERO };
        bucket.fill(rate);
        Duration::from_secs_f64((-bucket.credit).max(0.0) / rate)
    }

    /// Counts what a peer said, and makes its reader wait where there was too much: then the peer waits too.
    pub(super) async fn heard(&self, message: &Message) {
        self.count(message.len());
        let is_urgent = matches!(message, Message::Binary(frame) if is_urgent(frame));
        if !is_urgent {
            self.pause().await;
        }
    }

    /// Waits as long as something that can wait has to. No wait is no visit to the timer either, which would take a millisecond.
    async fn pause(&self) {
        let wait = self.wait();
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    /// Waits until an answer of so many bytes may leave, and counts it.
    pub(super) async fn say(&self, bytes: usize) {
        self.pause().await;
        self.count(bytes);
    }
}

fn is_urgent(frame: &[u8]) -> bool {
    frame.first() == Some(&Channel::Consensus.tag())
}

/// The queue to a peer, from which frames leave when they may: those of consensus at once, others in their order.
#[derive(Debug)]
pub(super) struct Outlet<'t> {
    queue: mpsc::Receiver<Bytes>,
    throttle: &'t Throttle,
    held: VecDeque<Bytes>,
}

impl<'t> Outlet<'t> {
    pub(super) fn new(queue: mpsc::Receiver<Bytes>, throttle: &'t Throttle) -> Outlet<'t> {
        Outlet { queue, throttle, held: VecDeque::new() }
    }

    /// The next frame that may leave. Nothing is lost where this is dropped while it waits.
    pub(super) async fn recv(&mut self) -> Option<Bytes> {
        loop {
            if let Some(frame) = self.try_recv() {
                return Some(frame);
            }
            let (is_full, wait) = (self.held.len() >= QUEUE_MAX, self.throttle.wait());
            if is_full {
                tokio::time::sleep(wait).await;
                continue;
            }
            let frame = if self.held.is_empty() {
                self.queue.recv().await?
            } else {
                match tokio::time::timeout(wait, self.queue.recv()).await {
                    Err(_) => continue,
                    Ok(frame) => frame?,
                }
            };
            self.held.push_back(frame);
        }
    }

    /// A frame that may leave now.
    pub(super) fn try_recv(&mut self) -> Option<Bytes> {
        while self.held.len() < QUEUE_MAX
            && let Ok(frame) = self.queue.try_recv()
        {
            self.held.push_back(frame);
        }
        // What waits for credit is behind what does not.
        let urgent = self.held.iter().position(|frame| is_urgent(frame));
        let index = match urgent {
            Some(index) => index,
            None if self.throttle.wait().is_zero() => 0,
            None => return None,
        };
        let frame = self.held.remove(index)?;
        self.throttle.count(frame.len());
        Some(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::super::peer::frame;
    use super::*;

    /// 8 Mbit/s are a million bytes a second.
    const KBPS: u32 = 8_000;

    fn limited() -> Throttle {
        let throttle = Throttle::default();
        throttle.set(Some(KBPS));
        throttle
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_pass_at_the_rate_that_is_stated() {
        let throttle = limited();
        let (sender, queue) = mpsc::channel(QUEUE_MAX);
        let mut outlet = Outlet::new(queue, &throttle);
        for _ in 0..40 {
            sender.send(frame(Channel::Gossip, &[7; 49_999])).await.unwrap();
        }
        let begun = Instant::now();
        for _ in 0..40 {
            outlet.recv().await.unwrap();
        }
        // Two million bytes; the last frame need not be paid for yet.
        let took = begun.elapsed().as_secs_f64();
        assert!((1.8..=2.1).contains(&took), "{took} s");
        // Without a limit nothing waits.
        throttle.set(None);
        sender.send(frame(Channel::Gossip, &[7; 999_999])).await.unwrap();
        sender.send(frame(Channel::Gossip, &[7; 999_999])).await.unwrap();
        let begun = Instant::now();
        outlet.recv().await.unwrap();
        outlet.recv().await.unwrap();
        assert_eq!(begun.elapsed(), Duration::ZERO);
        drop(sender);
        assert_eq!(outlet.recv().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn votes_do_not_wait_for_bulk() {
        let throttle = limited();
        let (sender, queue) = mpsc::channel(QUEUE_MAX);
        let mut outlet = Outlet::new(queue, &throttle);
        let (bulk, vote) = (frame(Channel::Sync, &[1; 3_000_000]), frame(Channel::Consensus, &[2; 100]));
        sender.send(bulk.clone()).await.unwrap();
        sender.send(bulk.clone()).await.unwrap();
        sender.send(vote.clone()).await.unwrap();
        let begun = Instant::now();
        assert_eq!(outlet.recv().await, Some(vote.clone()), "before what came earlier");
        assert_eq!(outlet.recv().await, Some(bulk.clone()));
        // One that comes while bulk waits leaves at once too.
        let late = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            sender.send(vote.clone()).await.unwrap();
        };
        let (next, ()) = tokio::join!(outlet.recv(), late);
        assert_eq!((next, begun.elapsed().as_secs()), (Some(vote), 1));
        assert_eq!(outlet.recv().await, Some(bulk));
        assert!(begun.elapsed() >= Duration::from_millis(2_900));
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_in_takes_of_the_same_bucket() {
        let throttle = limited();
        let begun = Instant::now();
        throttle.heard(&Message::Binary(frame(Channel::Sync, &[1; 1_999_999]))).await;
        assert!((1.9..=2.1).contains(&begun.elapsed().as_secs_f64()));
        throttle.heard(&Message::Binary(frame(Channel::Consensus, &[1; 999_999]))).await;
        assert!(begun.elapsed().as_secs_f64() <= 2.1, "a vote is heard at once");
        throttle.say(10).await;
        assert!(begun.elapsed().as_secs_f64() >= 2.9, "and counted");
        // A debt that would make a peer look dead is forgiven.
        throttle.heard(&Message::Binary(frame(Channel::Consensus, &[1; 90_000_000]))).await;
        assert!(throttle.wait() <= WAIT_MAX);
    }
}
