//! The wires between nodes, which a test can cut: one TCP relay for each two, as a network sees them and a node does not.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

/// What a wire does with what is sent over it. No end of it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Cut {
    /// Carries it.
    Mended,
    /// Keeps it until it is mended: the network of a system that tries again.
    Holding,
    /// Loses it. A connection that lost something ends when the wire is mended.
    Losing,
}

impl Cut {
    const ALL: [Cut; 3] = [Cut::Mended, Cut::Holding, Cut::Losing];
}

/// Most bytes that a wire keeps in one direction.
const HELD_BYTES_MAX: usize = 64 << 20;
/// How soon a wire notices that it was cut or mended.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A relay to one port of this machine.
#[derive(Debug)]
pub struct Wire {
    /// Where it listens.
    pub port: u16,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    cut: AtomicU8,
    carried: AtomicU64,
    kept_back: AtomicU64,
}

impl Shared {
    fn cut(&self) -> Cut {
        Cut::ALL[usize::from(self.cut.load(Ordering::SeqCst))]
    }
}

impl Wire {
    /// A wire to a port.
    ///
    /// # Panics
    /// If there is no port for its other end.
    pub fn to(target: u16) -> Wire {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let shared = Arc::new(Shared::default());
        let inner = Arc::clone(&shared);
        // It lives as long as the test: nothing waits for it.
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let Ok(far) = TcpStream::connect(("127.0.0.1", target)) else { continue };
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (from, to) = (from.try_clone().expect("a socket"), to.try_clone().expect("a socket"));
                    let shared = Arc::clone(&inner);
                    std::thread::spawn(move || relay(&from, &to, &shared));
                }
            }
        });
        Wire { port, shared }
    }

    /// Cuts or mends it.
    pub fn set(&self, cut: Cut) {
        self.shared.cut.store(cut as u8, Ordering::SeqCst);
    }

    /// Bytes that it carried, and that it kept back or lost.
    pub fn bytes(&self) -> (u64, u64) {
        (self.shared.carried.load(Ordering::SeqCst), self.shared.kept_back.load(Ordering::SeqCst))
    }
}

/// Carries bytes one way until either end closes, or the wire is mended after it lost some.
fn relay(mut from: &TcpStream, mut to: &TcpStream, shared: &Shared) {
    from.set_read_timeout(Some(LOOK_EVERY)).expect("not zero");
    let (mut buffer, mut held, mut is_torn) = (vec![0; 1 << 16], Vec::new(), false);
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => 0,
            Err(_) => break,
        };
        match shared.cut() {
            Cut::Mended if is_torn => break,
            Cut::Mended => {
                held.extend_from_slice(&buffer[..count]);
                if to.write_all(&held).is_err() {
                    break;
                }
                shared.carried.fetch_add(held.len() as u64, Ordering::SeqCst);
                held.clear();
                continue;
            }
            Cut::Holding if held.len() + count <= HELD_BYTES_MAX => held.extend_from_slice(&buffer[..count]),
            Cut::Holding | Cut::Losing => is_torn |= count > 0,
        }
        shared.kept_back.fetch_add(count as u64, Ordering::SeqCst);
    }
    // Either may be closed already.
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

/// The wires of a network, by the two nodes that each joins: the one that dials, and the other.
#[derive(Debug, Default)]
pub struct Wires(pub HashMap<(usize, usize), Wire>);

impl Wires {
    /// Cuts or mends every wire between two sides; returns the bytes that these wires kept back so far.
    pub fn between(&self, sides: [&[usize]; 2], cut: Cut) -> u64 {
        let is_between = |&(one, other): &(usize, usize)| sides[0].contains(&one) != sides[0].contains(&other);
        let between = self.0.iter().filter(|(pair, _)| is_between(pair));
        between.map(|(_, wire)| (wire.set(cut), wire.bytes().1).1).sum()
    }
}
